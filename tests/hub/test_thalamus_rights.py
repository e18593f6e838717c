"""What thalamus may read and say, what of it others see, and that its README tells all of it."""

import re
from pathlib import Path

import pytest

import nervus.thalamus
from hub.plane_inputs import NOW_MS, bundle, bundle_payload, gate, gate_address, judged, proposal
from hub.test_thalamus_gatekeeper import Keeper
from hub.test_thalamus_relay import relay, relayed
from nervus.thalamus import machine
from nervus.wire import Guard, Mint, Packet, Rejected, encode, topics
from nervus.wire.acl import lines
from nervus.wire.contracts import (
    CONTRACTS,
    MediaEvent,
    MediaEventPayload,
    ModulatorSignal,
    ModulatorSignalPayload,
)
from nervus.wire.topics import ROLES

FOLDER = Path(nervus.thalamus.__file__).parent
TAKEN = (*machine.TAKES, *machine.GATEKEEPER_TAKES)
SAID = (topics.GATED_RELAY, topics.ROUTE_DECISION, topics.GATE_STATE)


def rights(role: str, broker: str, right: str) -> set[str]:
    """The filters that a role may read or write on a broker."""
    words = [line.split(" ", 2) for line in lines("x", role, None, broker)]
    return {each[2] for each in words if each[:2] == ["topic", right]}


def content(role: str) -> set[str]:
    """The topics of content that a role may read on the core broker."""
    specs = [spec for spec in topics.TOPICS if spec.contract in ("RelayBundle", "AfferentSignal")]
    return {spec.name for spec in specs if spec.filter() in rights(role, "core", "read")}


@pytest.mark.req("S2-1")
def test_the_readme_tells_every_module_topic_and_setting_of_thalamus() -> None:
    text = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"`(\w+)\.py`", text))
    assert {path.stem for path in FOLDER.glob("*.py")} - {"__init__"} <= named
    for spec in (*TAKEN, *SAID):
        assert spec.template.split("/{")[0] + "/" in text, spec.template


@pytest.mark.req("S2-29", "S2-78")
@pytest.mark.parametrize("role", ["relay", "gatekeeper"])
def test_thalamus_has_no_right_to_raw_content_to_media_or_to_act(role: str) -> None:
    for broker in ("spinal", "core"):
        for topic in rights(role, broker, "read"):
            assert not topic.startswith(("/sc/", "/C/")), topic
        for topic in rights(role, broker, "write"):
            assert topic.startswith(("/th/", "/X/")), topic


@pytest.mark.req("S2-29", "S2-78")
def test_an_event_of_a_camera_is_no_driver_and_no_proposal() -> None:
    payload = MediaEventPayload(event="motion", kind="camera", confidence=1)
    address = topics.media_event("room", "kitchen", "cam1", "camera")
    mint = Mint("device:cam1", "spinal", seed=1, boot=1)
    publish = mint.compact(MediaEvent, address, payload, NOW_MS, priority="critical")
    packet = Packet("core", address.topic, encode(publish.message))
    verdict = Guard(TAKEN).judge(packet, NOW_MS)
    assert isinstance(verdict, Rejected)
    assert verdict.reason_code in ("wrong_broker", "contract_not_allowed")


@pytest.mark.req("S2-34", "S2-88")
def test_one_stream_of_what_passed_the_gate_is_all_the_content_others_read() -> None:
    others = set(ROLES) - {"relay", "diagnostics", "history", "brainstem", "board"}
    assert {name for role in others for name in content(role)} == {"gated_relay"}
    assert content("consumer") == {"gated_relay"}
    stream = topics.GATED_RELAY.filter()
    writers = {r for r in ROLES if r != "board" and stream in rights(r, "core", "write")}
    assert writers == {"relay"}


@pytest.mark.req("S2-40")
@pytest.mark.parametrize("spec", [*TAKEN, *SAID], ids=lambda spec: spec.name)
def test_all_of_thalamus_contracts_have_meta_and_payload(spec: topics.TopicSpec) -> None:
    contract = CONTRACTS[spec.contract]
    assert set(contract.model_fields) == {"meta", "payload", "errors"}
    assert {n for n, f in contract.model_fields.items() if f.is_required()} == {"meta", "payload"}


@pytest.mark.req("S2-23", "S2-24")
@pytest.mark.parametrize(
    "scope",
    [("device", "b1"), ("room", "living_room"), ("house", "home"), ("user_session", "user:abc")],
    ids="-".join,
)
def test_a_selector_may_lie_on_any_level(scope: tuple[str, str]) -> None:
    core = relay()
    keeper = Keeper()
    keeper.step(proposal("set_inhibition", 1, scope=scope))
    (publish,) = [p for p in keeper.published if p.message.payload.target_kind == "channel"]
    assert publish.address == gate_address(scope=scope)
    core.step(judged(publish, NOW_MS), NOW_MS)
    assert relayed(core.step(bundle(scope=scope), NOW_MS)) == []


@pytest.mark.req("S2-25", "S2-26")
@pytest.mark.parametrize(
    ("kind", "target", "level"),
    [
        ("channel", "auditory", "auditory"),
        ("nucleus", "LGN", "LGN"),
        ("topic_prefix", "/sc/aff/event", "%2Fsc%2Faff%2Fevent"),
    ],
)
def test_a_target_is_a_channel_a_nucleus_or_a_topic_prefix(
    kind: str, target: str, level: str
) -> None:
    keeper = Keeper()
    keeper.step(proposal("set_inhibition", 1, target=(kind, target)))
    (publish,) = [p for p in keeper.published if "kitchen" in p.address.topic]
    assert publish.address.topic == f"/th/gate/state/room/kitchen/target/{kind}/{level}"
    payload = judged(publish, NOW_MS).message.payload
    assert (payload.target_kind, payload.target_id) == (kind, target)


def test_a_target_of_another_kind_is_refused() -> None:
    event = proposal("suppress", 1)
    text = encode(event.message).replace(b'"channel"', b'"mood"')
    topic = event.address.topic.replace("target/channel", "target/mood")
    verdict = Guard(TAKEN).judge(Packet("core", topic, text), NOW_MS)
    assert isinstance(verdict, Rejected)
    assert verdict.reason_code == "schema_invalid"


@pytest.mark.req("S2-47")
@pytest.mark.parametrize("why", [{}, {"reason_codes": ["quiet", "sleep"], "reason": "They sleep."}])
def test_a_proposal_may_say_why(why: dict[str, object]) -> None:
    payload = ModulatorSignalPayload(
        target_kind="channel", target_id="somatic", intent="set_inhibition", inhibition=1, **why
    )  # type: ignore[arg-type]
    address = topics.modulator_signal("room", "kitchen", "channel", "somatic")
    mint = Mint("mod", "consumer", seed=1, boot=1)
    keeper = Keeper()
    keeper.step(judged(mint.full(ModulatorSignal, address, payload, NOW_MS), NOW_MS))
    assert keeper.inhibition() == 1
    assert keeper.rejected == []


@pytest.mark.req("S2-6", "S2-7", "S2-84", "S2-85")
def test_no_driver_whatever_it_says_changes_a_gate() -> None:
    core = relay()
    core.step(gate(1), NOW_MS)
    for priority in ("background", "normal", "critical", "control"):
        payload = bundle_payload(salience=1, confidence=1)
        core.step(bundle(payload, priority=priority), NOW_MS)
        assert relayed(core.step(bundle(), NOW_MS)) == []
