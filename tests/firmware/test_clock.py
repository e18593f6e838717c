"""The board's time: since boot, then the hub's, over any number of tick wraps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinal.clock import EARLIEST_UNIX_MS, LATEST_UNIX_MS, Clock
from spinal.ticks import HALF, MASK, elapsed, later

NOW = 1_790_000_000_000
ticks = st.integers(0, MASK)


def pong(ping: dict[str, int], unix_ms: object = NOW) -> dict[str, object]:
    return {**ping, "unix_ms": unix_ms, "scope_level": "room", "scope": "hall"}


@given(ticks, st.integers(-HALF, HALF - 1))
def test_elapsed_is_the_difference_over_any_wrap(start: int, interval: int) -> None:
    assert elapsed(later(start, interval), start) == interval


@pytest.mark.req("S4-29")
@given(ticks, st.lists(st.integers(0, HALF - 1), max_size=40))
def test_time_since_boot_counts_past_many_wraps(start: int, steps: list[int]) -> None:
    clock = Clock()
    assert clock.now(start) == (0, "none")
    now, total = start, 0
    for step in steps:
        now = later(now, step)
        total += step
        assert clock.now(now) == (total, "none")
        assert clock.uptime_ms(now) == total


@given(ticks, st.integers(0, 1000), st.lists(st.integers(0, HALF - 1), max_size=20))
def test_the_hub_time_is_taken_at_half_the_round_trip(
    start: int, trip: int, steps: list[int]
) -> None:
    clock = Clock()
    back = later(start, trip)
    assert clock.pong(pong(clock.ping(start)), back) is None
    assert clock.synced
    assert clock.now(back) == (NOW + trip // 2, "hub")
    total = NOW + trip // 2
    for step in steps:
        back = later(back, step)
        total += step
        assert clock.now(back) == (total, "hub")
        assert clock.unix_ms(back) == total


@given(ticks, st.integers(1, 1_000_000))
def test_an_earlier_tick_has_an_earlier_time(start: int, ago: int) -> None:
    clock = Clock()
    clock.now(later(start, -2_000_000))
    clock.pong(pong(clock.ping(start)), start)
    assert clock.now(later(start, -ago)) == (NOW - ago, "hub")
    assert clock.now(start) == (NOW, "hub")


def test_a_tick_from_before_boot_is_time_zero() -> None:
    clock = Clock()
    clock.now(100)
    assert clock.now(40) == (0, "none")


def test_the_two_halves_of_the_time_make_the_whole() -> None:
    clock = Clock()
    clock.pong(pong(clock.ping(5)), 5)
    clock.read(12)
    assert (clock.high, clock.low) == divmod(NOW + 7, 10**9)


def test_a_pong_nobody_asked_for_is_refused() -> None:
    clock = Clock()
    assert clock.pong(pong({"nonce": 0, "t0": 0}), 5) == "pong_unexpected"
    assert not clock.awaits({"nonce": 0, "t0": 0})
    first = clock.ping(10)
    second = clock.ping(20)
    assert (clock.awaits(pong(first)), clock.awaits(pong(second))) == (False, True)
    assert clock.pong(pong(first), 30) == "pong_unexpected"
    assert clock.pong(pong({**second, "t0": 0}), 30) == "pong_unexpected"
    assert clock.pong(pong(second), 30) is None
    assert clock.pong(pong(second), 31) == "pong_unexpected"


@pytest.mark.parametrize("trip", [1001, 5000, -1])
def test_a_late_pong_gives_no_time(trip: int) -> None:
    clock = Clock()
    ping = clock.ping(7000)
    assert clock.pong(pong(ping), 7000 + trip) == "pong_late"
    assert not clock.synced
    assert clock.now(7000) == (0, "none")


@pytest.mark.parametrize(
    "unix_ms", [0, EARLIEST_UNIX_MS - 1, LATEST_UNIX_MS, None, True, 1.79e12, "1790000000000"]
)
def test_an_implausible_time_is_refused(unix_ms: object) -> None:
    clock = Clock()
    assert clock.pong(pong(clock.ping(0), unix_ms), 10) == "time_implausible"
    assert clock.unix_ms(10) is None


def test_a_new_session_keeps_the_time_but_proves_it_anew() -> None:
    clock = Clock()
    ping = clock.ping(0)
    clock.new_session()
    assert clock.pong(pong(ping), 10) == "pong_unexpected"
    clock.pong(pong(clock.ping(20)), 20)
    clock.new_session()
    assert not clock.synced
    assert clock.now(30) == (NOW + 10, "hub")


def test_a_hub_that_steps_back_changes_no_interval() -> None:
    clock = Clock()
    clock.pong(pong(clock.ping(0)), 0)
    clock.pong(pong(clock.ping(100), NOW - 60_000), 100)
    assert clock.now(100) == (NOW - 60_000, "hub")
    assert clock.uptime_ms(100) == 100
