"""When a measurement becomes a message: filter, debounce, deadband, intervals, urgency."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinal.afferent import Policy
from spinal.ticks import MASK, elapsed, later

configs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "deadband": st.floats(0, 5),
        "min_interval_ms": st.integers(0, 5000),
        "max_interval_ms": st.integers(1, 20_000),
        "median": st.sampled_from([1, 3, 5]),
        "debounce_ms": st.integers(0, 1000),
    },
)
samples = st.lists(st.tuples(st.integers(1, 4000), st.floats(-50, 50)), min_size=1, max_size=60)


def run(
    config: dict[str, Any], values: list[Any], step_ms: int = 100, start: int = MASK - 150
) -> list[tuple[int, str, Any]]:
    """What is published: (number of the sample, kind, value)."""
    policy = Policy(config)
    published = []
    for number, value in enumerate(values):
        kind = policy.sample(value, later(start, number * step_ms))
        if kind:
            published.append((number, kind, policy.value))
    return published


def test_the_first_value_and_every_change_are_published() -> None:
    assert run({}, [5, 5, 6, 6, 5]) == [(0, "normal", 5), (2, "normal", 6), (4, "normal", 5)]


def test_a_change_below_the_deadband_is_not_worth_a_message() -> None:
    assert [n for n, _, _ in run({"deadband": 2}, [10, 11, 11.9, 12, 13, 10.5, 10])] == [0, 3, 6]


def test_a_change_waits_for_the_minimum_interval_and_is_not_lost() -> None:
    told = run({"min_interval_ms": 300}, [1, 2, 3, 4, 4, 4, 4])
    assert [(n, value) for n, _, value in told] == [(0, 1), (3, 4)]


def test_an_unchanged_value_is_repeated_after_the_maximum_interval() -> None:
    assert [n for n, _, _ in run({"max_interval_ms": 300}, [7] * 10)] == [0, 3, 6, 9]


def test_a_contact_that_bounces_is_told_once_it_rests() -> None:
    told = run({"debounce_ms": 250}, [False, True, False, True, True, True, True, False])
    assert told == [(0, "normal", False), (6, "normal", True)]


def test_the_median_hides_a_spike() -> None:
    assert [v for _, _, v in run({"median": 3}, [20, 20, 500, 20, 20])] == [20]


def test_the_mean_is_taken_over_the_last_n() -> None:
    assert [v for _, _, v in run({"mean": 2}, [10, 20, 40, 40])] == [10, 15, 30, 40]


@pytest.mark.parametrize(
    ("urgent", "values", "kinds"),
    [
        ({"ge": 30}, [29, 30, 29], ["normal", "critical", None]),
        ({"le": 5}, [6, 5, 6], ["normal", "critical", None]),
        ({"ge": 30, "le": 5}, [31, 31, 4], ["critical", None, None]),
        ({"change": True}, [False, True, False], ["normal", "critical", "critical"]),
    ],
)
def test_urgency_waits_for_no_interval(
    urgent: dict[str, Any], values: list[Any], kinds: list[str | None]
) -> None:
    policy = Policy({"urgent": urgent, "min_interval_ms": 10_000})
    assert [policy.sample(value, number) for number, value in enumerate(values)] == kinds


def test_a_value_that_trembles_on_the_threshold_is_urgent_once() -> None:
    config = {"urgent": {"ge": 30}, "deadband": 2, "min_interval_ms": 60_000}
    told = run(config, [20, 30, 29.5, 30.1, 29, 30, 27, 31])
    assert [(n, kind) for n, kind, _ in told] == [(0, "normal"), (1, "critical"), (7, "critical")]


def test_what_is_sent_while_the_threshold_is_passed_is_critical() -> None:
    told = run({"urgent": {"ge": 30}}, [31, 32, 10])
    assert [kind for _, kind, _ in told] == ["critical", "critical", "normal"]


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_value_is_counted_and_changes_nothing(nothing: float | None) -> None:
    policy = Policy({"mean": 3})
    policy.sample(4, 0)
    assert policy.sample(nothing, 100) is None
    assert (policy.value, policy.invalid) == (4, 1)


def test_texts_and_objects_are_compared_not_averaged() -> None:
    assert [v for _, _, v in run({"mean": 3, "deadband": 5}, ["a", "a", "b", {"x": 1}])] == [
        *("a", "b", {"x": 1})
    ]


@given(configs, samples)
def test_messages_keep_their_distance_and_never_stay_away(
    config: dict[str, Any], steps: list[tuple[int, float]]
) -> None:
    policy = Policy(config)
    now = MASK - 20_000
    sent_at: int | None = None
    sent: Any = None
    for step_ms, value in steps:
        now = later(now, step_ms)
        kind = policy.sample(value, now)
        quiet_ms = None if sent_at is None else elapsed(now, sent_at)
        if kind:
            assert quiet_ms is None or quiet_ms >= config.get("min_interval_ms", 0)
            sent_at, sent = now, policy.value
        else:
            assert quiet_ms is not None
            assert sent is not None
            may = quiet_ms >= config.get("min_interval_ms", 0)
            worth = policy.value != sent and abs(policy.value - sent) >= config.get("deadband", 0)
            overdue = quiet_ms >= config.get("max_interval_ms", 60_000)
            assert not (may and (worth or overdue))


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"median": 4}, "median"),
        ({"median": 0}, "median"),
        ({"mean": 33}, "mean"),
        ({"deadband": -1}, "deadband"),
        ({"deadband": "2"}, "deadband"),
        ({"debounce_ms": 1.5}, "debounce_ms"),
        ({"min_interval_ms": True}, "min_interval_ms"),
        ({"max_interval_ms": 0}, "max_interval_ms"),
        ({"max_interval_ms": 86_400_001}, "max_interval_ms"),
        ({"urgent": {"ge": "hot"}}, "urgent.ge"),
        ({"urgent": {"le": True}}, "urgent.le"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: "):
        Policy(config)


@pytest.mark.parametrize("days", [1, 3, 7, 9, 12, 13, 20])
def test_a_sensor_that_comes_back_after_days_is_told_at_once(days: int) -> None:
    policy = Policy({"min_interval_ms": 1000, "debounce_ms": 500})
    hour, tick = 3_600_000, MASK - 5000
    assert policy.sample(20, tick) == "normal"
    policy.sample(30, later(tick, 100))
    for _ in range(days * 24):
        tick = later(tick, hour)
        assert policy.sample(None, tick) is None
    assert policy.sample(20, tick) == "normal"
    assert policy.sample(30, later(tick, 400)) is None
    assert policy.sample(30, later(tick, 1000)) == "normal"


@given(configs, samples, st.integers(0, MASK))
def test_it_does_not_matter_where_the_ticks_begin(
    config: dict[str, Any], taken: list[tuple[int, float]], start: int
) -> None:
    told = []
    for tick in (0, start):
        policy = Policy(config)
        told.append([])
        now = tick
        for step_ms, value in taken:
            now = later(now, step_ms)
            told[-1].append((policy.sample(value, now), policy.value))
    assert told[0] == told[1]
