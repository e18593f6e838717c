"""The relay role: what becomes of driver messages."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.plane_inputs import (
    NOW_MS,
    afferent,
    bundle,
    bundle_payload,
    feature,
    gate,
    gate_address,
    judged,
)
from nervus.thalamus import Relay, ThalamusSettings
from nervus.wire import Connected, Mint, Publish, Rejected, Removed, encode, topics
from nervus.wire.contracts import RelayBundle, RouteDecision

LATER_MS = NOW_MS + 1_000


def relay(**settings: Any) -> Relay:
    table = ThalamusSettings(**{"gatekeeper": False} | settings)
    return Relay(table, Mint("relay", "thalamus", seed=1, boot=1), "home")


def relayed(effects: Any) -> list[Publish]:
    return [e for e in effects if isinstance(getattr(e, "message", None), RelayBundle)]


def decisions(effects: Any) -> list[Any]:
    return [
        e.message.payload for e in effects if isinstance(getattr(e, "message", None), RouteDecision)
    ]


def samples(effects: Any) -> int:
    return sum(f.count for e in relayed(effects) for f in e.message.payload.summary_features)


@pytest.mark.req("S2-4", "S2-13", "S2-16", "S2-33", "S2-61", "S2-67")
def test_without_a_gatekeeper_content_passes_unchanged() -> None:
    driver = bundle(
        bundle_payload(salience=0.5, confidence=1), trace_id="01J00000000000000000000001"
    )
    effects = relay().step(driver, NOW_MS + 100)
    (publish,) = relayed(effects)
    assert publish.address.topic == "/th/relay/event/room/kitchen/channel/somatic"
    assert publish.message.payload == driver.message.payload
    meta = publish.message.meta
    assert (meta.source, meta.parent_id) == ("relay", driver.message.meta.message_id)
    assert meta.message_id != meta.parent_id
    assert (meta.trace_id, meta.principal) == ("01J00000000000000000000001", "brainstem")
    assert meta.ttl_ms == 4_900
    assert judged(publish, NOW_MS + 100).left_ms == 4_900


@pytest.mark.req("S2-17", "S2-54", "S2-55", "S2-56", "S2-57", "S2-58", "S2-59", "S2-68")
def test_every_decision_is_told() -> None:
    driver = bundle()
    core = relay()
    core.step(gate(0.1), NOW_MS)
    effects = core.step(driver, NOW_MS)
    (decision,) = decisions(effects)
    assert decision.input_ref.message_id == driver.message.meta.message_id
    assert decision.input_ref.source_topic == driver.address.topic
    assert (decision.allowed, decision.decision) == (True, "pass")
    assert decision.effective_inhibition == 0.1
    assert decision.routed_to == ["/th/relay/event/room/kitchen/channel/somatic"]
    publish = effects[-1]
    assert publish.qos == 0
    assert judged(publish, NOW_MS)


@pytest.mark.req("S2-3", "S2-14", "S2-60", "S2-63", "S2-64", "S2-70", "S2-87")
def test_a_closed_gate_drops_until_it_opens() -> None:
    core = relay()
    core.step(gate(1), NOW_MS)
    effects = core.step(bundle(), NOW_MS)
    assert relayed(effects) == []
    (decision,) = decisions(effects)
    assert (decision.allowed, decision.decision, decision.routed_to) == (False, "drop", [])
    assert decision.reason_codes == ["gate", "inhibited"]
    core.step(gate(0, NOW_MS + 1), NOW_MS + 1)
    assert len(relayed(core.step(bundle(), NOW_MS + 2))) == 1


@pytest.mark.parametrize("priority", ["critical", "control"])
def test_critical_content_passes_a_closed_gate(priority: str) -> None:
    core = relay(gatekeeper=True)
    core.step(gate(1), NOW_MS)
    effects = core.step(bundle(priority=priority), NOW_MS)
    (publish,) = relayed(effects)
    assert (publish.qos, publish.message.meta.priority) == (1, priority)
    assert decisions(effects)[0].reason_codes == ["critical_bypass"]


@pytest.mark.req("S2-22", "S2-62")
@pytest.mark.parametrize(
    "address",
    [
        gate_address(),
        gate_address("nucleus", "VPL"),
        gate_address("topic_prefix", "/bs/relay"),
        gate_address("topic_prefix", "/bs/relay/event/"),
        gate_address(scope=("house", "home")),
        gate_address("nucleus", "VPL", ("house", "home")),
    ],
    ids=lambda address: "-".join(address.levels.values()),
)
def test_a_message_meets_the_gates_of_channel_nucleus_and_topic_up_to_the_house(
    address: Any,
) -> None:
    core = relay()
    core.step(gate(1, address=address), NOW_MS)
    assert relayed(core.step(bundle(), NOW_MS)) == []


@pytest.mark.req("S2-22")
@pytest.mark.parametrize(
    "address",
    [
        gate_address(target="auditory"),
        gate_address("nucleus", "LGN"),
        gate_address("topic_prefix", "/bs/rel"),
        gate_address(scope=("room", "attic")),
        gate_address(scope=("house", "other")),
        gate_address(scope=("device", "kitchen")),
    ],
    ids=lambda address: "-".join(address.levels.values()),
)
def test_a_message_does_not_meet_the_gates_of_others(address: Any) -> None:
    core = relay()
    core.step(gate(1, address=address), NOW_MS)
    assert len(relayed(core.step(bundle(), NOW_MS))) == 1


def test_a_message_of_the_house_meets_the_gates_of_the_house_alone() -> None:
    core = relay()
    core.step(gate(1), NOW_MS)
    assert len(relayed(core.step(bundle(scope=("house", "home")), NOW_MS))) == 1
    core.step(gate(1, address=gate_address(scope=("house", "home"))), NOW_MS)
    assert relayed(core.step(bundle(scope=("house", "home")), NOW_MS)) == []


def test_the_highest_gate_on_the_way_up_counts() -> None:
    core = relay(parents={"room/kitchen": "room/ground-floor"})
    core.step(gate(0.9, address=gate_address(scope=("room", "ground-floor"))), NOW_MS)
    core.step(gate(0, address=gate_address()), NOW_MS)
    core.step(gate(0.2, address=gate_address(scope=("house", "home"))), NOW_MS)
    (decision,) = decisions(core.step(bundle(), NOW_MS))
    assert decision.effective_inhibition == 0.9


@pytest.mark.req("S2-5", "S2-64")
def test_an_attenuating_gate_keeps_some_of_each_window() -> None:
    core = relay(attenuate_window_ms=1_000, attenuate_keep=2)
    core.step(gate(0.5), NOW_MS)
    effects = [e for n in range(5) for e in core.step(bundle(), NOW_MS + n)]
    assert len(relayed(effects)) == 2
    assert [d.allowed for d in decisions(effects)] == [True, True, False, False, False]
    assert {d.decision for d in decisions(effects)} == {"attenuate"}
    assert len(relayed(core.step(bundle(now_ms=LATER_MS), LATER_MS))) == 1


@pytest.mark.req("S2-5", "S2-64")
def test_an_aggregating_gate_sends_one_a_second_with_everything_in_it() -> None:
    core = relay()
    core.step(gate(0.9), NOW_MS)
    drivers = [bundle(now_ms=NOW_MS + n * 100) for n in range(10)]
    at_once = [e for n, d in enumerate(drivers) for e in core.step(d, NOW_MS + n * 100)]
    assert len(relayed(at_once)) == 1
    assert all(d.allowed and d.decision == "aggregate" for d in decisions(at_once))
    assert core.tick(NOW_MS + 999) == []
    (merged,) = core.tick(LATER_MS)
    assert samples(at_once) + samples([merged]) == 30
    meta = merged.message.meta
    assert meta.parent_id == drivers[1].message.meta.message_id
    assert merged.message.payload.input_refs == [d.message.meta.message_id for d in drivers[1:]]
    assert meta.trace_id == drivers[1].message.meta.trace_id
    assert meta.ttl_ms == 5_000 - 900
    assert judged(merged, LATER_MS)


def test_what_waits_goes_out_when_the_next_message_comes_late() -> None:
    core = relay()
    core.step(gate(0.9), NOW_MS)
    core.step(bundle(), NOW_MS)
    core.step(bundle(), NOW_MS + 1)
    effects = core.step(bundle(now_ms=LATER_MS + 5), LATER_MS + 5)
    assert len(relayed(effects)) == 1
    assert samples(effects) == 3


def test_what_would_expire_while_it_waits_is_dropped_and_told() -> None:
    core = relay()
    core.step(gate(0.9), NOW_MS)
    core.step(bundle(), NOW_MS)
    (decision,) = decisions(core.step(bundle(ttl_ms=1_000), NOW_MS))
    assert (decision.allowed, decision.reason_codes[-1]) == (False, "expires_waiting")
    assert core.counters.expired_waiting == 1
    assert core.tick(LATER_MS) == []


def test_what_expired_because_the_loop_stood_still_is_not_sent() -> None:
    core = relay()
    core.step(gate(0.9, lives_ms=60_000), NOW_MS)
    core.step(bundle(), NOW_MS)
    core.step(bundle(), NOW_MS)
    assert core.tick(NOW_MS + 5_001) == []
    assert core.counters.expired_waiting == 1


@pytest.mark.parametrize("difference", [{"priority": "background"}, {"historical": True}])
def test_what_may_not_share_an_envelope_is_not_merged(difference: dict[str, Any]) -> None:
    core = relay()
    core.step(gate(0.9), NOW_MS)
    for fields in ({}, difference):
        for _ in range(2):
            core.step(bundle(**fields), NOW_MS)
    merged = core.tick(LATER_MS)
    assert [samples([m]) for m in merged] == [3, 3]
    assert len({(m.message.meta.priority, m.message.meta.historical) for m in merged}) == 2


def test_windows_too_far_apart_are_not_merged() -> None:
    core = relay()
    core.step(gate(0.9), NOW_MS)
    core.step(bundle(), NOW_MS)
    core.step(bundle(), NOW_MS)
    effects = core.step(bundle(bundle_payload(start_ms=NOW_MS - 40 * 86_400_000)), NOW_MS)
    assert decisions(effects)[0].reason_codes == ["gate", "queue_full"]


def test_signals_of_a_merged_message_are_bounded() -> None:
    core = relay()
    core.step(gate(0.9), NOW_MS)
    core.step(bundle(), NOW_MS)
    effects = []
    for n in range(60):
        features = [feature(device=f"d{n}-{m}") for m in range(18)]
        effects += core.step(bundle(bundle_payload(*features)), NOW_MS)
    assert sum(not d.allowed for d in decisions(effects)) == 4
    merged = core.tick(LATER_MS)
    assert samples(merged) == 56 * 18
    for publish in merged:
        assert len(encode(publish.message)) <= topics.GATED_RELAY.max_bytes
        assert len(publish.message.payload.input_refs) == 56


def test_references_of_a_merged_message_are_bounded() -> None:
    core = relay()
    core.step(gate(0.9), NOW_MS)
    for _ in range(100):
        core.step(bundle(), NOW_MS)
    (merged,) = core.tick(LATER_MS)
    assert len(merged.message.payload.input_refs) == 64
    assert samples([merged]) == 99 * 3


def test_a_message_that_grows_beyond_its_cap_is_split() -> None:
    features = [feature(device=f"d{n}", last="y") for n in range(45)]
    for n in range(45):
        room = topics.RELAY_BUNDLE.max_bytes - len(
            encode(bundle(bundle_payload(*features)).message)
        )
        features[n] = features[n].model_copy(update={"last": "y" * min(64, room)})
    driver = bundle(bundle_payload(*features))
    assert len(encode(driver.message)) > topics.GATED_RELAY.max_bytes - 50
    parts = relayed(relay().step(driver, NOW_MS))
    assert len(parts) == 2
    assert samples(parts) == len(features)
    assert all(len(encode(p.message)) <= topics.GATED_RELAY.max_bytes for p in parts)


@pytest.mark.req("S2-71", "S2-72")
def test_an_expired_gate_never_suppresses() -> None:
    core = relay(gatekeeper=True)
    core.step(gate(1, lives_ms=2_000), NOW_MS)
    assert relayed(core.step(bundle(), NOW_MS + 1_999)) == []
    effects = core.step(bundle(now_ms=NOW_MS + 2_000), NOW_MS + 2_000)
    assert len(relayed(effects)) == 1
    (decision,) = decisions(effects)
    assert (decision.decision, decision.reason_codes) == ("aggregate", ["no_gate"])
    core.tick(NOW_MS + 4_000)
    assert len(core._gates) == 0


@pytest.mark.req("S2-71", "S2-72")
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5_000)), min_size=1, max_size=5),
    st.booleans(),
)
def test_after_the_last_gate_expired_everything_flows(gates: Any, gatekeeper: bool) -> None:  # noqa: FBT001  given by hypothesis
    core = relay(gatekeeper=gatekeeper)
    for inhibition, lives_ms in gates:
        core.step(gate(inhibition, lives_ms=lives_ms), NOW_MS)
    core.step(bundle(), NOW_MS)
    start_ms = NOW_MS + 5_001
    core.tick(start_ms)
    effects: list[Any] = []
    for n in range(20):
        now_ms = start_ms + n * 100
        effects += core.step(bundle(now_ms=now_ms), now_ms)
    effects += core.tick(start_ms + 3_000)
    assert samples(effects) == 60


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["b1", "b2"])), max_size=30),
    st.floats(0, 1),
)
def test_a_gate_never_passes_more_than_came(steps: Any, inhibition: float) -> None:
    core = relay()
    core.step(gate(inhibition, lives_ms=100_000), NOW_MS)
    now_ms, sent, effects = NOW_MS, 0, []
    for wait_ms, device in steps:
        now_ms += wait_ms
        sent += 2
        effects += core.step(bundle(bundle_payload(feature(2, device=device)), now_ms), now_ms)
    effects += core.tick(now_ms + 1_001)
    passed = samples(effects)
    assert passed <= sent
    if inhibition < 0.3 or 0.8 <= inhibition < 1:
        assert passed == sent
    if inhibition == 1:
        assert passed == 0
    if 0.8 <= inhibition < 1:
        assert len(relayed(effects)) <= (now_ms - NOW_MS) // 1_000 + 2


def test_gates_expire_one_by_one() -> None:
    core = relay()
    core.step(gate(1, lives_ms=1_000), NOW_MS)
    core.step(gate(1, address=gate_address(target="motor")), NOW_MS)
    core.tick(NOW_MS + 2_000)
    assert len(core._gates) == 1
    effects = core.step(bundle(bundle_payload(channel="motor"), NOW_MS + 2_000), NOW_MS + 2_000)
    assert relayed(effects) == []


def test_a_removed_gate_is_none() -> None:
    core = relay()
    core.step(gate(1), NOW_MS)
    core.step(Removed(gate_address(), "core"), NOW_MS)
    core.step(Removed(gate_address(), "core"), NOW_MS)
    assert len(relayed(core.step(bundle(), NOW_MS))) == 1


def test_a_gatekeeper_that_lost_its_lease_changes_nothing() -> None:
    core = relay()
    core.step(gate(0, epoch=5), NOW_MS)
    (rejected,) = core.step(gate(1, epoch=4), NOW_MS)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "epoch 4 was superseded by 5"
    assert len(relayed(core.step(bundle(), NOW_MS))) == 1
    assert core.step(gate(1, epoch=6), NOW_MS) == []
    assert relayed(core.step(bundle(), NOW_MS)) == []


@pytest.mark.req("S2-72")
def test_the_gates_of_a_gatekeeper_that_lost_its_lease_are_void() -> None:
    core = relay()
    core.step(gate(1, epoch=5), NOW_MS)
    core.step(gate(0, epoch=6, address=gate_address(target="auditory")), NOW_MS)
    assert len(core._gates) == 1
    assert len(relayed(core.step(bundle(), NOW_MS))) == 1
    # the order in which a broker sends retained states makes no difference
    assert isinstance(core.step(gate(1, epoch=5), NOW_MS)[0], Rejected)


def test_gates_are_bounded() -> None:
    core = relay(gate_limit=2)
    assert core.step(gate(1), NOW_MS) == []
    assert core.step(gate(1, address=gate_address(target="auditory")), NOW_MS) == []
    (rejected,) = core.step(gate(1, address=gate_address(target="visceral")), NOW_MS)
    assert rejected.reason_code == "queue_full"
    assert core.step(gate(0.5), NOW_MS) == []


def test_streams_are_bounded_and_forgotten_when_idle() -> None:
    core = relay(stream_limit=1, gatekeeper=True, attenuate_window_ms=1_000)
    core.step(bundle(), NOW_MS)
    (decision,) = decisions(core.step(bundle(scope=("room", "attic")), NOW_MS))
    assert decision.reason_codes == ["no_gate", "queue_full"]
    later = NOW_MS + 3_000
    assert len(relayed(core.step(bundle(now_ms=later, scope=("room", "attic")), later))) == 1


@pytest.mark.req("S2-66")
def test_the_winner_takes_all_of_a_scope_and_window() -> None:
    core = relay()
    for channel in ("somatic", "auditory", "visual_orient"):
        core.step(gate(0, address=gate_address(target=channel), mode="winner_take_all"), NOW_MS)
    effects: list[Any] = []
    for channel, salience in (("somatic", 0.2), ("auditory", 0.9), ("visual_orient", None)):
        payload = bundle_payload(channel=channel, salience=salience)
        effects += core.step(bundle(payload), NOW_MS)
        effects += core.step(bundle(payload), NOW_MS)
    assert effects + core.tick(NOW_MS + 999) == []
    effects = core.tick(LATER_MS)
    assert {p.address.levels["channel"] for p in relayed(effects)} == {"auditory"}
    assert len(relayed(effects)) == 2
    lost = [d for d in decisions(effects) if not d.allowed]
    assert len(lost) == 4
    assert {tuple(d.reason_codes) for d in lost} == {("gate", "outcompeted")}
    won = [d for d in decisions(effects) if d.allowed]
    assert {tuple(d.reason_codes) for d in won} == {("gate", "won")}


def test_critical_content_does_not_compete() -> None:
    core = relay()
    core.step(gate(0.5, mode="winner_take_all"), NOW_MS)
    assert len(relayed(core.step(bundle(priority="critical"), NOW_MS))) == 1


def test_what_expires_during_its_contest_is_not_sent() -> None:
    core = relay(contest_window_ms=2_000)
    core.step(gate(0, mode="winner_take_all"), NOW_MS)
    core.step(bundle(ttl_ms=500), NOW_MS)
    assert core.tick(NOW_MS + 1_000) == []
    effects = core.tick(NOW_MS + 2_000)
    assert relayed(effects) == []
    assert decisions(effects)[0].reason_codes[-1] == "expires_waiting"


def test_contests_of_two_scopes_end_each_in_its_time() -> None:
    core = relay(contest_window_ms=700)
    for scope, now_ms in ((("room", "kitchen"), NOW_MS), (("room", "attic"), NOW_MS + 900)):
        core.step(gate(0, address=gate_address(scope=scope), mode="winner_take_all"), NOW_MS)
        effects = core.step(bundle(now_ms=now_ms, scope=scope), now_ms)
    assert [p.address.levels["scope"] for p in relayed(effects)] == ["kitchen"]
    assert [p.address.levels["scope"] for p in relayed(core.tick(NOW_MS + 2_000))] == ["attic"]


def test_a_contest_is_bounded() -> None:
    core = relay()
    core.step(gate(0, mode="winner_take_all"), NOW_MS)
    effects = [e for _ in range(257) for e in core.step(bundle(), NOW_MS)]
    assert [d.reason_codes[-1] for d in decisions(effects)] == ["queue_full"]


@pytest.mark.req("S2-18")
def test_the_relay_publishes_nothing_but_relays_and_decisions() -> None:
    core = relay(gatekeeper=True)
    effects: list[Any] = [*core.step(Connected("core"), NOW_MS)]
    for inhibition in (0, 0.5, 0.9, 1):
        effects += core.step(gate(inhibition, mode="multi"), NOW_MS)
        effects += core.step(bundle(), NOW_MS)
    effects += core.tick(LATER_MS)
    assert {e.address.spec.name for e in effects} == {"gated_relay", "route_decision"}


def test_another_contract_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="AfferentSignal"):
        relay().step(afferent(1), NOW_MS)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ({"attenuate_from": 0.9}, "attenuate_from <= aggregate_from"),
        ({"parents": {"room/a": "room/b", "room/b": "room/a"}}, "is its own"),
        ({"parents": {"kitchen": "house/home"}}, "pattern"),
    ],
)
def test_settings_that_make_no_sense_are_refused(table: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ThalamusSettings(**table)
