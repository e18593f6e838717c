"""Brainstem: what becomes of afferents."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.plane_inputs import NOW_MS, afferent, gate, judged, reflex_fire, status
from nervus.brainstem import Brainstem, BrainstemSettings
from nervus.wire import (
    Connected,
    Hold,
    Mint,
    Publish,
    Rejected,
    Release,
    Removed,
    encode,
    topics,
)
from nervus.wire.contracts import RelayBundle

END_MS = NOW_MS + 1_000
ON, OFF = True, False


def brainstem(**settings: Any) -> Brainstem:
    """One that waits for nobody and is not aroused: both have tests of their own."""
    settings = {"lateness_ms": 0, "arousal_gain": 0} | settings
    return Brainstem(BrainstemSettings(**settings), Mint("brainstem", "brainstem", seed=1, boot=1))


def fed(core: Brainstem, *values: Any, **fields: Any) -> list[Any]:
    return [
        effect
        for n, value in enumerate(values)
        for effect in core.step(afferent(value, NOW_MS + n, **fields), NOW_MS + n)
    ]


def bundles(effects: Iterable[Any]) -> list[Any]:
    return [e for e in effects if isinstance(e, Publish) and isinstance(e.message, RelayBundle)]


def only_feature(effects: list[Any]) -> Any:
    (publish,) = bundles(effects)
    (feature,) = publish.message.payload.summary_features
    return feature


@pytest.mark.req("S1-1", "S1-3", "S1-7", "S1-34", "S1-40", "S1-41", "S1-61", "S1-62", "S1-64")
def test_a_window_of_numbers_becomes_one_bundle_of_statistics() -> None:
    core = brainstem()
    assert fed(core, 20, 22, 22, 24.5, unit="Cel") == []
    (publish,) = core.tick(END_MS)
    assert publish.address.topic == "/bs/relay/event/room/kitchen/channel/somatic"
    payload = publish.message.payload
    assert payload.window_ms == 1_000
    assert payload.window_start == "2026-09-21T14:13:20.000Z"
    (feature,) = payload.summary_features
    assert (feature.sensor_type, feature.device_id, feature.unit) == ("temperature", "b1", "Cel")
    assert (feature.count, feature.min, feature.max, feature.last) == (4, 20, 24.5, 24.5)
    assert feature.mean == pytest.approx(22.125)
    assert 20 <= feature.moving_average <= 24.5
    assert (feature.rate, feature.changes) == (4, 2)


@pytest.mark.req("S1-35", "S1-36", "S1-37", "S1-38", "S1-44", "S1-68")
def test_a_bundle_passes_the_guard_of_the_core_broker_and_lives_a_few_seconds() -> None:
    core = brainstem(bundle_ttl_ms=5_000)
    fed(core, 21)
    fed(core, 50, sensor="humidity", device="b2")
    (publish,) = core.tick(END_MS)
    accepted = judged(publish, END_MS)
    assert accepted.message.meta.source == "brainstem"
    assert accepted.message.payload.sources == ["b1", "b2"]
    assert accepted.left_ms == 5_000
    assert (publish.qos, publish.on) == (0, "core")


def test_each_bundle_begins_a_trace() -> None:
    core = brainstem()
    fed(core, 21)
    (first,) = core.tick(END_MS)
    core.step(afferent(21, END_MS), END_MS)
    (second,) = core.tick(END_MS + 1_000)
    assert first.message.meta.trace_id != second.message.meta.trace_id


@pytest.mark.req("S1-2", "S1-63", "S1-65")
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_however_much_comes_a_window_is_one_bundle_and_counts_all(values: list[float]) -> None:
    core = brainstem()
    assert fed(core, *values) == []
    feature = only_feature(core.tick(END_MS))
    assert feature.count == len(values)
    assert feature.min == min(values)
    assert feature.max == max(values)
    assert feature.min <= feature.mean <= feature.max
    assert feature.mean == pytest.approx(sum(values) / len(values), rel=1e-6, abs=1e-6)


@given(st.lists(st.sampled_from([1.7e308, -1.7e308, 0.0]), min_size=1, max_size=8))
def test_the_largest_doubles_do_not_overflow(values: list[float]) -> None:
    core = brainstem()
    fed(core, *values)
    assert only_feature(core.tick(END_MS)).count == len(values)
    assert judged(brainstem_bundle(core), END_MS + 2_000)


def brainstem_bundle(core: Brainstem) -> Publish:
    core.step(afferent(1.7e308, END_MS + 1_000), END_MS + 1_000)
    (publish,) = bundles(core.tick(END_MS + 2_000))
    assert isinstance(publish, Publish)
    return publish


def test_booleans_and_text_are_changes_and_the_last_value() -> None:
    core = brainstem()
    fed(core, OFF, ON, ON, OFF, sensor="door")
    feature = only_feature(core.tick(END_MS))
    assert (feature.count, feature.changes, feature.last) == (4, 2, False)
    assert feature.min is feature.mean is feature.moving_average is None


def test_changes_are_seen_across_windows() -> None:
    core = brainstem()
    fed(core, ON, sensor="door")
    core.tick(END_MS)
    core.step(afferent(OFF, END_MS, sensor="door"), END_MS)
    assert only_feature(core.tick(END_MS + 1_000)).changes == 1


def test_an_object_becomes_a_feature_for_each_member() -> None:
    core = brainstem()
    fed(core, {"x": 1, "y": -2.5}, sensor="distance")
    (publish,) = core.tick(END_MS)
    found = {f.sensor_type: f.last for f in publish.message.payload.summary_features}
    assert found == {"distance:x": 1, "distance:y": -2.5}


@pytest.mark.parametrize("member", ["m" * 60, "new\nline"])
def test_a_member_that_cannot_name_a_feature_is_refused(member: str) -> None:
    (rejected,) = fed(brainstem(), {member: 1}, sensor="distance")
    assert rejected.reason_code == "schema_invalid"


@pytest.mark.req("S1-29")
def test_a_sensor_type_without_a_channel_is_refused() -> None:
    core = brainstem()
    (rejected,) = fed(core, 1, sensor="phlogiston")
    assert isinstance(rejected, Rejected)
    assert (rejected.reason_code, rejected.source) == ("unknown_channel", "device:b1")
    assert core.tick(END_MS) == []


def test_scopes_and_channels_have_windows_of_their_own() -> None:
    core = brainstem()
    fed(core, 21)
    fed(core, 22, scope="attic")
    fed(core, 400, sensor="illuminance")
    assert {publish.address.topic for publish in core.tick(END_MS)} == {
        "/bs/relay/event/room/kitchen/channel/somatic",
        "/bs/relay/event/room/attic/channel/somatic",
        "/bs/relay/event/room/kitchen/channel/visual_orient",
    }


def test_a_window_closes_when_the_next_message_comes_late() -> None:
    core = brainstem()
    fed(core, 21)
    (publish,) = core.step(afferent(22, END_MS + 300), END_MS + 300)
    assert publish.message.payload.summary_features[0].last == 21


@pytest.mark.req("S1-68")
@pytest.mark.parametrize("priority", ["critical", "control"])
def test_an_urgent_afferent_closes_its_window_at_once(priority: str) -> None:
    core = brainstem()
    fed(core, OFF, sensor="motion")
    event = afferent(ON, NOW_MS + 40, sensor="motion", priority=priority)
    (publish,) = bundles(core.step(event, NOW_MS + 40))
    payload = publish.message.payload
    assert (publish.message.meta.priority, publish.qos) == ("critical", 1)
    assert (payload.window_ms, payload.salience) == (40, 1)
    assert payload.summary_features[0].count == 2
    assert core.tick(END_MS) == []


def test_what_follows_an_urgent_afferent_is_the_rest_of_its_window() -> None:
    core = brainstem()
    core.step(afferent(ON, NOW_MS + 40, sensor="motion", priority="critical"), NOW_MS + 40)
    core.step(afferent(OFF, NOW_MS + 60, sensor="motion"), NOW_MS + 60)
    (publish,) = core.tick(END_MS)
    assert (publish.message.meta.priority, publish.message.payload.window_ms) == ("normal", 960)


@pytest.mark.req("S1-65")
def test_sustained_urgency_is_capped_but_stays_critical() -> None:
    core = brainstem(urgent_rate=1, urgent_burst=2)
    effects = bundles(fed(core, *[True, False] * 10, sensor="motion", priority="critical"))
    assert len(effects) == 2
    assert core.intake.over_urgent_rate == 18
    publish, released = core.tick(END_MS)
    assert publish.message.meta.priority == "critical"
    assert publish.message.payload.summary_features[0].count == 18
    assert isinstance(released, Release)


def test_what_is_urgent_and_waits_for_its_window_is_held_until_that_is_told() -> None:
    core = brainstem(urgent_rate=0.001, urgent_burst=1)
    effects = fed(core, ON, OFF, ON, sensor="motion", priority="critical")
    assert len(bundles(effects)) == 1
    assert [e for e in effects if not isinstance(e, Publish)] == [Hold(1), Hold(1)]
    # Another board's cuts their window short: what was held goes with it.
    effects = fed(core, ON, device="b2", sensor="motion", priority="critical")
    (bundle,) = bundles(effects)
    assert sum(each.count for each in bundle.message.payload.summary_features) == 3
    assert effects[-1] == Release(1)
    assert fed(core, OFF, sensor="motion", priority="critical")[-1] == Hold(2)
    assert core.tick(END_MS)[-1] == Release(2)


def test_nothing_but_what_is_urgent_is_held() -> None:
    core = brainstem(urgent_rate=0.001, urgent_burst=1)
    assert fed(core, 20, 21) == []
    assert fed(core, 22, historical=True) == []
    assert fed(core, 23, historical=True, priority="critical") == [Hold(1)]
    assert fed(core, 24, quality="bad", priority="critical") == [Hold(2)]
    assert core.tick(END_MS)[-1] == Release(1)


@pytest.mark.req("S1-2", "S1-4")
def test_a_source_above_its_rate_is_refused_and_costs_confidence() -> None:
    core = brainstem(source_rate=1, source_burst=5)
    effects = fed(core, *range(20))
    assert Counter(effect.reason_code for effect in effects) == {"queue_full": 15}
    fed(core, 1, device="b2")
    (publish,) = core.tick(END_MS)
    counts = {f.device_id: f.count for f in publish.message.payload.summary_features}
    assert counts == {"b1": 5, "b2": 1}
    assert publish.message.payload.confidence == pytest.approx(6 / 21)


def test_a_source_may_send_again_after_a_while() -> None:
    core = brainstem(source_rate=1, source_burst=1)
    assert len(fed(core, 1, 2)) == 1
    later = NOW_MS + 1_500
    effects = core.step(afferent(4, later), later)
    assert not any(isinstance(effect, Rejected) for effect in effects)


def test_what_is_refused_opens_no_window() -> None:
    core = brainstem(source_rate=0.001, source_burst=1)
    fed(core, 1)
    core.tick(END_MS)
    (rejected,) = core.step(afferent(2, END_MS + 1), END_MS + 1)
    assert rejected.reason_code == "queue_full"
    assert core.tick(END_MS + 2_000) == []


def test_bad_samples_enter_no_statistics() -> None:
    core = brainstem()
    fed(core, 21)
    fed(core, -999, quality="bad")
    fed(core, 22, quality="uncertain")
    (publish,) = core.tick(END_MS)
    (feature,) = publish.message.payload.summary_features
    assert (feature.count, feature.min) == (2, 21)
    assert publish.message.payload.confidence == pytest.approx(1.5 / 3)
    assert core.intake.bad_quality == 1


def test_a_window_of_bad_samples_says_nothing() -> None:
    core = brainstem()
    fed(core, -999, -999, quality="bad")
    assert core.tick(END_MS) == []


def test_the_usual_is_dull_and_the_unusual_salient() -> None:
    core = brainstem()
    for second in range(20):
        now_ms = NOW_MS + second * 1_000
        core.step(afferent(21 + second % 2 / 10, now_ms), now_ms)
    (dull,) = core.tick(NOW_MS + 20_000)
    core.step(afferent(35, NOW_MS + 20_000), NOW_MS + 20_000)
    (salient,) = bundles(core.tick(NOW_MS + 21_000))
    assert dull.message.payload.salience < 0.5
    assert salient.message.payload.salience > 0.99


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_salience_and_confidence_stay_between_0_and_1(values: list[bool]) -> None:
    core = brainstem()
    fed(core, *values, sensor="motion")
    (publish,) = core.tick(END_MS)
    assert 0 <= publish.message.payload.salience <= 1
    assert publish.message.payload.confidence == 1


def test_what_was_measured_long_ago_has_bundles_of_its_own() -> None:
    core = brainstem()
    fed(core, 21)
    fed(core, 5, historical=True)
    live, old = sorted(core.tick(END_MS), key=lambda p: bool(p.message.meta.historical))
    assert live.message.payload.summary_features[0].moving_average == 21
    assert old.message.meta.historical is True
    assert old.message.payload.summary_features[0].last == 5


@pytest.mark.req("S1-45")
def test_a_crowded_window_is_split_within_the_caps() -> None:
    core = brainstem()
    for n in range(100):
        fed(core, "ü" * 60, device=f"d{n}-" + "x" * 55, sensor="button")
    parts = core.tick(END_MS)
    assert len(parts) > 1
    for publish in parts:
        assert len(encode(publish.message)) <= topics.RELAY_BUNDLE.max_bytes
        assert len(publish.message.payload.summary_features) <= 64
        assert judged(publish, END_MS)
    found = [f.device_id for p in parts for f in p.message.payload.summary_features]
    assert len(found) == len(set(found)) == 100
    assert len({publish.message.meta.trace_id for publish in parts}) == 1


def test_scopes_are_bounded() -> None:
    core = brainstem(scope_limit=2)
    effects = [fed(core, 1, scope=f"room{n}") for n in range(4)]
    assert [len(refused) for refused in effects] == [0, 0, 1, 1]
    assert effects[2][0].reason_code == "queue_full"
    assert core.counters.crowded_scopes == 2


def test_signals_of_a_window_are_bounded() -> None:
    core = brainstem(window_signal_limit=2)
    effects = [fed(core, 1, device=f"d{n}") for n in range(3)]
    assert [len(refused) for refused in effects] == [0, 0, 1]
    assert fed(core, 2, device="d1") == []


def test_devices_and_signals_are_bounded() -> None:
    core = brainstem(device_limit=3, signal_limit=3)
    for n in range(10):
        fed(core, 1, device=f"d{n}")
    assert len(core._sources) == 3
    assert core._sources.signals == 3
    assert core._sources.evicted == 7


def test_a_device_that_goes_offline_leaves_no_average_behind() -> None:
    core = brainstem()
    fed(core, 100)
    fed(core, 100, device="b2")
    core.tick(END_MS)
    assert core.step(status("online", END_MS), END_MS) == []
    assert core.step(status("offline", END_MS), END_MS) == []
    assert core.counters.devices_offline == 1
    for device in ("b1", "b2"):
        core.step(afferent(20, END_MS + 100, device=device), END_MS + 100)
    (publish,) = bundles(core.tick(END_MS + 1_000))
    averages = {f.device_id: f.moving_average for f in publish.message.payload.summary_features}
    assert averages["b1"] == 20
    assert averages["b2"] > 90


def test_a_reflex_that_fired_is_counted() -> None:
    core = brainstem()
    assert core.step(reflex_fire(), NOW_MS) == []
    assert core.counters.reflex_fires == 1


def test_a_connection_and_a_removed_status_change_nothing() -> None:
    core = brainstem()
    assert core.step(Connected("spinal"), NOW_MS) == []
    assert core.step(Removed(topics.device_status("b1"), "spinal"), NOW_MS) == []


def test_another_contract_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="GateState"):
        brainstem().step(gate(0.5), NOW_MS)


def test_the_same_inputs_give_the_same_bytes() -> None:
    events = [afferent(n, NOW_MS + n, device=f"d{n % 7}") for n in range(50)]

    def outputs() -> list[bytes]:
        core = brainstem()
        effects = [e for n, event in enumerate(events) for e in core.step(event, NOW_MS + n)]
        return [encode(e.message) for e in effects + core.tick(END_MS)]

    assert outputs() == outputs() != []
