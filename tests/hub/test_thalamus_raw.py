"""Raw that rises: only what was opened, capped, gated like everything else, and not for long."""

from typing import Any

import pytest

from hub.plane_inputs import NOW_MS, afferent, gate, gate_address, judged
from hub.test_thalamus_relay import decisions, relayed
from nervus.thalamus import RawRelay, RawSettings, ThalamusSettings
from nervus.wire import Connected, Mint, Rejected
from nervus.wire.raw import RawGrant

KITCHEN = "/sc/aff/event/room/kitchen/sensor/temperature"


def grant(prefix: str = KITCHEN, *, name: str = "g", rate: int = 100, ms: int = 60_000) -> RawGrant:
    return RawGrant(
        id=name, topic_prefix=prefix, rate=rate, expires_ms=NOW_MS + ms, decision_id="d"
    )


def raw(*grants: RawGrant, **settings: Any) -> RawRelay:
    table = ThalamusSettings(**{"gatekeeper": False} | settings)
    mint = Mint("raw", "thalamus", seed=1, boot=1)
    return RawRelay(RawSettings.of(table, grants), mint, "home")


def refusals(effects: Any) -> list[str]:
    return [each.reason_code for each in effects if isinstance(each, Rejected)]


@pytest.mark.req("S2-29")
def test_a_granted_measurement_becomes_a_message_of_the_one_gated_stream() -> None:
    core = raw(grant())
    event = afferent(21.5, NOW_MS - 40, unit="Cel", t_ms=NOW_MS - 40, clk="hub")
    effects = core.step(event, NOW_MS)
    (publish,) = relayed(effects)
    assert publish.address.topic == "/th/relay/event/room/kitchen/channel/somatic"
    meta, payload = publish.message.meta, publish.message.payload
    assert (meta.source, meta.principal) == ("raw", "device:b1")
    assert meta.parent_id == event.message.meta.message_id
    assert meta.ttl_ms == 9_960
    assert (payload.window_ms, payload.sources) == (0, ["b1"])
    assert payload.window_start.endswith(":19.960Z")
    (feature,) = payload.summary_features
    assert (feature.sensor_type, feature.device_id, feature.unit) == ("temperature", "b1", "Cel")
    assert (feature.count, feature.last, feature.min, feature.max, feature.mean) == (
        1, 21.5, 21.5, 21.5, 21.5,
    )  # fmt: skip
    judged(publish, NOW_MS)
    (decision,) = decisions(effects)
    assert decision.input_ref.source_topic == event.address.topic
    assert decision.input_ref.contract == "AfferentSignal"
    assert decision.input_ref.source == "device:b1"
    assert core.counters.taken == 1


@pytest.mark.parametrize(
    ("value", "names"),
    [(True, ["temperature"]), ("warm", ["temperature"]), ({"a": 1, "b": "x"}, ["a", "b"])],
)
def test_every_form_of_a_value_rises(value: Any, names: list[str]) -> None:
    (publish,) = relayed(raw(grant()).step(afferent(value, quality="uncertain"), NOW_MS))
    features = publish.message.payload.summary_features
    assert [each.sensor_type.rpartition(":")[2] for each in features] == names
    given = list(value.values()) if isinstance(value, dict) else [value]
    assert [each.last for each in features] == given
    assert [each.mean for each in features] == [1 if each == 1 and each is not True else None
                                                for each in given]  # fmt: skip
    assert publish.message.payload.confidence == 0.5


@pytest.mark.req("S2-29", "S0-13")
@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"sensor": "humidity"}, KITCHEN),
        ({"scope": "hall"}, KITCHEN),
        ({"device": "b2"}, f"{KITCHEN}/device/b1"),
        ({"device": "b12"}, f"{KITCHEN}/device/b1"),
    ],
)
def test_what_was_not_opened_is_refused(asked: dict[str, Any], given: str) -> None:
    core = raw(grant(given))
    effects = core.step(afferent(21, **asked), NOW_MS)
    assert refusals(effects) == ["contract_not_allowed"]
    assert relayed(effects) == []
    assert core.counters.ungranted == 1
    assert len(relayed(core.step(afferent(22, device="b1"), NOW_MS))) == 1


@pytest.mark.req("S2-29")
@pytest.mark.parametrize("priority", ["normal", "critical"])
def test_above_its_rate_nothing_rises_not_even_what_is_critical(priority: str) -> None:
    core = raw(grant(rate=5), grant(KITCHEN.replace("kitchen", "hall"), name="h", rate=5))
    sent = [afferent(n, NOW_MS + n, priority=priority) for n in range(20)]
    effects = [each for event in sent for each in core.step(event, NOW_MS + 20)]
    assert len(relayed(effects)) == 5
    assert refusals(effects) == ["queue_full"] * 15
    assert core.counters.over_rate == 15
    # Another selector has its own, and this one has it again a second later.
    assert len(relayed(core.step(afferent(1, scope="hall"), NOW_MS + 20))) == 1
    later = [afferent(n, NOW_MS + 500 + n, priority=priority) for n in range(20)]
    again = [each for event in later for each in core.step(event, NOW_MS + 1_020)]
    assert len(relayed(again)) == 5


@pytest.mark.req("S2-29")
def test_it_ends_with_its_grant_and_so_does_what_was_relayed() -> None:
    core = raw(grant(ms=3_000))
    (publish,) = relayed(core.step(afferent(1), NOW_MS + 1_000))
    assert publish.message.meta.ttl_ms == 2_000
    effects = core.step(afferent(2, NOW_MS + 3_000), NOW_MS + 3_000)
    assert (relayed(effects), refusals(effects)) == ([], ["contract_not_allowed"])


@pytest.mark.req("S2-25", "S2-26", "S2-29", "S2-87")
@pytest.mark.parametrize(
    "target",
    [("topic_prefix", "/sc/aff/event"), ("topic_prefix", KITCHEN), ("channel", "somatic")],
    ids=lambda target: target[1],
)
def test_the_gates_of_its_prefix_and_its_channel_hold_for_raw(target: tuple[str, str]) -> None:
    core = raw(grant(), gatekeeper=True)
    core.step(gate(0, address=gate_address(target="visceral")), NOW_MS)
    core.step(gate(1, address=gate_address(*target)), NOW_MS)
    effects = core.step(afferent(1), NOW_MS)
    assert relayed(effects) == []
    assert decisions(effects)[0].reason_codes == ["gate", "inhibited"]
    core.step(gate(0, address=gate_address(*target)), NOW_MS)
    assert len(relayed(core.step(afferent(2, NOW_MS + 1), NOW_MS + 1))) == 1
    assert core.step(Connected("core"), NOW_MS + 1) == []


def test_without_a_living_gate_it_is_merged_like_everything_else() -> None:
    core = raw(grant(), gatekeeper=True)
    effects = [e for n in range(10) for e in core.step(afferent(n, NOW_MS + n), NOW_MS + 10)]
    assert len(relayed(effects)) == 1
    assert NOW_MS + 10 < core.due_ms <= NOW_MS + 1_010
    (merged,) = relayed(core.tick(NOW_MS + 1_011))
    (feature,) = merged.message.payload.summary_features
    assert (feature.count, feature.min, feature.max) == (9, 1, 9)


def test_what_has_no_channel_or_no_name_is_refused() -> None:
    odor = KITCHEN.replace("temperature", "odor")
    core = raw(grant(), grant(odor, name="o"))
    assert refusals(core.step(afferent(1, sensor="odor"), NOW_MS)) == ["unknown_channel"]
    assert refusals(core.step(afferent({"x" * 60: 1}), NOW_MS)) == ["unknown_channel"]
    assert core.counters.unknown == 2
