"""The pydantic models and the JSON Schemas take and refuse the same messages."""

import json

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from contract.reference import SCHEMAS, validator
from contract.vectors import MESSAGES, spoiled
from nervus.wire import registries
from nervus.wire.contracts import CONTRACTS
from nervus.wire.decode import has_null
from nervus.wire.topics import TOPICS, WITHOUT_TOPIC


def model_takes(contract: str, message: object) -> bool:
    data = json.dumps(message).encode()
    if has_null(data, message):
        return False
    try:
        CONTRACTS[contract].model_validate(message)
    except ValidationError:
        return False
    return True


@pytest.mark.req("S0-64", "S0-105", "S3-17", "S3-19")
@pytest.mark.parametrize("contract", sorted(CONTRACTS))
def test_model_and_schema_agree_on_a_message_and_on_each_way_to_spoil_it(contract: str) -> None:
    schema = validator(contract)
    message = MESSAGES[contract]
    assert schema.is_valid(message)
    assert model_takes(contract, message)
    refused = 0
    for name, changed in spoiled(message):
        by_schema, by_model = schema.is_valid(changed), model_takes(contract, changed)
        assert by_schema == by_model, f"{name}: schema says {by_schema}, model says {by_model}"
        refused += not by_schema
    assert refused > len(message["meta"])


@pytest.mark.req("S0-43", "S0-44", "S0-45", "S0-46", "S0-47", "S0-51")
@pytest.mark.parametrize("contract", sorted(CONTRACTS))
@pytest.mark.parametrize(
    "field", ["message_id", "schema_version", "contract", "message_type", "source"]
)
def test_envelope_without_a_basic_field_is_refused(contract: str, field: str) -> None:
    message = MESSAGES[contract]
    meta = {name: value for name, value in message["meta"].items() if name != field}
    assert not model_takes(contract, message | {"meta": meta})


@pytest.mark.req("S3-18", "S3-20")
def test_a_validated_message_cannot_be_changed() -> None:
    message = MESSAGES["RelayBundle"]
    bundle = CONTRACTS["RelayBundle"].model_validate(message)
    with pytest.raises(ValidationError, match="frozen"):
        bundle.payload.channel = "auditory"


@pytest.mark.req(
    "S0-89", "S0-90", "S0-91", "S0-92", "S0-93", "S0-94", "S0-95", "S0-96", "S0-97"
)  # fmt: skip
def test_every_contract_has_a_schema_an_example_and_a_topic_or_is_spoken_over_http() -> None:
    carried = {spec.contract for spec in TOPICS}
    assert carried.isdisjoint(WITHOUT_TOPIC)
    assert carried | WITHOUT_TOPIC == set(CONTRACTS) == set(MESSAGES)
    assert {"StreamSessionRequest", "StreamSessionResponse"} == WITHOUT_TOPIC


@pytest.mark.req("S1-29")
def test_registries_have_their_form_and_name_known_channels() -> None:
    form = Draft202012Validator(
        json.loads((SCHEMAS / "registries/registry.schema.json").read_text())
    )
    tables = {
        path.stem: json.loads(path.read_text())
        for path in (SCHEMAS / "registries").glob("*.json")
        if path.name != "registry.schema.json"
    }
    for table in tables.values():
        form.validate(table)
    named = {entry["channel"] for entry in tables["sensor_types"]["entries"].values()}
    assert named <= set(tables["channels"]["entries"])
    assert set(registries.nuclei()) <= registries.channels()
    assert set(registries.nuclei().values()) == set(tables["nuclei"]["entries"])


@pytest.mark.req("S1-25", "S1-26", "S1-27", "S1-28")
def test_the_four_first_channels_are_in_the_registry() -> None:
    entries = json.loads((SCHEMAS / "registries/channels.json").read_text())["entries"]
    assert {"somatic", "auditory", "visual_orient", "visceral"} <= set(entries)


@pytest.mark.req("S1-47", "S1-58", "S1-77", "S1-78")
def test_the_patterns_and_states_of_the_design_are_registered() -> None:
    assert {"startle", "orient", "stabilize"} <= registries.names("patterns")
    states = {"normal", "high_alert", "quiet_hours", "energy_save"}
    assert states <= registries.names("states")
