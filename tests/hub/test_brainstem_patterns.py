"""Brainstem: fast patterns, asked for by conditions and by triggers."""

from collections import Counter
from typing import Any

import pytest

from hub.brainstem_inputs import HOUSE, brainstem, requests, response, told, trigger
from hub.plane_inputs import NOW_MS, afferent, judged
from nervus.brainstem.patterns import Condition
from nervus.wire import Publish, Rejected, topics
from nervus.wire.contracts import Feature
from nervus.wire.registries import patterns

ON = True


def sensed(core: Any, value: Any, sensor: str, now_ms: int = NOW_MS, **fields: Any) -> list[Any]:
    return list(core.step(afferent(value, now_ms, sensor=sensor, **fields), now_ms))


@pytest.mark.req("S1-1", "S1-5", "S1-74")
def test_something_loud_startles_within_its_window() -> None:
    core = brainstem(lateness_ms=0)
    sensed(core, 99, "sound_level", priority="normal")
    effects = core.tick(NOW_MS + 1_000)
    bundle, request, *_ = [effect.message for effect in effects]
    assert request.payload.pattern_type == "startle"
    assert request.payload.recommendation == patterns()["startle"]["recommendation"]
    assert request.meta.parent_id == bundle.meta.message_id
    assert request.meta.trace_id == bundle.meta.trace_id


@pytest.mark.req("S1-5", "S1-31")
def test_something_urgent_is_answered_at_once() -> None:
    core = brainstem()
    effects = sensed(core, ON, "motion", priority="critical")
    (request,) = requests(effects)
    assert (request.payload.pattern_type, request.payload.urgency) == ("orient", 1)
    assert told(effects)[0].level == pytest.approx(patterns()["orient"]["alert"])


@pytest.mark.req("S1-5")
def test_something_that_drifts_is_to_be_stabilized() -> None:
    core = brainstem(lateness_ms=0)
    seen = []
    for second in range(20):
        seen += sensed(core, 20, "temperature", NOW_MS + second * 1_000)
    seen += sensed(core, 60, "temperature", NOW_MS + 20_000)
    assert requests(seen) == []
    (request,) = requests(core.tick(NOW_MS + 21_000))
    assert request.payload.pattern_type == "stabilize"


def test_what_is_not_critical_does_not_orient() -> None:
    core = brainstem(lateness_ms=0)
    sensed(core, ON, "motion")
    assert requests(core.tick(NOW_MS + 1_000)) == []


def test_what_was_measured_long_ago_asks_for_nothing() -> None:
    core = brainstem()
    sensed(core, 99, "sound_level", historical=True)
    assert requests(core.tick(NOW_MS + 5_000)) == []


FEATURE = Feature(
    sensor_type="x", count=3, min=1, max=9, mean=4, last="open", moving_average=6.5, changes=2
)


@pytest.mark.parametrize(
    ("field", "rule", "holds"),
    [
        ("max", {"above": 8}, True),
        ("max", {"above": 9}, False),
        ("min", {"below": 2}, True),
        ("min", {"below": 1}, False),
        ("min", {"below": 0}, False),
        ("last", {"equals": "open"}, True),
        ("last", {"equals": "shut"}, False),
        ("last", {"above": 1}, False),
        ("count", {"equals": True}, False),
        ("true_ms", {"above": 0}, False),
        ("drift", {"above": 2}, True),
        ("salience", {"above": 0.6}, True),
        ("salience", {"above": 0.6, "critical": True}, False),
    ],
)
def test_a_condition_says_what_a_feature_shows(
    field: str,
    rule: dict[str, Any],
    holds: bool,  # noqa: FBT001 - a table
) -> None:
    condition = Condition("orient", "x", field, **rule)
    assert condition.holds(FEATURE, 0.7, critical=False) is holds


def test_nothing_drifts_that_has_no_average() -> None:
    condition = Condition("stabilize", "x", "drift", above=0)
    assert not condition.holds(Feature(sensor_type="x", count=1), 0, critical=True)


@pytest.mark.req("S1-5", "S1-12", "S1-30", "S1-46", "S1-48", "S1-49", "S1-70")
def test_a_trigger_becomes_a_request_that_the_guard_of_the_core_broker_takes() -> None:
    core = brainstem()
    event = trigger("glass breaks", urgency=0.8, deadline_ms=1_500)
    publish = next(e for e in core.step(event, NOW_MS + 100) if isinstance(e, Publish))
    request = judged(publish, NOW_MS + 100)
    assert publish.address.topic == "/bs/pattern/event/room/kitchen/startle/request"
    assert (publish.on, publish.qos) == ("core", 1)
    assert request.left_ms is not None
    assert request.left_ms <= 5_000
    meta = request.message.meta
    assert (meta.deadline_ms, request.message.payload.urgency) == (1_400, 0.8)
    assert (meta.source, meta.principal) == ("brainstem", "glass-detector")
    assert meta.parent_id == event.message.meta.message_id
    for spec in (topics.PATTERN_TRIGGER, topics.PATTERN_REQUEST):
        assert (spec.qos, spec.retained) == (1, False)
        assert spec.ttl_ms is not None
        assert spec.ttl_ms <= 10_000


@pytest.mark.req("S1-12", "S1-77")
def test_a_trigger_that_is_not_declared_is_refused() -> None:
    core = brainstem()
    (rejected,) = core.step(trigger("boredom"), NOW_MS)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason_code, rejected.stage) == ("unknown_name", "apply")
    assert "startle has no trigger 'boredom'" in rejected.reason
    assert core.patterns.requested == 0


def test_a_house_may_declare_triggers_of_its_own() -> None:
    core = brainstem(triggers={"startle": ("the cat",)})
    assert len(requests(core.step(trigger("the cat"), NOW_MS))) == 1


def test_a_trigger_past_its_deadline_is_refused() -> None:
    core = brainstem()
    (rejected,) = core.step(trigger(deadline_ms=100), NOW_MS + 100)
    assert rejected.reason_code == "expired"


def test_a_pattern_cools_down_in_its_scope_alone() -> None:
    core = brainstem()
    assert len(requests(core.step(trigger(), NOW_MS))) == 1
    assert requests(core.step(trigger(now_ms=NOW_MS + 9_000), NOW_MS + 9_000)) == []
    assert (
        len(requests(core.step(trigger(now_ms=NOW_MS + 9_000, scope=HOUSE), NOW_MS + 9_000))) == 1
    )
    assert len(requests(core.step(trigger(now_ms=NOW_MS + 10_000), NOW_MS + 10_000))) == 1
    assert (core.patterns.requested, core.patterns.cooling) == (3, 1)


@pytest.mark.req("S1-50", "S1-51", "S1-52", "S1-53")
@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        ({"status": "completed"}, "completed"),
        ({"status": "refused"}, "refused"),
        ({"status": "failed"}, "failed"),
        ({"recommendation": "Close the blinds."}, "recommended"),
    ],
)
def test_the_first_final_answer_ends_a_request(answer: dict[str, str], counted: str) -> None:
    core = brainstem()
    (request,) = requests(core.step(trigger(), NOW_MS))
    request_id = request.payload.request_id
    assert core.step(response(request_id, status="accepted"), NOW_MS + 1) == []
    assert core.step(response(request_id, **answer), NOW_MS + 2) == []
    (rejected,) = core.step(response(request_id, status="completed"), NOW_MS + 3)
    assert rejected.reason_code == "expired"
    core.tick(NOW_MS + 60_000)
    assert core.patterns.accepted == 1
    assert getattr(core.patterns, counted) == 1
    assert core.patterns.unanswered == 0


@pytest.mark.parametrize("wrong", [{"pattern": "orient"}, {"scope": HOUSE}])
def test_an_answer_to_somebody_elses_request_is_refused(wrong: dict[str, Any]) -> None:
    core = brainstem()
    (request,) = requests(core.step(trigger(), NOW_MS))
    answer = response(request.payload.request_id, status="completed", **wrong)
    (rejected,) = core.step(answer, NOW_MS + 1)
    assert rejected.reason_code == "expired"
    assert core.patterns.completed == 0


def test_a_request_that_nobody_answers_is_counted() -> None:
    core = brainstem()
    core.step(trigger(), NOW_MS)
    core.tick(NOW_MS + 1_999)
    assert (core.patterns.unanswered, len(core._patterns)) == (0, 1)
    core.tick(NOW_MS + 2_000)
    assert (core.patterns.unanswered, len(core._patterns)) == (1, 0)


def test_requests_that_wait_are_bounded() -> None:
    core = brainstem(request_limit=2)
    effects = [
        effect
        for number in range(4)
        for effect in core.step(trigger(scope=("room", f"r{number}")), NOW_MS)
    ]
    assert len(requests(effects)) == 2
    assert core.patterns.crowded == 2


def test_patterns_find_no_room_in_a_full_hub() -> None:
    core = brainstem(scope_limit=1)
    effects = [*core.step(trigger(), NOW_MS), *core.step(trigger(scope=HOUSE), NOW_MS)]
    refused = Counter(e.reason_code for e in effects if isinstance(e, Rejected))
    assert refused == {"queue_full": 1}
