"""The link's state machine, driven by a script instead of a network; time is an argument."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.link_bench import CONNACK, Bench, packet_id_of, publish, suback
from spinal import link as link_module
from spinal.link import DOWN, UP

DAY_MS = 86_400_000
PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"


def test_connect_carries_client_id_will_and_clean_session() -> None:
    bench = Bench(keepalive_s=20)
    bench.link.poll(0)

    (connect,) = bench.script.writes
    assert connect[2:12] == b"\x00\x04MQTT\x04\x2e\x00\x14"  # will retained, QoS 1, clean, 20 s
    assert connect[12:] == b"\x00\x02m1\x00\x05/will\x00\x07offline"


def test_one_write_for_each_packet() -> None:
    bench = Bench()
    bench.up()
    for number in range(3):
        assert bench.link.publish("/t", b"x" * 300, 1, ticket=number)
        bench.link.poll(0)

    assert len(bench.script.writes) == 3
    assert all(len(write) == 3 + 4 + 2 + 300 for write in bench.script.writes)


def test_packet_ids_wrap_and_pass_over_those_in_flight() -> None:
    bench = Bench(window=4)
    bench.up()
    bench.link._packet_id = 65533
    bench.link._in_flight[1] = ("early", 1 << 20)
    for _ in range(3):
        assert bench.link.publish("/t", b"", 1)
        bench.link.poll(0)

    assert [packet_id_of(write) for write in bench.script.writes] == [65534, 65535, 2]


def test_window_bounds_what_is_in_flight_and_acks_open_it() -> None:
    bench = Bench(window=2)
    bench.up()
    assert bench.link.publish("/t", b"1", 1, ticket="first")
    assert bench.link.publish("/t", b"2", 1, ticket="second")
    assert not bench.link.publish("/t", b"3", 1)
    assert bench.link.publish("/t", b"4", 0)
    bench.link.poll(0)

    first = packet_id_of(bench.script.writes[0])
    bench.script.incoming += b"\x40\x02" + struct.pack("!H", first)
    bench.link.poll(1)

    assert bench.owner.acked == ["first"]
    assert bench.link.can_take(1)


def test_missing_puback_drops_the_link_and_gives_the_messages_back() -> None:
    bench = Bench(ack_timeout_ms=10_000)
    bench.up()
    bench.link.publish("/t", b"", 1, ticket="kept")
    bench.link.poll(9_999)
    assert bench.link.state == UP
    bench.script.incoming += PINGRESP
    bench.link.poll(10_000)

    assert bench.owner.downs == [("puback_timeout", ["kept"])]
    assert bench.script.closed


def test_puback_that_may_lie_behind_what_is_unread_is_not_missing() -> None:
    bench = Bench(ack_timeout_ms=10_000)
    bench.up()
    bench.link.publish("/t", b"", 1, ticket="kept")
    bench.script.incoming += publish(b"/a/1", b"") * 3
    for now in (9_999, 10_000, 20_000):
        bench.link.poll(now)
    assert bench.owner.downs == []
    bench.link.poll(20_001)

    assert len(bench.owner.messages) == 3
    assert bench.owner.downs == [("puback_timeout", ["kept"])]


def test_claimed_200_mb_are_refused_before_memory_is_set_aside() -> None:
    bench = Bench(max_packet=4096)
    bench.up()
    tracemalloc.start()
    bench.script.incoming += b"\x30\x80\x84\xaf\x5f" + b"x" * 100
    bench.link.poll(1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert bench.owner.downs == [("oversize", [])]
    assert peak < 100_000
    assert bench.link.drops == {"oversize": 1}


def test_packet_of_exactly_the_limit_is_taken() -> None:
    bench = Bench(max_packet=4096)
    bench.up()
    bench.script.incoming += publish(b"/t", b"x" * (4096 - 4))
    for _ in range(3):
        bench.link.poll(1)

    assert [len(payload) for _, payload, _ in bench.owner.messages] == [4092]


@pytest.mark.parametrize("quiet_from", [0, 700, 9_999])
def test_dead_link_is_noticed_within_one_and_a_half_keepalives(quiet_from: int) -> None:
    bench = Bench(keepalive_s=20)
    bench.up()
    bench.script.incoming += publish(b"/t", b"")
    bench.link.poll(quiet_from)
    now = quiet_from
    while bench.link.state == UP:
        now += 50
        bench.link.poll(now)
        assert now - quiet_from <= 30_000

    assert bench.owner.downs == [("ping_timeout", [])]


def test_answered_pings_keep_the_link() -> None:
    bench = Bench(keepalive_s=20)
    bench.up()
    for now in range(0, 120_000, 100):
        bench.link.poll(now)
        if bench.script.writes:
            assert bench.script.writes == [PINGREQ]
            bench.script.writes.clear()
            bench.script.incoming += PINGRESP

    assert bench.link.state == UP


def test_board_that_only_listens_still_speaks_within_the_keepalive() -> None:
    bench = Bench(keepalive_s=20)
    bench.up()
    for now in range(0, 20_000, 1_000):
        bench.script.incoming += publish(b"/t", b"")
        bench.link.poll(now)

    assert PINGREQ in bench.script.writes


def test_retained_flag_reaches_the_handler() -> None:
    bench = Bench()
    bench.up()
    bench.script.incoming += publish(b"/a/1", b"old", flags=1) + publish(b"/a/1", b"new")
    bench.link.poll(1)

    # One in each turn: what a board does between two of them is its reflexes.
    assert bench.owner.messages == [(b"/a/1", b"old", True)]
    assert bench.link.busy
    bench.link.poll(2)
    assert bench.owner.messages[1:] == [(b"/a/1", b"new", False)]


def test_puback_follows_the_handler() -> None:
    bench = Bench()
    bench.up()
    unsent: list[int] = []
    bench.owner.on_message = lambda: unsent.append(len(bench.link._wire.unsent))
    bench.script.incoming += publish(b"/a/1", b"do it", packet_id=7)
    bench.link.poll(1)

    assert unsent == [0]
    assert bench.script.writes == [b"\x40\x02\x00\x07"]


def test_handler_may_publish() -> None:
    bench = Bench()
    bench.up()
    bench.owner.on_message = lambda: bench.link.publish("/r", b"done", 1, ticket="report")
    bench.script.incoming += publish(b"/a/1", b"do it", packet_id=7) + publish(b"/a/2", b"")
    bench.link.poll(1)
    bench.link.poll(1)

    assert len(bench.owner.messages) == 2
    assert b"".join(bench.script.writes).count(b"\x00\x02/r") == 2
    assert b"\x40\x02\x00\x07" in b"".join(bench.script.writes)


def test_refused_subscription_drops_the_link() -> None:
    bench = Bench()
    bench.owner.filters = [("/a/+", 1), ("/b/+", 1)]
    bench.link.poll(0)
    bench.script.incoming += CONNACK
    bench.link.poll(0)
    bench.script.incoming += suback(bench.script.writes[-1], b"\x01\x80")
    bench.link.poll(0)

    assert bench.owner.downs == [("subscribe_refused", [])]
    assert bench.owner.ups == 0


def test_filters_longer_than_umqtt_can_encode_go_out_whole() -> None:
    bench = Bench()
    bench.owner.filters = [("/" + "f" * 130, 1), ("/g", 0)]
    bench.link.poll(0)
    bench.script.incoming += CONNACK
    bench.link.poll(0)

    subscribe = bench.script.writes[-1]
    assert subscribe[:3] == b"\x82\x8d\x01"
    assert subscribe[5:] == b"\x00\x83/" + b"f" * 130 + b"\x01\x00\x02/g\x00"


def test_connack_refusal_says_its_code() -> None:
    bench = Bench()
    bench.link.poll(0)
    bench.script.incoming += b"\x20\x02\x00\x05"
    bench.link.poll(0)

    assert bench.owner.downs == [("refused", [])]
    assert bench.link.last_error == ("refused", "CONNACK return code 5")


@pytest.mark.parametrize("stage", ["dialling", "connecting", "subscribing"])
def test_broker_that_never_answers_is_left(stage: str) -> None:
    bench = Bench(connect_timeout_ms=10_000, ack_timeout_ms=10_000)
    bench.reachable = stage != "dialling"
    bench.link.poll(0)
    if stage == "subscribing":
        bench.script.incoming += CONNACK
        bench.link.poll(0)
    assert bench.link.state == stage
    bench.link.poll(9_999)
    assert bench.link.state == stage
    bench.link.poll(10_000)

    assert bench.owner.downs == [("connect_timeout", [])]


def test_broker_that_keeps_silent_in_the_handshake_is_waited_for() -> None:
    bench = Bench(connect_timeout_ms=5000)
    bench.reachable = False
    bench.link.poll(0)
    assert bench.link.wants_write
    bench.script.connected = True
    bench.script.takes = False  # as TLS does until the handshake is over
    bench.link.poll(0)
    # The socket takes bytes, so asking for that would wake the loop at once and all the time.
    assert not bench.link.wants_write
    assert not bench.link.busy
    assert bench.link.wait_ms(0) == 5000


def test_handshake_that_only_waits_for_its_turn_goes_on_at_once() -> None:
    bench = Bench()
    bench.reachable = False
    bench.link.poll(0)
    bench.script.connected = bench.script.held = True
    bench.script.takes = False
    bench.link.poll(0)
    assert bench.link.busy
    assert bench.link.wait_ms(0) == 0
    bench.script.held = False
    bench.link.poll(1)
    assert not bench.link.busy


def test_bytes_that_the_network_does_not_take_are_waited_for() -> None:
    bench = Bench()
    bench.up()
    bench.script.takes = False
    bench.link.publish("/t", b"data", 0)
    bench.link.poll(1)
    assert bench.link.wants_write


def test_backoff_doubles_its_ceiling_with_full_jitter_up_to_the_cap() -> None:
    bench = Bench(backoff_ms=500, backoff_cap_ms=15_000)
    now = 0
    for _ in range(8):
        bench.link.poll(now)
        bench.script.ended = True
        bench.link.poll(now)
        now += bench.link.wait_ms(now)

    assert bench.dice == [501, 1001, 2001, 4001, 8001, 15001, 15001, 15001]


def test_steady_connection_starts_the_backoff_anew() -> None:
    bench = Bench(backoff_ms=500, steady_ms=5_000)
    bench.link.poll(0)
    bench.script.ended = True
    bench.link.poll(0)
    bench.up(500)
    bench.link.poll(5_499)
    bench.link.poll(5_500)
    bench.script.ended = True
    bench.link.poll(5_501)

    assert bench.dice == [501, 501]


def test_nothing_is_dialled_or_resolved_without_a_network() -> None:
    bench = Bench()
    bench.network = False
    for now in range(0, 60_000, 1_000):
        bench.link.poll(now)
    assert bench.dials == []
    bench.network = True
    bench.link.poll(60_000)

    assert len(bench.dials) == 1


def test_network_that_comes_and_goes_shortens_no_backoff() -> None:
    bench = Bench(backoff_ms=500, backoff_cap_ms=15_000, steady_ms=5_000)
    for now in range(0, 60_000, 200):
        bench.network = True
        bench.link.poll(now)
        if bench.dials and not bench.script.closed:
            bench.up(now)
        bench.network = False
        bench.link.poll(now + 100)

    assert bench.dice == [501, 1001, 2001, 4001, 8001, 15001, 15001, 15001]


def test_backoff_over_in_a_long_time_without_a_network_is_over() -> None:
    bench = Bench()
    bench.up()
    bench.network = False
    for days in (0, 3, 6):
        bench.link.poll(days * DAY_MS)
    bench.network = True
    bench.link.poll(9 * DAY_MS)

    assert len(bench.dials) == 2


def test_network_that_goes_takes_the_link_down_at_once() -> None:
    bench = Bench()
    bench.up()
    bench.network = False
    bench.link.poll(1)

    assert bench.owner.downs == [("network_down", [])]


def test_bytes_that_tls_did_not_take_are_offered_again_with_the_same_length() -> None:
    bench = Bench()
    bench.up()
    bench.script.takes = False
    bench.script.offers.clear()
    bench.link.publish("/t", b"1", 0)
    bench.link.poll(1)
    bench.link.publish("/t", b"22", 0)
    bench.link.poll(2)
    bench.script.takes = True
    bench.link.poll(3)
    bench.link.poll(4)

    assert bench.script.offers == [7, 7, 7, 8]
    assert b"".join(bench.script.writes) == publish(b"/t", b"1") + publish(b"/t", b"22")


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x30\x02\x00\x05", "malformed"),  # topic longer than the packet
        (b"\x32\x04\x00\x02/t", "malformed"),  # no room for its packet id
        (b"\x30\x01\x00", "malformed"),
        (b"\x30\xff\xff\xff\xff", "malformed"),
        (b"\x34\x06\x00\x02/t\x00\x01", "protocol"),  # QoS 2
        (b"\x36\x06\x00\x02/t\x00\x01", "protocol"),  # no QoS at all
        (b"\x40\x02\x00\x63", "protocol"),  # acknowledges nothing of ours
        (b"\x40\x03\x00\x01\x00", "protocol"),
        (b"\x20\x02\x00\x00", "protocol"),  # a second CONNACK
        (b"\x90\x03\x00\x09\x01", "protocol"),
        (b"\xe0\x00", "protocol"),
        (b"\x00\x00", "protocol"),
    ],
)
def test_broken_packet_closes_the_link_with_a_reason(packet: bytes, reason: str) -> None:
    bench = Bench()
    bench.up()
    bench.script.incoming += packet
    bench.link.poll(1)

    assert bench.owner.downs == [(reason, [])]
    assert bench.owner.messages == []


@given(st.binary(max_size=600), st.integers(1, 40))
def test_no_bytes_whatsoever_break_the_state_machine(data: bytes, piece: int) -> None:
    bench = Bench(max_packet=256)
    bench.up()
    for at in range(0, len(data), piece):
        if bench.link.state == DOWN:
            break
        bench.script.incoming += data[at : at + piece]
        bench.link.poll(1)

    assert bench.link.state in (UP, DOWN)


@given(st.lists(st.binary(max_size=200), max_size=8), st.integers(1, 50))
def test_messages_arrive_whole_however_the_bytes_are_cut(parts: list[bytes], piece: int) -> None:
    bench = Bench()
    bench.up()
    data = b"".join(publish(b"/a/%d" % index, part) for index, part in enumerate(parts))
    for at in range(0, len(data), piece):
        bench.script.incoming += data[at : at + piece]
        bench.link.poll(1)
    while bench.link.busy:
        bench.link.poll(1)

    assert [payload for _, payload, _ in bench.owner.messages] == parts


def test_one_poll_takes_one_message_and_says_that_more_may_be_there() -> None:
    bench = Bench()
    bench.up()
    bench.script.incoming += publish(b"/a/1", b"x" * 100) * 1_000
    for turn in range(1, 4):
        bench.link.poll(1)
        assert (len(bench.owner.messages), bench.link.wait_ms(1)) == (turn, 0)


def test_one_poll_reads_a_bounded_number_of_bytes() -> None:
    bench = Bench()
    bench.up()
    bench.script.incoming += b"\xd0\x00" * 100_000
    bench.link.poll(1)

    assert 200_000 - len(bench.script.incoming) == link_module._CHUNK * link_module._CHUNKS_PER_POLL
    assert bench.link.wait_ms(1) == 0
