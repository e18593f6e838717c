"""The outbox and the backoff: the pure parts of the bus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervus.bus import Outgoing
from nervus.bus.backoff import Backoff
from nervus.bus.outbox import Outbox

PRIORITIES = ["background", "normal", "critical", "control"]


def message(topic: str, priority: str = "normal") -> Outgoing:
    return Outgoing(topic, b"", priority=priority)


def drained(outbox: Outbox) -> list[str]:
    return [outbox.pop().topic for _ in range(len(outbox))]


def test_messages_leave_in_the_order_they_came() -> None:
    outbox = Outbox(10)
    for topic in "abc":
        assert outbox.push(message(topic)) is None
    assert drained(outbox) == ["a", "b", "c"]


def test_what_was_sent_in_vain_goes_first_again() -> None:
    outbox = Outbox(10)
    outbox.push(message("c"))
    for topic in ("b", "a"):
        assert outbox.put_back(message(topic)) is None
    assert drained(outbox) == ["a", "b", "c"]


@pytest.mark.req("S2-82", "S2-83")
def test_a_full_outbox_sheds_the_oldest_of_the_lowest_priority() -> None:
    outbox = Outbox(3)
    outbox.push(message("normal 1"))
    outbox.push(message("background", "background"))
    outbox.push(message("control", "control"))
    shed = [outbox.push(message(text)) for text in ("normal 2", "normal 3")]
    assert [one.topic for one in shed if one] == ["background", "normal 1"]
    assert outbox.push(message("background 2", "background")) is not None
    assert drained(outbox) == ["control", "normal 2", "normal 3"]


@pytest.mark.req("S2-83")
@given(
    st.lists(st.tuples(st.sampled_from(PRIORITIES), st.booleans(), st.booleans()), max_size=60),
    st.integers(1, 5),
)
def test_nothing_is_shed_while_something_lower_waits(
    steps: list[tuple[str, bool, bool]], limit: int
) -> None:
    outbox = Outbox(limit)
    kept: list[Outgoing] = []
    for n, (priority, front, pop) in enumerate(steps):
        one = message(str(n), priority)
        kept = [one, *kept] if front else [*kept, one]
        shed = outbox.put_back(one) if front else outbox.push(one)
        if shed is not None:
            lowest = min(PRIORITIES.index(k.priority) for k in kept)
            assert PRIORITIES.index(shed.priority) == lowest
            kept.remove(shed)
        assert len(outbox) == len(kept) <= limit
        if pop:
            assert outbox.pop() is kept.pop(0)
    assert drained(outbox) == [k.topic for k in kept]


def test_the_delays_double_up_to_the_cap_and_start_anew() -> None:
    backoff = Backoff(100, 1_000, lambda: 0.5)
    assert [backoff.next_ms() for _ in range(6)] == [50, 100, 200, 400, 500, 500]
    backoff.reset()
    assert backoff.next_ms() == 50


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 200))
def test_the_jitter_covers_the_whole_delay_and_never_exceeds_it(draw: float, attempts: int) -> None:
    backoff = Backoff(100, 5_000, lambda: draw)
    for _ in range(attempts):
        backoff.next_ms()
    delay = backoff.next_ms()
    assert 0 <= delay <= 5_000
    assert delay == int(draw * min(5_000, 100 * 2 ** min(attempts, 32)))
