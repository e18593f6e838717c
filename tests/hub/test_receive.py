"""The cutting of a stream into packets, without a socket."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.reasoncodes import ReasonCode

from nervus.bus.errors import MalformedPacketError
from nervus.bus.receive import PACKET_LIMIT, Receiver, puback_packet, publish_packet

PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x04\x00\x01\x00\x01"


class Taken:
    """Everything a receiver handed on, in order."""

    def __init__(self) -> None:
        self.all: list[object] = []
        self.receiver = Receiver(self._publish, self._confirm, self.all.append)

    def _publish(self, topic: str | None, payload: bytes, qos: int, retain: bool, mid: int) -> None:  # noqa: FBT001 - as OnPublish
        self.all.append((topic, payload, qos, retain, mid))

    def _confirm(self, mid: int, code: ReasonCode) -> None:
        self.all.append((mid, code.value))


def taken(*pieces: bytes) -> list[object]:
    one = Taken()
    for piece in pieces:
        one.receiver.feed(piece)
    return one.all


STREAM = [
    SUBACK,
    publish_packet("t/x", b"", 0, 0, retain=False, expiry_s=None),
    publish_packet("t/ä", b"x" * 300, 1, 513, retain=True, expiry_s=70_000),
    puback_packet(7),
    PINGRESP,
    b"\x40\x03\x00\x09\x87",
    publish_packet("t/x", b"y" * 20_000, 1, 65_535, retain=False, expiry_s=None),
    publish_packet("t/u", b"u" * 200, 0, 0, retain=True, expiry_s=None),
    publish_packet("t/ü", b"v" * 16_000, 1, 515, retain=False, expiry_s=None),
    b"\x40\x04\x00\x0a\x10\x00",
]
MEANT = [
    SUBACK,
    ("t/x", b"", 0, False, 0),
    ("t/ä", b"x" * 300, 1, True, 513),
    (7, 0),
    PINGRESP,
    (9, 0x87),
    ("t/x", b"y" * 20_000, 1, False, 65_535),
    ("t/u", b"u" * 200, 0, True, 0),
    ("t/ü", b"v" * 16_000, 1, False, 515),
    (10, 0x10),
]


@given(st.lists(st.integers(0, sum(map(len, STREAM))), max_size=12))
def test_a_stream_means_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    stream = b"".join(STREAM)
    ends = [0, *sorted(cuts), len(stream)]
    assert taken(*(stream[a:b] for a, b in pairwise(ends))) == MEANT


def test_a_stream_means_the_same_byte_by_byte() -> None:
    stream = b"".join(STREAM[:6])
    assert taken(*(stream[at : at + 1] for at in range(len(stream)))) == MEANT[:6]


def test_properties_of_any_length_are_passed_over() -> None:
    for size in (1, 127, 128, 300):
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        body = b"\x00\x01t" + length + b"p" * size + b"payload"
        head = b"\x30" + bytes([len(body) & 127 | 128, len(body) >> 7])
        assert taken(head + body) == [("t", b"payload", 0, False, 0)]


def test_a_topic_that_is_not_utf_8_has_no_name() -> None:
    assert taken(b"\x32\x08\x00\x02\xff\xfe\x00\x05\x00p") == [(None, b"p", 1, False, 5)]


@pytest.mark.parametrize(
    "packet",
    [
        b"\x30\x00",
        b"\x30\x01\x00",
        b"\x30\x02\x00\x05",
        b"\x30\x03\x00\x01t",
        b"\x30\x04\x00\x01t\x09",
        b"\x30\x05\x00\x01t\x80\x80",
        b"\x32\x05\x00\x01t\x00\x01",
        b"\x34\x07\x00\x01t\x00\x01\x00p",
        b"\x40\x01\x00",
        b"\x40\x03\x00\x01\x55",
        b"\x30\xff\xff\xff\x7f",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\x80\x80\x80\x80\x01",
        # Of a length that most have: the topic ends after the packet, or the message id with it.
        b"\x30\x80\x01\x00\x7f" + bytes(200),
        b"\x32\x80\x01\x00\x7c" + bytes(200),
        b"\x34\x80\x01\x00\x01t" + bytes(200),
    ],
)
def test_what_is_not_mqtt_5_ends_the_connection(packet: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        taken(packet)


def test_a_packet_is_held_up_to_the_limit_and_no_further() -> None:
    largest = publish_packet("t", b"z" * (PACKET_LIMIT - 4), 0, 0, retain=False, expiry_s=None)
    assert taken(largest[:60_000], largest[60_000:]) == [
        ("t", b"z" * (PACKET_LIMIT - 4), 0, False, 0)
    ]
    larger = publish_packet("t", b"z" * PACKET_LIMIT, 0, 0, retain=False, expiry_s=None)
    with pytest.raises(MalformedPacketError, match="beyond"):
        taken(larger[:10])
