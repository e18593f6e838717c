"""What comes and goes by the thousand, without paho: PUBLISH and PUBACK of MQTT 5 as bytes.

paho reads a packet with three calls of `recv` and makes a dozen objects of it. `Receiver` takes
what a socket had to give, however it is cut, and hands on what is in it; every other packet it
leaves whole, for paho. Pure: bytes in, calls out.
"""

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from nervus.bus.errors import MalformedPacketError

OnPublish = Callable[[str | None, bytes, int, bool, int], None]
OnConfirmed = Callable[[int, ReasonCode], None]

PACKET_LIMIT: Final = 1 << 20
"""Bytes of the largest packet taken; no topic carries a hundredth of it."""

_KIND: Final = 0xF0
_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40
_QOS: Final = 0x06
_QOS_2: Final = 0x04
_RETAIN: Final = 0x01
_MORE: Final = 0x80
_SEVEN_BITS: Final = 0x7F
_PLAIN_PUBACK: Final = 2
_EXPIRES: Final = b"\x05\x02"
_HEADER: Final = 2
_TOPIC_LENGTH: Final = 2
_LENGTH_SHIFTS: Final = range(0, 28, 7)
_USUAL: Final = Struct("!BBBH").unpack_from
"""First byte, two of the length, length of the topic."""
_TOPIC_AT: Final = 3
_USUAL_HEADER: Final = 5
_USUAL_BITS: Final = 0xF4


class Receiver:
    """Cuts a stream into packets.

    Args:
        on_publish: Takes topic (None when not UTF-8), payload, QoS, retain flag and message id.
        on_confirmed: Takes message id and reason code of each PUBACK.
        on_other: Takes any other packet whole.
    """

    def __init__(
        self,
        on_publish: OnPublish,
        on_confirmed: OnConfirmed,
        on_other: Callable[[bytes], None],
    ) -> None:
        self._on_publish = on_publish
        self._on_confirmed = on_confirmed
        self._on_other = on_other
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what was received.

        Raises:
            MalformedPacketError: A packet is not MQTT 5, or larger than the limit.
        """
        if self._rest:
            data = self._rest + data
        at, end = self._take_usual(data), len(data)
        while end - at >= _HEADER:
            head, size, body = data[at], data[at + 1], at + _HEADER
            if size & _MORE:
                size, body = _length(data, at + 1)
                if not body:
                    break
            stop = body + size
            if stop > end:
                break
            kind = head & _KIND
            if kind == _PUBLISH:
                self._publish(head, data, body, stop)
            elif kind == _PUBACK:
                self._confirm(data, body, stop)
            else:
                self._on_other(data[at:stop])
            at = self._take_usual(data, stop)
        self._rest = data[at:]

    def _take_usual(self, data: bytes, at: int = 0) -> int:
        """Take what nearly all packets are: a PUBLISH of 128 to 16,383 bytes without properties.

        Returns:
            Where the first other one begins, or one that is not all there.
        """
        end, on_publish = len(data), self._on_publish
        while end - at >= _USUAL_HEADER:
            head, low, high, length = _USUAL(data, at)
            stop = at + _TOPIC_AT + (low & _SEVEN_BITS | high << 7)
            if head & _USUAL_BITS != _PUBLISH or low < _MORE or high >= _MORE or stop > end:
                break
            qos, topic_stop = head >> 1 & 1, at + _USUAL_HEADER + length
            rest = topic_stop + 2 * qos
            if rest >= stop or data[rest]:
                break
            topic = _text(data[at + _USUAL_HEADER : topic_stop])
            mid = int.from_bytes(data[topic_stop:rest], "big") if qos else 0
            on_publish(topic, data[rest + 1 : stop], qos, head & _RETAIN == 1, mid)
            at = stop
        return at

    def _publish(self, head: int, data: bytes, at: int, stop: int) -> None:
        if stop - at < _TOPIC_LENGTH:
            raise MalformedPacketError("PUBLISH ends before its topic")
        topic_at = at + _TOPIC_LENGTH
        at = topic_at + (data[at] << 8 | data[at + 1])
        topic = data[topic_at:at]
        qos = mid = 0
        if head & _QOS:
            qos = (head & _QOS) >> 1
            if head & _QOS_2:
                raise MalformedPacketError(f"PUBLISH at QoS {qos}, which nobody subscribed with")
            mid = int.from_bytes(data[at : at + 2], "big")
            at += 2
        if at >= stop:
            raise MalformedPacketError("PUBLISH ends before its properties")
        # A hub part needs none of the properties: expiry is the broker's, the rest in the message.
        length, at = (data[at], at + 1) if data[at] < _MORE else _length(data, at)
        if not at or at + length > stop:
            raise MalformedPacketError("PUBLISH ends within its properties")
        self._on_publish(_text(topic), data[at + length : stop], qos, bool(head & _RETAIN), mid)

    def _confirm(self, data: bytes, at: int, stop: int) -> None:
        if stop - at < _PLAIN_PUBACK:
            raise MalformedPacketError("PUBACK without a message id")
        code = data[at + 2] if stop - at > _PLAIN_PUBACK else 0
        self._on_confirmed(int.from_bytes(data[at : at + 2], "big"), _reason(code))


def publish_packet(
    topic: str, payload: bytes, qos: int, mid: int, *, retain: bool, expiry_s: int | None
) -> bytes:
    """A PUBLISH as bytes; `mid` counts at QoS 1 only, `expiry_s` is MQTT's message expiry."""
    properties = b"\0" if expiry_s is None else _EXPIRES + expiry_s.to_bytes(4, "big")
    number = mid.to_bytes(2, "big") if qos else b""
    body = b"".join((_topic(topic), number, properties, payload))
    return b"".join((bytes((_PUBLISH | qos << 1 | retain,)), _size(len(body)), body))


def puback_packet(mid: int) -> bytes:
    """A PUBACK that says success, as bytes."""
    return b"\x40\x02" + mid.to_bytes(2, "big")


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends; 0 and 0 when it is not all there."""
    value = 0
    for shift in _LENGTH_SHIFTS:
        if at >= len(data):
            return 0, 0
        value |= (data[at] & _SEVEN_BITS) << shift
        if value > PACKET_LIMIT:
            break
        if data[at] < _MORE:
            return value, at + 1
        at += 1
    raise MalformedPacketError(f"a length beyond {PACKET_LIMIT} bytes")


def _size(size: int) -> bytes:
    found = bytearray()
    while size > _SEVEN_BITS:
        found.append(size & _SEVEN_BITS | _MORE)
        size >>= 7
    found.append(size)
    return bytes(found)


# A part sees the same few topics again and again.
@lru_cache(maxsize=4096)
def _text(topic: bytes) -> str | None:
    try:
        return topic.decode()
    except UnicodeDecodeError:
        return None


@lru_cache(maxsize=4096)
def _topic(topic: str) -> bytes:
    data = topic.encode()
    return len(data).to_bytes(2, "big") + data


@lru_cache(maxsize=256)
def _reason(code: int) -> ReasonCode:
    try:
        return ReasonCode(PacketTypes.PUBACK, identifier=code)
    except KeyError as error:
        raise MalformedPacketError(f"PUBACK with the unknown reason 0x{code:02x}") from error
