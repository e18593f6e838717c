"""Shedding: what the relay does when more comes than it may relay."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.plane_inputs import NOW_MS, bundle, bundle_payload
from nervus.thalamus import Relay, ThalamusSettings
from nervus.wire import Mint, Publish, Rejected, RejectLane
from nervus.wire.contracts import RejectEvent, RelayBundle


def relay(**settings: Any) -> Relay:
    table = ThalamusSettings(**{"gatekeeper": False} | settings)
    return Relay(table, Mint("relay", "thalamus", seed=1, boot=1), "home")


def passed(effects: Any) -> bool:
    return any(isinstance(getattr(e, "message", None), RelayBundle) for e in effects)


def send(
    core: Relay, count: int, priority: str = "normal", now_ms: int = NOW_MS, **fields: Any
) -> int:
    """Send drivers; how many were relayed."""
    driver = bundle(bundle_payload(), NOW_MS, priority=priority, ttl_ms=60_000, **fields)
    return sum(passed(core.step(driver, now_ms)) for _ in range(count))


@pytest.mark.req("S2-82", "S2-83", "S4-25", "S4-26")
def test_the_lowest_priority_is_shed_first_and_control_never() -> None:
    core = relay(scope_rate=1, scope_burst=10)
    assert send(core, 20, "background") == 5
    assert send(core, 20, "normal") == 5
    assert send(core, 20, "critical") == 10
    assert send(core, 20, "control") == 20
    assert core.admission.shed == {"background": 15, "normal": 15, "critical": 10}
    assert core.counters.suppressed == 40
    # it pays its debt before anybody else is served
    assert send(core, 1, "normal", NOW_MS + 10_000) == 0
    assert send(core, 1, "normal", NOW_MS + 11_000) == 1


@pytest.mark.req("S4-57")
def test_a_flood_in_one_scope_takes_nothing_from_another() -> None:
    core = relay(scope_rate=1, scope_burst=10)
    assert send(core, 1_000) == 10
    assert send(core, 5, scope=("room", "attic")) == 5


def test_all_scopes_together_have_a_budget_too() -> None:
    core = relay(relay_rate=1, relay_burst=10)
    assert [send(core, 4, scope=("room", f"r{n}")) for n in range(4)] == [4, 4, 2, 0]


@pytest.mark.req("S4-26")
def test_what_is_shed_is_told_once_with_a_count() -> None:
    core = relay(scope_rate=1, scope_burst=1)
    lane = RejectLane(Mint("relay", "thalamus", seed=2, boot=1), "home")
    told: list[Publish] = []
    for _ in range(101):
        for effect in core.step(bundle(), NOW_MS):
            if isinstance(effect, Rejected):
                assert (effect.reason_code, effect.stage) == ("queue_full", "queue")
                told += lane.step(effect, NOW_MS)
    told += lane.tick(NOW_MS + 60_000)
    events = [publish.message for publish in told]
    assert all(isinstance(event, RejectEvent) for event in events)
    assert sum(event.payload.count or 1 for event in events) == 100
    assert len(events) < 10


def test_budgets_are_bounded_and_forgotten_when_whole_again() -> None:
    core = relay(stream_limit=1, scope_rate=10, scope_burst=10)
    assert send(core, 20) == 10
    # without room for a budget of its own, a scope has what all have together
    assert send(core, 20, scope=("room", "attic")) == 20
    core.tick(NOW_MS + 2_000)
    assert send(core, 20, now_ms=NOW_MS + 2_000, scope=("room", "attic")) == 10


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["background", "normal", "critical", "control"]),
            st.sampled_from(["kitchen", "attic"]),
            st.integers(0, 300),
        ),
        max_size=60,
    )
)
@pytest.mark.req("S2-82", "S2-83")
def test_every_driver_is_relayed_or_counted(steps: list[tuple[str, str, int]]) -> None:
    core = relay(scope_rate=5, scope_burst=4, relay_rate=8, relay_burst=6)
    now_ms, relayed = NOW_MS, 0
    for priority, room, wait_ms in steps:
        now_ms += wait_ms
        taken = send(core, 1, priority, now_ms, scope=("room", room))
        assert taken or priority != "control"
        relayed += taken
    assert relayed + sum(core.admission.shed.values()) == len(steps)
