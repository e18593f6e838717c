"""The hybrid logical clock: an order whatever the clocks say, and a bar to old messages."""

from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervus.wire import Accepted, Guard, Mint, Packet, Rejected, encode, timestamp, topics
from nervus.wire.contracts import (
    HybridClock,
    ModulatorSignal,
    ModulatorSignalPayload,
)
from nervus.wire.hlc import HybridLogicalClock, order

NOW_MS = 1_790_000_000_000
NODES = ("a", "b", "c")


@pytest.mark.req("S2-77", "S0-55")
@given(
    st.lists(st.integers(-40_000, 40_000), min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from(range(3)), st.sampled_from(range(3)), st.integers(-50, 50))),
)
def test_a_cause_is_before_its_effect_however_wrong_the_clocks_are(
    skews: list[int], talk: list[tuple[int, int, int]]
) -> None:
    clocks = [HybridLogicalClock(name) for name in NODES]
    said: dict[int, list[HybridClock]] = {n: [] for n in range(3)}
    known: dict[int, list[HybridClock]] = {n: [] for n in range(3)}
    now_ms = NOW_MS
    for sender, receiver, step_ms in talk:
        now_ms += step_ms  # clocks go back, too
        reading = clocks[sender].send(now_ms + skews[sender])
        # Later than all it has sent, and than all it has heard of.
        assert all(order(before) < order(reading) for before in said[sender] + known[sender])
        # As near to the wall clocks as the fastest of them.
        assert reading.wall_ms <= NOW_MS + 50 * len(talk) + max(skews)
        said[sender].append(reading)
        clocks[receiver].receive(reading, now_ms + skews[receiver])
        known[receiver].append(reading)
    everything = [order(one) for readings in said.values() for one in readings]
    assert len(set(everything)) == len(everything)


def test_readings_rise_while_the_wall_clock_stands() -> None:
    clock = HybridLogicalClock("a")
    readings = [clock.send(NOW_MS) for _ in range(5)]
    assert [one.logical for one in readings] == [0, 1, 2, 3, 4]
    assert all(order(a) < order(b) for a, b in pairwise(readings))
    assert clock.send(NOW_MS + 1).logical == 0


class Sender:
    """A modulator whose messages carry readings, and live a minute."""

    def __init__(self, *, with_hlc: bool, source: str = "muse") -> None:
        self._mint = Mint(source, "consumer", seed=1, boot=1)
        self._clock = HybridLogicalClock(source) if with_hlc else None
        self._numbers = count()

    def packet(self, now_ms: int = NOW_MS, ahead_ms: int = 0) -> Packet:
        address = topics.modulator_signal("room", "kitchen", "channel", "somatic")
        payload = ModulatorSignalPayload(
            target_kind="channel", target_id="somatic", intent="suppress", strength=1
        )
        reading = self._clock and self._clock.send(now_ms + ahead_ms)
        publish = self._mint.full(
            ModulatorSignal, address, payload, now_ms, hlc=reading,
            expires_at=timestamp(now_ms + 60_000),
        )  # fmt: skip
        return Packet("core", address.topic, encode(publish.message))


def verdict(guard: Guard, packet: Packet, now_ms: int = NOW_MS) -> str:
    result = guard.judge(packet, now_ms)
    assert isinstance(result, Accepted | Rejected)
    return "accepted" if isinstance(result, Accepted) else result.reason_code


@pytest.mark.req("S2-77")
@pytest.mark.parametrize("with_hlc", [True, False])
def test_what_is_played_again_after_its_id_was_forgotten_is_refused(*, with_hlc: bool) -> None:
    guard = Guard([topics.MODULATOR_SIGNAL], dedupe_limit=8)
    sender = Sender(with_hlc=with_hlc)
    packets = [sender.packet(NOW_MS + n) for n in range(40)]
    assert {verdict(guard, one) for one in packets} == {"accepted"}
    again = [verdict(guard, one) for one in packets[:20]]
    # Without readings the guard has nothing but the ids it remembers, and not for ever.
    assert set(again) == ({"duplicate"} if with_hlc else {"accepted"})


@pytest.mark.req("S2-77")
def test_what_comes_late_is_no_repeat() -> None:
    guard = Guard([topics.MODULATOR_SIGNAL], dedupe_limit=8)
    sender, other = Sender(with_hlc=True), Sender(with_hlc=True, source="other")
    late = sender.packet()
    assert [verdict(guard, sender.packet(NOW_MS + n)) for n in range(3)] == ["accepted"] * 3
    assert verdict(guard, late) == "accepted"
    assert verdict(guard, late) == "duplicate"
    # What one source sent bars nothing of another.
    early = other.packet(NOW_MS - 5_000)
    assert [verdict(guard, sender.packet(NOW_MS + n)) for n in range(3, 40)] == ["accepted"] * 37
    assert verdict(guard, early) == "accepted"


@pytest.mark.req("S2-77")
def test_nobody_can_push_the_clocks_of_others_ahead() -> None:
    guard = Guard([topics.MODULATOR_SIGNAL])
    sender = Sender(with_hlc=True)
    assert verdict(guard, sender.packet(ahead_ms=60_001)) == "from_the_future"
    assert verdict(guard, Sender(with_hlc=True).packet(ahead_ms=60_000)) == "accepted"


def test_what_is_remembered_of_sources_is_bounded() -> None:
    guard = Guard([topics.MODULATOR_SIGNAL], dedupe_limit=8)
    for number in range(200):
        sender = Sender(with_hlc=True, source=f"s{number}")
        assert verdict(guard, sender.packet()) == "accepted"
    assert len(guard._forgotten) <= 4
