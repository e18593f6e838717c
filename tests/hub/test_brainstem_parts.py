"""Brainstem's small parts, where the core as a whole reaches them seldom."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.brainstem_inputs import brainstem, bundles
from hub.plane_inputs import NOW_MS, afferent
from nervus.brainstem import BrainstemSettings
from nervus.brainstem.agenda import Agenda
from nervus.brainstem.correlation import Episodes
from nervus.brainstem.signal import Signal
from nervus.brainstem.source import SIGNALS_OF_A_SOURCE, Sources
from nervus.brainstem.statistics import HISTOGRAM_WORDS, Statistics
from nervus.brainstem.stream import Shape, Stream
from nervus.brainstem.window import Summary
from nervus.wire.times import NEVER

ON = True


@given(st.lists(st.integers(0, 50), max_size=40))
def test_what_is_due_happens_by_due_time_and_equals_in_order(due: list[int]) -> None:
    agenda, done = Agenda(), []

    def act(subject: tuple[int, int], now_ms: int) -> list[object]:
        assert subject[0] <= now_ms
        done.append(subject)
        return []

    for number, due_ms in enumerate(due):
        agenda.put(due_ms, act, (due_ms, number))  # type: ignore[arg-type]
    for now_ms in range(0, 51, 10):
        assert agenda.run(now_ms) == []
        assert len(agenda) == sum(due_ms > now_ms for due_ms in due)
    assert done == sorted(done)
    assert agenda.next_ms == NEVER


def test_a_device_with_too_many_signals_loses_its_own_oldest() -> None:
    sources = Sources(BrainstemSettings())
    first, other = sources.get("b1"), sources.get("b2")
    kept = sources.signal(other, ("x", "", ("room", "r"), False))
    for number in range(SIGNALS_OF_A_SOURCE + 3):
        sources.signal(first, (f"s{number}", "", ("room", "r"), False))
    assert sources.signals == SIGNALS_OF_A_SOURCE + 1
    assert sources.signals_evicted == 3
    assert sources.signal(other, ("x", "", ("room", "r"), False)) is kept


def test_a_hub_full_of_signals_forgets_the_device_that_was_quiet_longest() -> None:
    sources = Sources(BrainstemSettings(signal_limit=4))
    for number in range(4):
        source = sources.get(f"b{number}")
        sources.signal(source, ("x", "", ("room", "r"), False))
    # The last one may grow at the cost of those that are quiet.
    sources.signal(source, ("y", "", ("room", "r"), False))
    assert (len(sources), sources.signals, sources.evicted) == (3, 4, 1)


def test_one_device_alone_may_have_as_many_signals_as_a_device_may() -> None:
    sources = Sources(BrainstemSettings(signal_limit=1))
    source = sources.get("b1")
    for number in range(3):
        sources.signal(source, (f"s{number}", "", ("room", "r"), False))
    assert (len(sources), sources.signals) == (1, 3)


def test_signals_of_a_device_that_is_not_known_are_forgotten_already() -> None:
    sources = Sources(BrainstemSettings())
    sources.forget_signals("b1")
    assert len(sources) == 0


def test_a_window_that_holds_nothing_tells_nothing() -> None:
    stream = Stream("somatic", historical=False)
    window = stream.start(1_500, 1_000)
    assert stream.find(999) is None
    stream.end(window)
    assert stream.summary(window, Shape(1_000, 1_000)) is None


MOMENTS = st.tuples(st.integers(0, 5_000), st.sampled_from([100, 300, 1_000]))


@given(st.lists(MOMENTS, min_size=1, max_size=40))
def test_windows_of_any_lengths_hold_every_moment_once(moments: list[tuple[int, int]]) -> None:
    stream = Stream("somatic", historical=False)
    for event_ms, hop_ms in moments:
        window = stream.find(event_ms) or stream.start(event_ms, hop_ms)
        assert window.opens_ms <= event_ms < window.end_ms
        assert window.end_ms - window.opens_ms <= hop_ms or stream.find(event_ms) is window
    spans = sorted((window.opens_ms, window.end_ms) for window in stream.open)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


def test_a_first_number_older_than_a_word_changes_nothing() -> None:
    signal = Signal("b1", ("button", "", ("room", "r"), False), 1_000)
    signal.take("held", NOW_MS)
    assert signal.take_number(5, NOW_MS - 1) == (False, 0.0)
    assert (signal.last, signal.average) == ("held", None)
    assert signal.take_number(5, NOW_MS + 1) == (True, 0.0)
    assert (signal.last, signal.average) == (5, 5.0)


def test_merging_keeps_at_most_eight_words() -> None:
    parts = []
    for half in range(2):
        statistics = Statistics(Signal("b1", ("button", "", ("room", "r"), False), 1_000), 0)
        for number in range(6):
            statistics.take(f"{half}{number}", half * 10 + number)
        parts.append(statistics)
    merged = Statistics.over(parts).histogram
    assert merged is not None
    assert len(merged) == HISTOGRAM_WORDS


def summary(start_ms: int, length_ms: int = 1_000, salience: float = 0.9) -> Summary:
    return Summary(start_ms, start_ms + length_ms, False, [], [], salience, 1.0)  # noqa: FBT003 - not critical


@pytest.mark.req("S1-42")
def test_what_is_salient_at_one_time_is_one_episode() -> None:
    settings = BrainstemSettings(correlate_gap_ms=500, correlate_longest_ms=5_000)
    episodes, ids = Episodes(), iter("abcdefgh")

    def join(start_ms: int, salience: float = 0.9) -> str | None:
        return episodes.join(summary(start_ms, salience=salience), settings, lambda: next(ids))

    assert join(10_000) == "a"
    assert join(10_300) == "a"
    assert join(9_600) == "a"
    assert join(11_700) == "a"
    assert join(11_700, 0.4) is None
    assert join(13_300) == "b"  # more than the gap after 12 700
    assert join(11_800) == "b"  # touches it from before
    assert join(9_000) == "c"  # long before
    for start_ms in (10_000, 11_000, 12_000, 13_000):
        assert join(start_ms) == "c"
    assert join(14_000) == "d"  # would last longer than allowed


@pytest.mark.req("S1-42")
def test_bundles_of_several_channels_of_a_scope_share_their_correlation() -> None:
    core = brainstem(lateness_ms=0)
    urgent = core.step(
        afferent(ON, NOW_MS + 900, sensor="motion", priority="critical"), NOW_MS + 900
    )
    effects = bundles(urgent)
    core.step(afferent(90, NOW_MS + 950, sensor="sound_level", priority="critical",
                       scope="attic"), NOW_MS + 950)  # fmt: skip
    effects += bundles(core.step(
        afferent(90, NOW_MS + 950, sensor="sound_level", priority="critical"), NOW_MS + 950
    ))  # fmt: skip
    core.step(afferent(20, NOW_MS + 960), NOW_MS + 960)
    dull = bundles(core.tick(NOW_MS + 1_000))
    assert [bundle.payload.channel for bundle in effects] == ["visual_orient", "auditory"]
    (shared,) = {bundle.payload.correlation_id for bundle in effects}
    assert shared is not None
    assert [b.payload.correlation_id for b in dull] == [None]
    other = bundles(core.step(
        afferent(ON, NOW_MS + 1_100, sensor="motion", priority="critical", scope="attic"),
        NOW_MS + 1_100,
    ))  # fmt: skip
    assert other[0].payload.correlation_id not in {None, shared}


def flooded(flood: int, **fields: Any) -> dict[str, list[Any]]:
    """The bundles of the kitchen and the attic, one sample a device and flood times as many."""
    core = brainstem(source_rate=10_000, scope_rate=100, scope_burst=100, device_limit=50)
    effects = []
    for number in range(50):
        now_ms = NOW_MS + number * 10
        for turn in range(flood):
            event = afferent(turn, now_ms, scope="attic", device=f"a{turn % 5}", **fields)
            effects += core.step(event, now_ms)
        effects += core.step(afferent(number, now_ms, device=f"b{number % 5}"), now_ms)
    effects += core.tick(NOW_MS + 1_250)
    found: dict[str, list[Any]] = {"kitchen": [], "attic": []}
    for bundle in bundles(effects):
        found[bundle.meta.scope].append(bundle.payload.model_copy(update={"correlation_id": None}))
    # A burst of 100, and what its rate gives back in half a second.
    assert 50 * flood - core.intake.over_scope_rate <= 150
    return found


@pytest.mark.req("S1-2", "S4-57")
def test_a_flood_in_one_room_changes_nothing_in_another() -> None:
    calm, flood = flooded(1), flooded(40)
    assert flood["kitchen"] == calm["kitchen"] != []
    (drowned,) = flood["attic"]
    assert drowned.confidence < 0.2
    assert sum(feature.count for feature in drowned.summary_features) < 200
