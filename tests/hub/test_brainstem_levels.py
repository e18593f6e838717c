"""Brainstem: alert and arousal, modes and parameters."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.brainstem_inputs import (
    HOUSE,
    KITCHEN,
    brainstem,
    bundles,
    mode_update,
    of,
    parameter,
    told,
    trigger,
)
from hub.plane_inputs import NOW_MS, afferent, judged
from nervus.brainstem.level import FLOOR, Level
from nervus.wire import Publish, Removed, encode, topics, unix_ms
from nervus.wire.contracts import GlobalBroadcast, ParameterUpdate

MINUTE_MS = 60_000
ALERT = topics.global_alert(*KITCHEN)


def words(effects: Any, broker: str = "core") -> list[tuple[str, float]]:
    return [(word.state, word.level) for word in told(effects, "alert", broker)]


def passed(core: Any, from_ms: int, to_ms: int, step_ms: int = 250) -> list[Any]:
    """What is published while time passes."""
    return [e for now in range(from_ms, to_ms + 1, step_ms) for e in core.tick(now)]


def excited(core: Any, seconds: int, now_ms: int = NOW_MS) -> list[Any]:
    """A sensor goes wild for some seconds."""
    return [
        effect
        for second in range(seconds)
        for effect in core.step(
            afferent(10.0**second, now_ms + second * 1_000, sensor="illuminance"),
            now_ms + second * 1_000,
        )
    ]


@given(
    st.floats(FLOOR, 1), st.integers(1, 10**7), st.integers(0, 10**8), st.integers(0, 10**8)
)  # fmt: skip
def test_a_level_only_falls_and_halves_in_its_half_life(
    start: float, half_life_ms: int, first_ms: int, second_ms: int
) -> None:
    level = Level()
    level.set(start, half_life_ms, 0)
    earlier, later = sorted((first_ms, second_ms))
    assert level.at(-5) == level.at(0) == start
    assert start >= level.at(earlier) >= level.at(later) >= 0
    halved = level.at(half_life_ms)
    assert halved == (pytest.approx(start / 2) if start / 2 >= FLOOR else 0)


def test_a_level_without_a_half_life_stays() -> None:
    level = Level()
    level.set(0.5, None, 0)
    assert level.at(10**12) == 0.5


@pytest.mark.req("S1-1", "S1-6", "S1-54", "S1-55", "S1-56", "S1-57", "S1-59", "S1-69")
def test_an_alert_is_retained_expires_and_is_told_on_both_brokers_with_one_id() -> None:
    core = brainstem()
    effects = list(core.step(trigger(), NOW_MS))
    core_word, spinal_word = [e for e in effects if e.address.spec is topics.GLOBAL_ALERT]
    assert (core_word.on, spinal_word.on) == ("core", "spinal")
    assert core_word.address.spec.retained
    assert core_word.qos == spinal_word.qos == 1
    full, compact = judged(core_word, NOW_MS).message, judged(spinal_word, NOW_MS).message
    assert full.meta.message_id == compact.meta.message_id
    assert full.payload == compact.payload
    assert (full.payload.state, full.payload.level) == ("high_alert", 0.9)
    assert full.payload.half_life_ms == MINUTE_MS
    assert full.payload.reason == "startle: glass breaks"
    assert unix_ms(full.meta.expires_at) == NOW_MS + MINUTE_MS
    assert (full.meta.scope_level, full.meta.scope) == KITCHEN
    assert unix_ms(full.meta.produced_at) == compact.meta.t_ms == NOW_MS


def test_the_copy_for_the_boards_is_at_most_a_kibibyte() -> None:
    core = brainstem(triggers={"startle": ("ü" * 256,)})
    effects = core.step(trigger("ü" * 256, scope=("user_session", "s" * 64)), NOW_MS)
    mine = [e for e in effects if isinstance(e.message, GlobalBroadcast)]
    assert {e.on for e in mine} == {"core", "spinal"}
    for effect in mine:
        assert len(encode(effect.message)) <= 1_024
        assert judged(effect, NOW_MS)


@pytest.mark.req("S1-6", "S1-32")
def test_an_alert_that_begins_or_ends_is_an_event_once() -> None:
    core = brainstem()
    effects = list(core.step(trigger(), NOW_MS)) + passed(core, NOW_MS, NOW_MS + 600_000)
    spec = topics.GLOBAL_ALERT_EVENT
    events = [e for e in effects if isinstance(e, Publish) and e.address.spec is spec]
    assert [e.message.payload.state for e in events] == ["high_alert", "normal"]
    assert all(judged(e, unix_ms(e.message.meta.produced_at)) for e in events)


@pytest.mark.req("S1-59", "S1-69")
def test_an_alert_is_told_again_while_it_falls_but_not_often_and_then_it_is_over() -> None:
    core = brainstem()
    core.step(trigger(), NOW_MS)
    effects = passed(core, NOW_MS + 1, NOW_MS + 600_000)
    found = words(effects)
    levels = [level for _, level in found]
    assert levels == sorted(levels, reverse=True)
    assert found[-1] == ("normal", 0)
    assert 8 <= len(found) <= 25
    assert words(effects, "spinal") == found
    times = [unix_ms(m.meta.produced_at) for m in of(GlobalBroadcast, effects)]
    assert passed(core, NOW_MS + 600_001, NOW_MS + 700_000) == []
    # The event of the last word comes with it.
    assert all(later - earlier in (0, *range(1_000, 31_000)) for earlier, later in pairwise(times))
    # No word is the last one until it is renewed or over.
    ends = [unix_ms(m.meta.expires_at) for m in of(GlobalBroadcast, effects)]
    assert all(end > begin for end, begin in zip(ends, times[1:], strict=False))


def test_a_lower_alert_does_not_replace_a_higher_one() -> None:
    core = brainstem()
    core.step(trigger(), NOW_MS)
    effects = core.step(trigger("drift", NOW_MS + 10, pattern="stabilize"), NOW_MS + 10)
    assert words(effects) == []


def test_a_faint_alert_is_not_worth_a_word() -> None:
    assert words(brainstem().step(trigger(urgency=0.05), NOW_MS)) == []


def restarted(effects: list[Any], at_ms: int, **settings: Any) -> tuple[Any, list[Any]]:
    """A new core that finds what the last one retained last, and what it says to that."""
    retained: dict[str, Publish] = {}
    for effect in effects:
        if isinstance(effect, Publish) and effect.address.spec.retained and effect.on == "core":
            retained[effect.address.topic] = effect
    core = brainstem(seed=2, **settings)
    said = [e for p in retained.values() for e in core.step(judged(p, at_ms), at_ms)]
    return core, said


def test_an_alert_decays_through_a_restart() -> None:
    first = brainstem()
    effects = list(first.step(trigger(), NOW_MS))
    core, said = restarted(effects, NOW_MS + 30_000)
    assert words(said)[-1][1] == pytest.approx(0.9 * 0.5**0.5, abs=1e-3)
    assert told(said)[-1].reason == "startle: glass breaks"
    assert words(passed(core, NOW_MS + 30_000, NOW_MS + 600_000))[-1] == ("normal", 0)


def test_what_was_over_before_a_restart_stays_over() -> None:
    first = brainstem()
    first.step(trigger(), NOW_MS)
    effects = passed(first, NOW_MS, NOW_MS + 600_000)
    over_ms = unix_ms(of(GlobalBroadcast, effects)[-1].meta.produced_at)
    core, said = restarted(effects, over_ms + 1)
    assert said == []
    assert passed(core, over_ms, over_ms + 100_000) == []


def test_our_own_echo_changes_nothing() -> None:
    core = brainstem()
    effects = core.step(trigger(), NOW_MS)
    echo = next(e for e in effects if e.address.spec is topics.GLOBAL_ALERT and e.on == "core")
    assert core.step(judged(echo, NOW_MS + 1), NOW_MS + 1) == []


def test_somebody_elses_alert_is_not_taken_up() -> None:
    core = brainstem()
    (echo, *_) = [e for e in core.step(trigger(), NOW_MS) if e.address.spec is topics.GLOBAL_ALERT]
    meta = echo.message.meta.model_copy(update={"source": "intruder"})
    message = echo.message.model_copy(update={"meta": meta})
    forged = Publish(echo.address, message, echo.expiry_ms, echo.broker)
    other = brainstem(seed=3)
    assert other.step(judged(forged, NOW_MS), NOW_MS) == []
    assert passed(other, NOW_MS, NOW_MS + 5_000) == []


@pytest.mark.req("S1-6", "S1-33")
def test_arousal_rises_with_what_is_unusual_and_falls_with_its_half_life() -> None:
    core = brainstem(lateness_ms=0, arousal_half_life_ms=10_000)
    risen = told(excited(core, 20), "arousal")
    assert [word.level for word in risen] == sorted(word.level for word in risen)
    assert risen[-1].level > 0.3
    assert {word.half_life_ms for word in risen} == {10_000}
    fallen = told(passed(core, NOW_MS + 20_000, NOW_MS + 200_000), "arousal")
    assert fallen[-1].level == 0
    assert len(fallen) <= 25


def test_arousal_decays_through_a_restart() -> None:
    first = brainstem(lateness_ms=0)
    effects = excited(first, 20)
    last = told(effects, "arousal")[-1]
    now_ms = NOW_MS + 50_000
    _, said = restarted(effects, now_ms)
    assert 0 < told(said, "arousal")[-1].level < last.level


def test_what_is_usual_does_not_arouse() -> None:
    core = brainstem(lateness_ms=0)
    effects = [
        e
        for second in range(60)
        for e in core.step(afferent(21, NOW_MS + second * 1_000), NOW_MS + second * 1_000)
    ]
    assert len(bundles(effects)) == 59
    assert told(effects, "arousal") == []


@pytest.mark.req("S1-13", "S1-58")
@pytest.mark.parametrize(
    ("mode", "state"),
    [("night", "quiet_hours"), ("away", "energy_save"), ("holiday", "energy_save")],
)
def test_a_mode_is_the_state_of_its_scope_until_it_ends(mode: str, state: str) -> None:
    core = brainstem()
    assert words(core.step(mode_update(mode), NOW_MS)) == [(state, 0)]
    renewed = words(passed(core, NOW_MS, NOW_MS + 59_999))
    assert renewed == [(state, 0)]
    over = words(passed(core, NOW_MS + 60_000, NOW_MS + 62_000))
    assert over == [("normal", 0)]
    core.tick(NOW_MS + 70_000)
    assert len(core._agenda) == 0


@pytest.mark.req("S1-23")
def test_the_mode_of_the_house_holds_in_all_its_rooms() -> None:
    core = brainstem()
    core.step(afferent(20), NOW_MS)
    core.step(trigger(scope=("room", "attic")), NOW_MS)
    effects = core.step(mode_update("night", scope=HOUSE, now_ms=NOW_MS + 5_000), NOW_MS + 5_000)
    spec = topics.GLOBAL_ALERT
    rooms = {
        e.address.levels["scope"]: e.message.payload.state
        for e in effects
        if isinstance(e, Publish) and e.address.spec is spec
    }
    assert rooms == {"home": "quiet_hours", "kitchen": "quiet_hours"}
    assert core._scopes["room", "attic"].mode.resting == "quiet_hours"


def test_a_rooms_own_mode_comes_before_the_houses() -> None:
    core = brainstem()
    core.step(mode_update("night", scope=HOUSE), NOW_MS)
    assert words(core.step(mode_update("away"), NOW_MS)) == [("energy_save", 0)]
    later = core.step(Removed(topics.mode(*KITCHEN), "core"), NOW_MS + 2_000)
    assert words(later) == [("quiet_hours", 0)]


def test_an_alert_comes_before_the_mode_and_maintenance_expects_alarms() -> None:
    core = brainstem()
    core.step(mode_update("night"), NOW_MS)
    assert words(core.step(trigger(), NOW_MS + 10)) == [("high_alert", 0.9)]
    calm = brainstem()
    calm.step(mode_update("maintenance"), NOW_MS)
    assert words(calm.step(trigger(), NOW_MS + 10)) == []


def test_a_longer_mode_replaces_the_end_of_a_shorter_one() -> None:
    core = brainstem()
    core.step(mode_update("night", lives_ms=5_000), NOW_MS)
    core.step(mode_update("night", NOW_MS + 1, lives_ms=20_000), NOW_MS + 1)
    core.tick(NOW_MS + 6_000)
    assert core._scopes[KITCHEN].tuned(core._tuning).mode.resting == "quiet_hours"
    assert words(passed(core, NOW_MS + 6_001, NOW_MS + 22_000))[-1] == ("normal", 0)


def test_modes_and_parameters_are_bounded() -> None:
    core = brainstem(scope_limit=1)
    core.step(mode_update("night"), NOW_MS)
    core.step(parameter(100), NOW_MS)
    (mode,) = core.step(mode_update("night", scope=HOUSE), NOW_MS)
    (value,) = core.step(parameter(100, scope=HOUSE), NOW_MS)
    assert mode.reason_code == value.reason_code == "queue_full"
    assert core.step(parameter(200, version=2, name="brainstem.arousal_gain"), NOW_MS)
    assert core.step(parameter(5, version=1, name="other"), NOW_MS)
    assert len(core._tuning._versions) == 1


def length(core: Any, now_ms: int, scope: str = "kitchen") -> int:
    core.step(afferent(20, now_ms, scope=scope), now_ms)
    return bundles(core.tick(now_ms + 60_000))[0].payload.window_ms  # type: ignore[no-any-return]


@pytest.mark.req("S4-51")
def test_a_parameter_holds_until_it_expires_and_the_boards_are_told() -> None:
    core = brainstem(lateness_ms=0)
    update = parameter(2_000)
    (copy,) = core.step(update, NOW_MS)
    assert (copy.on, copy.address.topic) == ("spinal", update.address.topic)
    board = judged(copy, NOW_MS).message
    assert isinstance(board, ParameterUpdate)
    assert board.payload == update.message.payload
    assert board.meta.message_id == update.message.meta.message_id
    assert board.meta.expires_at == update.message.meta.expires_at
    assert board.meta.source == "brainstem"
    assert len(encode(board)) <= 1_024
    core.step(afferent(20, NOW_MS), NOW_MS)
    assert bundles(core.tick(NOW_MS + 2_000))[0].payload.window_ms == 2_000
    assert length(core, NOW_MS + 60_000) == 1_000


def test_only_a_higher_version_counts() -> None:
    core = brainstem(lateness_ms=0)
    core.step(parameter(2_000, version=5), NOW_MS)
    assert core.step(parameter(5_000, version=5), NOW_MS) == []
    assert core.step(parameter(5_000, version=4), NOW_MS) == []
    assert core._tuning.stale == 2
    core.step(parameter(4_000, version=6), NOW_MS)
    assert length(core, NOW_MS - NOW_MS % 4_000 + 4_000) == 4_000


def test_a_parameter_of_the_house_gives_way_to_one_of_the_room() -> None:
    core = brainstem(lateness_ms=0)
    core.step(parameter({"window_ms": 2_000, "bundle_ttl_ms": 9_000}, name="brainstem",
                        scope=HOUSE), NOW_MS)  # fmt: skip
    core.step(parameter(500), NOW_MS)
    assert length(core, NOW_MS) == 500
    core.step(Removed(topics.global_parameters(*KITCHEN), "core"), NOW_MS + 60_000)
    core.step(Removed(topics.global_parameters(*KITCHEN), "core"), NOW_MS + 60_000)
    core.step(parameter(2_000, 2, NOW_MS + 60_000, scope=HOUSE), NOW_MS + 60_000)
    assert length(core, NOW_MS + 60_000) == 2_000


def test_a_longer_parameter_replaces_the_end_of_a_shorter_one() -> None:
    core = brainstem(lateness_ms=0)
    core.step(parameter(2_000, 1, lives_ms=1_000), NOW_MS)
    core.step(parameter(2_000, 2, lives_ms=90_000), NOW_MS)
    core.tick(NOW_MS + 1_500)
    assert length(core, NOW_MS + 2_000) == 2_000


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("brainstem.window_ms", 1, "window_ms: input should be greater"),
        ("brainstem.window_ms", "long", "window_ms: input should be a valid integer"),
        ("brainstem.device_limit", 5, "brainstem has no parameter 'device_limit'"),
        ("brainstem", {"lateness_ms": 5}, "brainstem has no parameter 'lateness_ms'"),
    ],
)
def test_a_parameter_that_brainstem_cannot_take_is_refused(
    name: str, value: Any, reason: str
) -> None:
    (rejected,) = brainstem().step(parameter(value, name=name), NOW_MS)
    assert rejected.reason_code == "schema_invalid"
    assert reason in rejected.reason


def test_a_parameter_of_others_is_copied_and_changes_nothing_here() -> None:
    core = brainstem(lateness_ms=0)
    assert len(of(ParameterUpdate, core.step(parameter(5, name="brightness"), NOW_MS), "spinal"))
    assert length(core, NOW_MS) == 1_000


def test_what_boards_are_told_is_not_taken_for_what_brainstem_is_told() -> None:
    core, other = brainstem(lateness_ms=0), brainstem(2, lateness_ms=0)
    said = [*core.step(trigger(), NOW_MS), *core.step(parameter(2_000), NOW_MS)]
    copies = [judged(each, NOW_MS) for each in said if each.on == "spinal"]
    assert {type(copy.message) for copy in copies} == {GlobalBroadcast, ParameterUpdate}
    for copy in copies:
        (rejected,) = other.step(copy, NOW_MS)
        assert (rejected.reason_code, rejected.stage) == ("wrong_broker", "apply")
        assert rejected.packet.topic in rejected.reason
    assert other.counters.misplaced == len(copies)
    assert other.tick(NOW_MS + 60_000) == []
    assert length(other, NOW_MS + 60_000) == 1_000


def test_a_copy_that_was_removed_leaves_a_parameter_in_force() -> None:
    core = brainstem(lateness_ms=0)
    core.step(parameter(2_000), NOW_MS)
    assert core.step(Removed(topics.global_parameters(*KITCHEN), "spinal"), NOW_MS) == []
    assert length(core, NOW_MS) == 2_000


def test_a_level_that_was_removed_takes_nothing_with_it() -> None:
    core = brainstem(lateness_ms=0)
    core.step(parameter(2_000), NOW_MS)
    assert core.step(Removed(topics.global_alert(*KITCHEN), "core"), NOW_MS) == []
    assert length(core, NOW_MS) == 2_000
