"""Brainstem's place in the design: what it takes, what it says, what it keeps."""

import json
import re

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from hub.brainstem_inputs import brainstem, bundles, mode_update, parameter, trigger
from hub.plane_inputs import NOW_MS, afferent, bundle, gate, judged
from nervus import resources
from nervus.brainstem import BrainstemSettings
from nervus.brainstem.machine import FROM_PARTS, TAKES, build
from nervus.bus import Origin
from nervus.wire import Accepted, Packet, Publish, Rejected, encode, registries, topics, unix_ms
from nervus.wire.acl import lines
from nervus.wire.contracts import RelayBundle
from nervus.wire.topics import TOPICS

SCHEMAS = resources.find("schemas")
ON = True


def machine() -> object:
    origin = Origin(seed=1, boot=1, house="home")
    return build(BrainstemSettings(), origin, lambda _: "room/kitchen")


def verdict_of_its_guard(accepted: Accepted) -> object:
    packet = Packet(
        accepted.broker, accepted.address.topic, encode(accepted.message),
        accepted.address.spec.retained,
    )  # fmt: skip
    return machine().guard.judge(packet, NOW_MS)  # type: ignore[attr-defined]


@pytest.mark.req("S1-11", "S1-12", "S1-13")
def test_its_guard_takes_what_the_design_lets_in() -> None:
    for event in (afferent(20), trigger(), mode_update("night"), parameter(2_000)):
        assert isinstance(verdict_of_its_guard(event), Accepted)


@pytest.mark.req("S1-14", "S1-16")
def test_its_guard_takes_neither_bundles_nor_gates() -> None:
    # Brainstems that work together would be a MAY of the design; shards by scope need no such talk.
    for event in (bundle(), gate(0.5)):
        verdict = verdict_of_its_guard(event)
        assert isinstance(verdict, Rejected)
        assert verdict.reason_code == "contract_not_allowed"


@pytest.mark.req("S1-11")
def test_what_it_reads_of_boards_it_reads_on_the_spinal_broker_alone() -> None:
    assert all("spinal" in spec.brokers for spec in TAKES)
    assert topics.AFFERENT.brokers == ("spinal",)
    assert not any(spec.template.startswith("/sc/") for spec in FROM_PARTS)
    allowed = [line for line in lines("brainstem", "brainstem", None, "core") if " read " in line]
    assert {f"topic read {spec.filter()}" for spec in FROM_PARTS} <= set(allowed)


@pytest.mark.req("S0-12", "S1-67")
def test_upward_it_writes_only_bundles_patterns_and_what_is_global() -> None:
    written = {
        spec.name for spec in TOPICS if "brainstem" in spec.publishers("core")
        and "core" in spec.brokers
    }  # fmt: skip
    assert written == {
        "relay_bundle", "pattern_request", "global_alert", "global_arousal", "global_alert_event",
        "reject",
    }  # fmt: skip
    content = {spec.name for spec in TOPICS if spec.contract == "RelayBundle"} & written
    assert content == {"relay_bundle"}


@pytest.mark.req("S1-9")
def test_it_keeps_no_plans_when_all_it_knew_has_passed() -> None:
    core = brainstem()
    core.step(afferent(ON, sensor="motion", priority="critical"), NOW_MS)
    core.step(trigger(), NOW_MS)
    core.step(mode_update("night"), NOW_MS)
    core.step(parameter(2_000), NOW_MS)
    said = [e for minute in range(20) for e in core.tick(NOW_MS + minute * 60_000)]
    assert said
    assert core.tick(NOW_MS + 10**9) == []
    assert len(core._agenda) == len(core._patterns) == len(core._scopes) == 0


@pytest.mark.req("S1-39", "S1-43")
def test_a_bundle_says_when_it_was_made_and_how_much_it_means() -> None:
    core = brainstem(lateness_ms=0)
    for number in range(4):
        quality = "uncertain" if number else "good"
        core.step(afferent(20, NOW_MS + number, quality=quality), NOW_MS + number)
    (publish,) = core.tick(NOW_MS + 1_000)
    assert isinstance(publish, Publish)
    message = judged(publish, NOW_MS + 1_000).message
    assert unix_ms(message.meta.produced_at) == NOW_MS + 1_000
    assert message.payload.salience == 0
    assert message.payload.confidence == pytest.approx(2.5 / 4)
    text = json.loads(encode(message))
    for optional in ("salience", "confidence"):
        del text["payload"][optional]
    assert RelayBundle.model_validate(text)
    del text["meta"]["produced_at"]
    with pytest.raises(ValidationError, match="produced_at"):
        RelayBundle.model_validate(text)


@pytest.mark.req("S1-75", "S1-77")
def test_registries_name_what_there_is() -> None:
    form = json.loads((SCHEMAS / "registries/registry.schema.json").read_text())
    for name in ("channels", "sensor_types", "patterns", "modes", "states"):
        Draft202012Validator(form).validate(
            json.loads((SCHEMAS / f"registries/{name}.json").read_text())
        )
    sensors = registries.sensor_channels()
    for pattern, entry in registries.patterns().items():
        assert entry["triggers"], pattern
        assert {line["sensor_type"] for line in entry["when"]} <= set(sensors)
    states = registries.names("states")
    assert {entry.get("state", "normal") for entry in registries.modes().values()} <= states


@pytest.mark.req("S1-76")
def test_the_readme_states_the_invariants_and_every_setting() -> None:
    text = (resources.find("schemas").parent / "hub/nervus/brainstem/README.md").read_text()
    assert "Raw never goes up" in text
    named = set(re.findall(r"`([a-z_]+)`", text))
    assert set(BrainstemSettings.model_fields) <= named


@pytest.mark.req("S0-12", "S1-34")
def test_it_says_less_than_it_hears() -> None:
    core = brainstem()
    heard, said = 0, []
    for tenth in range(300):
        now_ms = NOW_MS + tenth * 100
        for sensor, value in (("temperature", 20 + tenth % 3), ("sound_level", 40), ("door", ON)):
            said += core.step(afferent(value, now_ms, sensor=sensor), now_ms)
            heard += 1
    assert len(bundles(said)) <= 2 * 30
    assert len(said) < heard / 5
