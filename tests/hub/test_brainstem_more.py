"""Brainstem: a sample that goes where the last of its signal went, as nearly all of a flood do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.brainstem_inputs import brainstem, parameter
from hub.plane_inputs import NOW_MS, afferent, status
from nervus.brainstem import Brainstem
from nervus.wire import Accepted, Publish, Rejected

TIGHT = {
    "source_rate": 20, "source_burst": 6, "urgent_rate": 2, "urgent_burst": 2, "scope_rate": 30,
    "scope_burst": 8, "device_limit": 2, "signal_limit": 4, "window_signal_limit": 2,
    "historical_limit": 2, "channels": {"auditory": {"window_ms": 600, "hop_ms": 200}},
}  # fmt: skip
SAMPLES = st.fixed_dictionaries(
    {"value": st.sampled_from([20, 21.5, 1e9, True, "on", {"x": 1}, {"x": 1, "y": 2.5}])},
    optional={
        "device": st.sampled_from(["b1", "b1", "b2", "b3"]),
        "sensor": st.sampled_from(["temperature", "temperature", "sound_level", "nothing_known"]),
        "scope": st.sampled_from(["kitchen", "kitchen", "attic"]),
        "unit": st.sampled_from(["Cel", "K"]),
        "quality": st.sampled_from(["good", "uncertain", "bad"]),
        "priority": st.sampled_from(["normal", "background", "critical"]),
        "historical": st.booleans(),
        "age_ms": st.sampled_from([-3_000, 90, 240, 900, 2_500]),
        "clk": st.sampled_from(["hub", "none"]),
        "boot": st.sampled_from([1, 2]),
    },
)
PLAIN = {"value": 20}
WAITS = st.sampled_from([0, 0, 0, 1, 40, 300, 1_000, 70_000])
Step = tuple[int, Any, int]
STEPS = st.tuples(
    WAITS,
    st.one_of(st.just(PLAIN), SAMPLES, st.sampled_from(["offline", 200, 2_000])),
    st.integers(1, 4),
)


def anew(event: Accepted) -> Accepted:
    """The same with an address that nothing came by yet: where it goes is looked for wholly."""
    return event._replace(address=replace(event.address))


def events(steps: Sequence[Step]) -> list[tuple[Accepted, int]]:
    """What is sensed, lost and set, and when."""
    made, now_ms = [], NOW_MS
    for number, (wait_ms, step, times) in enumerate(steps, 1):
        now_ms += wait_ms
        if step == "offline":
            made.append((status("offline", now_ms), now_ms))
        elif isinstance(step, int):
            made.append((parameter(step, number, now_ms, lives_ms=2_000), now_ms))
        else:
            fields = {**step, "t_ms": now_ms - step.get("age_ms", 0)}
            fields.pop("age_ms", None)
            value = fields.pop("value")
            made += [
                (afferent(value, now_ms, seq=10 * number + n, **fields), now_ms)
                for n in range(times)
            ]
    return made


def said(core: Brainstem, event: Accepted, now_ms: int) -> list[Any]:
    """What comes of it, to compare."""
    return [
        (each.reason_code, each.reason, each.packet.payload) if isinstance(each, Rejected)
        else (each.on, each.address.topic, each.data) if isinstance(each, Publish)
        else each
        for each in core.step(event, now_ms)
    ]  # fmt: skip


ELSEWHERE = {"value": 20, "scope": "attic"}
OVER = (70_000, "offline", 1)
"""Whatever was open is told by then."""

EACH_ODD_ONE = [
    [(0, PLAIN, 1), (0, {"value": 21, "historical": True}, 1), (0, PLAIN, 1), OVER],
    [(0, {"value": 21, "historical": True}, 1), (0, PLAIN, 2), OVER],
    [(0, PLAIN, 1), (0, {"value": 21, "unit": "K"}, 2), (0, PLAIN, 1), OVER],
    [(0, PLAIN, 1), (0, {"value": {"x": 1}}, 2), OVER],
    [(0, {"value": {"x": 1}}, 1), (0, PLAIN, 2), OVER],
    [(0, PLAIN, 1), (0, {"value": 20, "quality": "bad"}, 2), OVER],
    [(0, PLAIN, 1), (0, {"value": 20, "priority": "critical"}, 4), (2_000, 200, 1), OVER],
    [(0, PLAIN, 1), (950, PLAIN, 1), (100, PLAIN, 4), (2_000, 200, 1), OVER],
    # Its window is told already, and it comes within the bound.
    [(0, PLAIN, 1), (1_300, {"value": 20, "age_ms": 900}, 1), OVER],
    # Who spoke last is not forgotten: the budget of b1 stays spent.
    [(0, PLAIN, 3), (0, ELSEWHERE | {"device": "b2"}, 1), (0, PLAIN, 4),
     (0, ELSEWHERE | {"device": "b3"}, 1), (0, PLAIN, 2), OVER],
]  # fmt: skip


@pytest.mark.parametrize("steps", EACH_ODD_ONE)
def test_one_that_only_looks_as_if_it_did_is_looked_for(steps: list[Step]) -> None:
    compare(steps)


@settings(deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=25))
def test_it_has_the_effects_of_one_whose_place_is_looked_for(steps: list[Step]) -> None:
    compare(steps)


def compare(steps: Sequence[Step]) -> None:
    """Hold the effects against those of a core that looks for the place of each."""
    usual, wholly = brainstem(**TIGHT), brainstem(**TIGHT)
    for event, now_ms in events(steps):
        assert said(usual, event, now_ms) == said(wholly, anew(event), now_ms)
    assert usual.intake == wholly.intake
    assert usual.counters == wholly.counters
    assert (usual._sources.signals, usual._sources.evicted) == (
        wholly._sources.signals, wholly._sources.evicted,
    )  # fmt: skip
