"""asyncapi.yaml and nervus.proto say what the schemas say, to tools that are not ours."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from contract.reference import SCHEMAS
from nervus.wire.contracts import CONTRACTS
from nervus.wire.topics import ROLES, TOPICS, WITHOUT_TOPIC

READER = Path(__file__).parents[1] / "node" / "asyncapi.mjs"
WARNING = 1  # a diagnostic's severity: 0 is an error, 1 a warning, 2 and 3 are advice


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """What the AsyncAPI parser finds in asyncapi.yaml."""
    run = subprocess.run(
        ["node", READER, SCHEMAS / "asyncapi.yaml"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


# The parser checks each of 44 channels against some hundred rules: 5 s of one processor alone.
@pytest.mark.timeout(120)
def test_the_asyncapi_parser_finds_every_channel_message_and_role(document: dict[str, Any]) -> None:
    assert [said for said in document["diagnostics"] if said["severity"] <= WARNING] == []
    assert document["version"] == "3.0.0"
    assert document["servers"] == ["spinal", "core"]
    assert document["channels"] == {spec.name: spec.template for spec in TOPICS}
    assert set(document["messages"]) == set(CONTRACTS) - WITHOUT_TOPIC
    for direction, ways in (("publish", document["send"]), ("subscribe", document["receive"])):
        wanted = {
            f"{role}.{direction}.{spec.name}": spec
            for spec in TOPICS
            for role in _roles(spec, direction)
        }
        assert ways.keys() == wanted.keys()
        assert {name.split(".")[0] for name in ways} <= ROLES.keys()
        for name, way in ways.items():
            spec = wanted[name]
            assert (way["channel"], way["messages"]) == (spec.template, [spec.contract])
            assert way["mqtt"]["qos"] == spec.qos
            if direction == "publish":
                assert way["mqtt"]["retain"] is spec.retained
                expiry = way["mqtt"].get("messageExpiryInterval")
                assert expiry == (None if spec.ttl_ms is None else -(-spec.ttl_ms // 1000))


def _roles(spec: Any, direction: str) -> set[str]:
    if direction == "subscribe":
        return set(spec.subscribe)
    return {role for broker in spec.brokers for role in spec.publishers(broker)} | set(spec.publish)


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    """What protoc made of nervus.proto."""
    compiled = FileDescriptorSet.FromString((SCHEMAS / "nervus.binpb").read_bytes())
    (file,) = (each for each in compiled.file if each.name == "nervus.proto")
    assert (file.package, file.syntax) == ("nervus.v1", "proto3")
    return {message.name: message for message in file.message_type}


def numbers(message: Any) -> dict[str, int]:
    return {field.name: field.number for field in message.field}


@pytest.mark.req("S4-27", "S4-61")
def test_every_contract_is_a_protobuf_message_with_the_numbers_of_cbor(
    messages: dict[str, Any],
) -> None:
    given = json.loads((SCHEMAS / "numbers.json").read_text())["keys"]
    for contract, model in CONTRACTS.items():
        parts = {"meta", "payload"} | ({"errors"} if model.model_fields["errors"] else set())
        assert numbers(messages[contract]).items() <= given["Message"].items()
        assert numbers(messages[contract]).keys() <= parts
    compared = 0
    for name in messages.keys() & given.keys():
        assert numbers(messages[name]) == given[name]
        compared += 1
    assert compared > len(CONTRACTS)
    assert given.keys() - messages.keys() == {"Message"}


@pytest.mark.req("S4-68", "S4-70")
def test_spectral_metadata_are_optional_and_have_the_numbers_of_the_design(
    messages: dict[str, Any],
) -> None:
    assert numbers(messages["Spectral"]) == {"coherence": 1, "criticality": 2, "eigenvalues": 3}
    (each,) = (field for field in messages["Spectral"].field if field.name == "eigenvalues")
    assert (each.type, each.label) == (each.TYPE_DOUBLE, FieldDescriptorProto.LABEL_REPEATED)
    (field,) = (field for field in messages["Meta"].field if field.name == "spectral")
    assert field.type_name == ".nervus.v1.Spectral"
    assert field.label == FieldDescriptorProto.LABEL_OPTIONAL
