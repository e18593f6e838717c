"""Brainstem: when a sample belongs to which window, and what a window says of it."""

from typing import Any

import pytest
from pydantic import ValidationError

from hub.brainstem_inputs import HOUSE, brainstem, bundles, mode_update, parameter
from hub.plane_inputs import NOW_MS, afferent, judged, status
from nervus.brainstem import Brainstem, BrainstemSettings
from nervus.wire import Hold, Rejected, encode, timestamp

SECOND_MS = 1_000
LATE_MS = 2_000
ON, OFF = True, False


def measured(
    core: Brainstem, at_ms: int, received_ms: int, value: Any = 20, **fields: Any
) -> list[Any]:
    """What comes of a sample that a board with a clock took at one time and sent at another."""
    made = afferent(value, at_ms, **fields)
    assert made.message.meta.t_ms == at_ms
    return list(core.step(made, received_ms))


def windows(effects: list[Any]) -> list[tuple[str, int, int]]:
    """Start, length and samples of each bundle."""
    payloads = [bundle.payload for bundle in bundles(effects)]
    return [
        (each.window_start, each.window_ms, sum(f.count for f in each.summary_features))
        for each in payloads
    ]


def test_a_late_sample_joins_the_window_it_was_measured_in() -> None:
    core = brainstem()
    measured(core, NOW_MS + 10, NOW_MS + 10)
    effects = measured(core, NOW_MS + 1_050, NOW_MS + 1_050)
    effects += measured(core, NOW_MS + 990, NOW_MS + 1_200)
    assert effects == []
    assert windows(core.tick(NOW_MS + 1_250)) == [(timestamp(NOW_MS), SECOND_MS, 2)]
    assert windows(core.tick(NOW_MS + 2_250)) == [(timestamp(NOW_MS + SECOND_MS), SECOND_MS, 1)]


def test_what_is_later_than_the_bound_is_refused_with_its_reason() -> None:
    core = brainstem()
    (rejected,) = measured(core, NOW_MS, NOW_MS + LATE_MS + 1)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason_code, rejected.stage) == ("expired", "apply")
    assert "2001 ms ago: send it as historical" in rejected.reason
    assert core.intake.late == 1
    assert measured(core, NOW_MS + 1, NOW_MS + LATE_MS + 1) == []


def test_what_is_urgent_rises_for_as_long_as_it_lives() -> None:
    core = brainstem()
    measured(core, NOW_MS + 9_000, NOW_MS + 9_000)
    effects = measured(core, NOW_MS, NOW_MS + 9_500, seq=2, device="b2", priority="critical")
    assert windows(effects) == [(timestamp(NOW_MS), SECOND_MS, 1)]
    assert core.intake.late == 0
    assert windows(core.tick(NOW_MS + 10_250)) == [(timestamp(NOW_MS + 9_000), SECOND_MS, 1)]


def test_what_comes_after_its_window_ended_counts_in_the_next() -> None:
    core = brainstem()
    measured(core, NOW_MS + 10, NOW_MS + 10)
    assert windows(core.tick(NOW_MS + 1_250)) == [(timestamp(NOW_MS), SECOND_MS, 1)]
    measured(core, NOW_MS + 20, NOW_MS + 1_300, device="b2")
    assert windows(core.tick(NOW_MS + 2_250)) == [(timestamp(NOW_MS + SECOND_MS), SECOND_MS, 1)]
    assert (core.intake.moved, core.intake.late) == (1, 0)


def test_what_comes_after_a_window_that_never_was_still_has_it() -> None:
    core = brainstem()
    measured(core, NOW_MS + 20, NOW_MS + 1_900)
    effects = measured(core, NOW_MS + 30, NOW_MS + 1_900)
    assert windows(effects) == [(timestamp(NOW_MS), SECOND_MS, 1)]
    assert windows(core.tick(NOW_MS + 2_250)) == [(timestamp(NOW_MS + SECOND_MS), SECOND_MS, 1)]


def test_a_board_without_a_clock_is_placed_by_receipt() -> None:
    core = brainstem()
    core.step(afferent(20, NOW_MS + 400, t_ms=77, clk="none"), NOW_MS + 400)
    assert windows(core.tick(NOW_MS + 1_250)) == [(timestamp(NOW_MS), SECOND_MS, 1)]


def test_a_clock_that_is_ahead_does_not_open_windows_of_the_future() -> None:
    core = brainstem()
    measured(core, NOW_MS + 30_000, NOW_MS + 100)
    assert windows(core.tick(NOW_MS + 1_250)) == [(timestamp(NOW_MS), SECOND_MS, 1)]


def test_a_clock_that_was_set_back_is_not_believed_until_it_agrees_again() -> None:
    core = brainstem()
    measured(core, NOW_MS, NOW_MS, seq=1)
    back_ms = 60_000
    for seq, now_ms in ((2, NOW_MS + 100), (3, NOW_MS + 200)):
        assert measured(core, now_ms - back_ms, now_ms, seq=seq) == []
    measured(core, NOW_MS + 290, NOW_MS + 300, seq=4)
    assert windows(core.tick(NOW_MS + 1_250)) == [(timestamp(NOW_MS), SECOND_MS, 4)]
    clock = core._sources.get("b1").clock
    assert (clock.jumps, clock.trusted) == (1, True)
    (late,) = measured(core, NOW_MS + 300, NOW_MS + 3_300, seq=3)
    assert late.reason_code == "expired"


def test_a_sample_sent_twice_out_of_order_is_no_jump_of_the_clock() -> None:
    core = brainstem()
    measured(core, NOW_MS + 400, NOW_MS + 400, seq=9)
    (late,) = measured(core, NOW_MS - LATE_MS, NOW_MS + 410, seq=3)
    assert late.reason_code == "expired"
    assert core._sources.get("b1").clock.trusted


def test_a_new_boot_has_a_clock_of_its_own() -> None:
    core = brainstem()
    measured(core, NOW_MS + 900, NOW_MS + 900, seq=50, boot=1)
    (late,) = measured(core, NOW_MS - LATE_MS, NOW_MS + 910, seq=0, boot=2)
    assert late.reason_code == "expired"
    assert measured(core, NOW_MS + 920, NOW_MS + 920, seq=1, boot=2) == []


def test_what_was_measured_long_ago_is_in_windows_of_its_time() -> None:
    core = brainstem(historical_window_ms=60_000)
    minutes_ms = [NOW_MS - 3_600_000, NOW_MS - 3_540_000]
    start_ms = minutes_ms[0] - minutes_ms[0] % 60_000
    for number, at_ms in enumerate(minutes_ms * 2):
        measured(core, at_ms, NOW_MS + number, historical=True)
    effects = core.tick(NOW_MS + SECOND_MS + 1)
    assert windows(effects) == [
        (timestamp(start_ms), 60_000, 2), (timestamp(start_ms + 60_000), 60_000, 2),
    ]  # fmt: skip
    assert all(judged(effect, NOW_MS + 1_001).message.meta.historical for effect in effects)
    assert core.intake.historical == 4


def test_old_samples_of_a_board_that_had_no_clock_are_placed_by_receipt() -> None:
    core = brainstem(historical_window_ms=1_000)
    core.step(afferent(20, NOW_MS, t_ms=5, clk="none", historical=True), NOW_MS)
    assert windows(core.tick(NOW_MS + 1_000)) == [(timestamp(NOW_MS), SECOND_MS, 1)]


def test_old_windows_are_bounded_and_urgency_does_not_close_them() -> None:
    core = brainstem(historical_limit=2, historical_window_ms=1_000)
    old_ms = NOW_MS - 100_000
    assert measured(core, old_ms, NOW_MS, historical=True, priority="critical") == [Hold(1)]
    assert measured(core, old_ms + 5_000, NOW_MS, historical=True) == []
    (rejected,) = measured(core, old_ms + 10_000, NOW_MS, historical=True)
    assert rejected.reason_code == "queue_full"
    first, _ = bundles(core.tick(NOW_MS + 1_000))
    assert first.meta.priority == "critical"


@pytest.mark.req("S1-63", "S1-64")
def test_sliding_windows_count_a_sample_as_often_as_they_cover_it() -> None:
    core = brainstem(
        lateness_ms=0, channels={"somatic": {"window_ms": 3_000, "hop_ms": 1_000}}, arousal_gain=0
    )
    seen = []
    for second, value in enumerate((10, 12, 11)):
        at_ms = NOW_MS + second * SECOND_MS
        seen += measured(core, at_ms, at_ms, value)
    for second in range(3, 8):
        seen += core.tick(NOW_MS + second * SECOND_MS)
    found = [
        (b.payload.window_ms, f.count, f.min, f.max, f.last, f.changes)
        for b in bundles(seen)
        for f in b.payload.summary_features
    ]
    assert found == [
        (1_000, 1, 10, 10, 10, 0),
        (2_000, 2, 10, 12, 12, 1),
        (3_000, 3, 10, 12, 11, 2),
        (3_000, 2, 11, 12, 11, 2),
        (3_000, 1, 11, 11, 11, 1),
    ]


def test_a_sliding_window_merges_states_and_words() -> None:
    core = brainstem(
        lateness_ms=0, channels={"somatic": {"window_ms": 2_000, "hop_ms": 1_000}}, arousal_gain=0
    )
    for at, value, word in ((0, ON, "a"), (1_500, OFF, "b"), (1_600, OFF, "a")):
        measured(core, NOW_MS + at, NOW_MS + at, value, sensor="door")
        measured(core, NOW_MS + at, NOW_MS + at, word, sensor="button")
    (last,) = bundles(core.tick(NOW_MS + 2_000))
    words, state = last.payload.summary_features
    assert (state.true_ms, state.false_ms, state.last, state.min) == (1_500, 500, False, None)
    assert words.histogram == {"a": 2, "b": 1}


def test_a_sliding_window_is_cut_by_what_is_urgent_and_goes_on() -> None:
    core = brainstem(
        channels={"visual_orient": {"window_ms": 2_000, "hop_ms": 1_000}}, arousal_gain=0
    )
    measured(core, NOW_MS + 900, NOW_MS + 900, OFF, sensor="motion")
    urgent = measured(
        core, NOW_MS + 1_100, NOW_MS + 1_100, ON, sensor="motion", priority="critical"
    )
    assert windows(urgent) == [(timestamp(NOW_MS + 1_000), 100, 1)]
    # The first window's grace ran until now; the urgent part lies after its end.
    assert windows(core.tick(NOW_MS + 1_250)) == [(timestamp(NOW_MS), 1_000, 1)]
    assert windows(core.tick(NOW_MS + 2_250)) == [(timestamp(NOW_MS), 2_000, 2)]


@pytest.mark.parametrize("shape", [{"window_ms": 1_000, "hop_ms": 300}, {"window_ms": 10}])
def test_a_shape_that_does_not_fit_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=r"divisor|50"):
        BrainstemSettings(channels={"somatic": shape})  # type: ignore[dict-item]


def test_windows_of_a_channel_that_does_not_exist_are_refused() -> None:
    with pytest.raises(ValidationError, match="no such channel: dreams"):
        BrainstemSettings(channels={"dreams": {"window_ms": 1_000}})  # type: ignore[dict-item]


def test_channels_may_have_windows_of_their_own_length() -> None:
    core = brainstem(lateness_ms=0, channels={"auditory": {"window_ms": 200}})
    measured(core, NOW_MS, NOW_MS, 50, sensor="sound_level")
    measured(core, NOW_MS, NOW_MS, 20)
    assert windows(core.tick(NOW_MS + 200)) == [(timestamp(NOW_MS), 200, 1)]
    assert windows(core.tick(NOW_MS + 1_000)) == [(timestamp(NOW_MS), 1_000, 1)]


@pytest.mark.req("S1-13")
def test_a_mode_makes_windows_longer_and_none_overlaps_another() -> None:
    core = brainstem(lateness_ms=0)
    measured(core, NOW_MS + 100, NOW_MS + 100)
    core.step(mode_update("holiday", NOW_MS + 200), NOW_MS + 200)
    seen = measured(core, NOW_MS + 300, NOW_MS + 300)
    seen += measured(core, NOW_MS + 1_300, NOW_MS + 1_300)
    seen += measured(core, NOW_MS + 2_300, NOW_MS + 2_300)
    seen += core.tick(NOW_MS + 4_000)
    assert windows(seen) == [
        (timestamp(NOW_MS), 1_000, 2),
        (timestamp(NOW_MS + 1_000), 1_000, 1),
        (timestamp(NOW_MS + 2_000), 2_000, 1),
    ]


def test_a_shorter_window_does_not_reach_into_one_that_is_open() -> None:
    core = brainstem(lateness_ms=1_000)
    measured(core, NOW_MS + 2_100, NOW_MS + 2_100)
    core.step(parameter(5_000, now_ms=NOW_MS + 2_200), NOW_MS + 2_200)
    measured(core, NOW_MS + 1_500, NOW_MS + 2_300)
    seen = core.tick(NOW_MS + 10_000)
    assert windows(seen) == [(timestamp(NOW_MS), 2_000, 1), (timestamp(NOW_MS + 2_000), 1_000, 1)]


@pytest.mark.req("S1-64")
def test_a_state_is_timed_from_the_start_when_it_was_known_then() -> None:
    core = brainstem(lateness_ms=0)
    measured(core, NOW_MS + 400, NOW_MS + 400, ON, sensor="door")
    (first,) = bundles(core.tick(NOW_MS + 1_000))
    (feature,) = first.payload.summary_features
    assert (feature.true_ms, feature.false_ms) == (600, 0)
    measured(core, NOW_MS + 1_700, NOW_MS + 1_700, OFF, sensor="door")
    (second,) = bundles(core.tick(NOW_MS + 2_000))
    (feature,) = second.payload.summary_features
    assert (feature.true_ms, feature.false_ms) == (700, 300)


def test_a_state_told_late_does_not_turn_time_back() -> None:
    core = brainstem()
    measured(core, NOW_MS + 500, NOW_MS + 500, ON, sensor="door")
    measured(core, NOW_MS + 400, NOW_MS + 510, OFF, sensor="door")
    measured(core, NOW_MS + 300, NOW_MS + 520, 5)
    measured(core, NOW_MS + 290, NOW_MS + 530, 6)
    (bundle,) = bundles(core.tick(NOW_MS + 1_250))
    door, temperature = bundle.payload.summary_features
    assert (door.last, door.changes, door.count) == (True, 0, 2)
    assert door.true_ms + door.false_ms <= 600
    assert (temperature.last, temperature.count, temperature.min) == (5, 2, 5)


def test_words_are_counted_up_to_eight_of_them() -> None:
    core = brainstem(lateness_ms=0)
    for number in range(12):
        measured(core, NOW_MS + number, NOW_MS + number, f"word{number % 10}", sensor="button")
    measured(core, NOW_MS + 50, NOW_MS + 50, "w" * 40, sensor="button")
    (bundle,) = bundles(core.tick(NOW_MS + 1_000))
    (feature,) = bundle.payload.summary_features
    assert feature.count == 13
    assert feature.histogram == {f"word{n}": 1 + (n < 2) for n in range(8)}


def test_a_signal_that_changes_its_type_keeps_its_count() -> None:
    core = brainstem(lateness_ms=0)
    for number, value in enumerate((ON, 3, "three")):
        measured(core, NOW_MS + number, NOW_MS + number, value, sensor="door")
    (bundle,) = bundles(core.tick(NOW_MS + 1_000))
    (feature,) = bundle.payload.summary_features
    assert (feature.count, feature.last, feature.max) == (3, "three", 3)


def test_the_largest_feature_fits_into_a_bundle() -> None:
    core = brainstem(lateness_ms=0)
    # The longest words, of the characters that take most bytes in JSON.
    for number in range(8):
        word = chr(0x1F600 + number) * 32
        measured(core, NOW_MS + number, NOW_MS + number, word, sensor="button", device="d" * 64)
    measured(core, NOW_MS + 9, NOW_MS + 9, chr(1) * 64, sensor="button", device="d" * 64)
    effects = core.tick(NOW_MS + 1_000)
    assert len(encode(effects[0].message)) <= effects[0].address.spec.max_bytes


def test_the_windows_of_a_house_follow_its_mode_in_every_room() -> None:
    core = brainstem(lateness_ms=0)
    core.step(mode_update("holiday", scope=HOUSE), NOW_MS)
    measured(core, NOW_MS + 100, NOW_MS + 100)
    assert windows(core.tick(NOW_MS + 2_000)) == [(timestamp(NOW_MS), 2_000, 1)]


def test_a_stream_that_was_idle_for_a_minute_is_forgotten() -> None:
    core = brainstem()
    measured(core, NOW_MS, NOW_MS)
    core.step(status("online", NOW_MS + 100), NOW_MS + 100)
    core.tick(NOW_MS + 1_250)
    core.tick(NOW_MS + 60_000)
    assert core._scopes
    core.tick(NOW_MS + 121_000)
    assert not core._scopes
    assert len(core._agenda) == 0
