"""The ArqonMessage of the design's S4: our messages as it has them, and back without a loss."""

from typing import Any
from uuid import UUID

import pytest
from google.protobuf.any_pb2 import Any as WellKnownAny
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

from contract.reference import SCHEMAS
from contract.vectors import MESSAGES, VALID, VECTORS, Message, merge
from nervus.wire import Accepted, Guard, Mint, Packet, arqon, protobuf, topics
from nervus.wire.contracts import CONTRACTS
from nervus.wire.decode import DecodeError
from nervus.wire.encodings import PROTOBUF, encode
from nervus.wire.topic_parser import parse
from nervus.wire.topics import TOPICS

HOUSE = "oak-street"
FIELD = FieldDescriptorProto
KINDS = {
    "id": (1, FIELD.TYPE_STRING),
    "sequence": (2, FIELD.TYPE_UINT64),
    "topic": (3, FIELD.TYPE_STRING),
    "producer_id": (4, FIELD.TYPE_STRING),
    "reality_id": (5, FIELD.TYPE_STRING),
    "trace_context": (6, FIELD.TYPE_MESSAGE),
    "spectral": (7, FIELD.TYPE_MESSAGE),
    "payload": (8, FIELD.TYPE_MESSAGE),
}
"""As S4 numbers them."""


def written(contract: str, **meta: object) -> tuple[bytes, Any]:
    """The ArqonMessage of a contract's valid message, and what it says."""
    topic, message = VALID[contract]
    address = parse(topic)
    assert address is not None
    model = CONTRACTS[contract].model_validate(merge(message, {"meta": meta}))
    data = arqon.dumps(address, model, HOUSE)
    return data, protobuf.parsed("ArqonMessage", data)


def changed(data: bytes, **fields: Any) -> bytes:
    """The same with other fields before the payload."""
    said = protobuf.parsed("ArqonMessage", data)
    for name, value in fields.items():
        if value is None:
            said.ClearField(name)
        else:
            setattr(said, name, value)
    return bytes(said.SerializeToString(deterministic=True))


@pytest.mark.req("S4-62", "S4-63", "S4-64", "S4-65", "S4-66", "S4-67", "S4-68", "S4-69")
def test_it_has_the_fields_numbers_and_types_of_the_design() -> None:
    compiled = FileDescriptorSet.FromString((SCHEMAS / "nervus.binpb").read_bytes())
    (file,) = (each for each in compiled.file if each.name == "nervus.proto")
    (message,) = (each for each in file.message_type if each.name == "ArqonMessage")
    assert {each.name: (each.number, each.type) for each in message.field} == KINDS
    named = {each.name: each.type_name for each in message.field if each.type_name}
    assert named["spectral"] == ".nervus.v1.Spectral"
    assert named["payload"] == ".google.protobuf.Any"
    (entry,) = message.nested_type
    assert entry.options.map_entry
    assert {each.type for each in entry.field} == {FIELD.TYPE_STRING}


@pytest.mark.req("S4-31", "S4-33", "S4-69")
@pytest.mark.parametrize("contract", sorted(VALID))
def test_every_message_goes_there_and_back_and_the_guard_takes_it(contract: str) -> None:
    topic, message = VALID[contract]
    vector = VECTORS[contract][0]
    data, said = written(contract)
    assert said.reality_id == HOUSE
    unpacked = protobuf.message_class(contract)()
    whole = WellKnownAny.FromString(said.payload.SerializeToString())
    assert whole.Unpack(unpacked)
    assert unpacked.SerializeToString(deterministic=True) == said.payload.value
    address, inner = arqon.loads(data, HOUSE)
    assert address.topic == topic
    guard = Guard(TOPICS, granted=vector.granted.get)
    verdict = guard.judge(Packet(vector.broker, topic, inner, vector.retain), vector.now_ms)
    assert isinstance(verdict, Accepted)
    model = CONTRACTS[contract].model_validate(message)
    assert encode(verdict.message, PROTOBUF) == encode(model, PROTOBUF)


@pytest.mark.req("S4-62", "S4-64", "S4-65", "S4-67")
def test_its_fields_say_what_the_metadata_say() -> None:
    meta = MESSAGES["Outcome"]["meta"]
    _, said = written("Outcome")
    assert UUID(said.id).version == 7
    assert UUID(said.id).hex == said.id.replace("-", "")
    assert UUID(said.id).int >> 80 == 1_795_204_800_000  # the milliseconds of its ULID
    assert said.topic.startswith("e.outcome.report.room.kitchen.")
    assert said.producer_id == meta["source"]
    (parent,) = said.trace_context.values()
    version, trace, span, _ = parent.split("-")
    assert list(said.trace_context) == ["traceparent"]
    assert (version, span, len(trace)) == ("00", meta["span_id"], 32)
    _, compact = written("AfferentSignal")
    assert dict(compact.trace_context) == {}


@pytest.mark.req("S4-68")
def test_spectral_metadata_are_its_own_and_absent_without() -> None:
    spectral = {"coherence": 0.5, "criticality": 0.25, "eigenvalues": [1.5, -2.0]}
    data, said = written("Outcome", spectral=spectral)
    assert (said.spectral.coherence, said.spectral.criticality) == (0.5, 0.25)
    assert list(said.spectral.eigenvalues) == [1.5, -2.0]
    assert arqon.loads(data, HOUSE)[0].spec is topics.OUTCOME
    assert not written("Outcome")[1].HasField("spectral")


@pytest.mark.req("S4-63")
def test_its_sequence_rises_with_each_message_and_is_that_of_history_where_there_is_one() -> None:
    mint = Mint("reliable", "reliable", seed=1, boot=3)
    address = parse(VALID["Pong"][0])
    assert address is not None
    payload = CONTRACTS["Pong"].model_validate(MESSAGES["Pong"]).payload
    sequences = []
    for now_ms in (5, 5, 4, 900):
        made = mint.compact(CONTRACTS["Pong"], address, payload, now_ms)
        data = arqon.dumps(address, made.message, HOUSE)
        sequences.append(protobuf.parsed("ArqonMessage", data).sequence)
    assert sequences == [0, 1, 2, 3]
    recorded = arqon.dumps(address, made.message, HOUSE, sequence=2**52)
    assert protobuf.parsed("ArqonMessage", recorded).sequence == 2**52
    assert arqon.loads(recorded, HOUSE) == arqon.loads(data, HOUSE)
    assert not written("CommandRequest")[1].HasField("sequence")


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "01a1fa8b-5e00-7d8e-91b7-584a2265b1f6"},
        {"id": None},
        {"topic": "e.outcome.report.room.hall.01M7X8PQG0FP793DTR98H6BCFN"},
        {"topic": "nvm.jobs"},
        {"producer_id": "somebody"},
        {"reality_id": "elm-street"},
        {"trace_context": None},
        {"payload": None},
    ],
)
def test_one_that_disagrees_with_its_payload_is_refused(fields: Message) -> None:
    data, _ = written("Outcome", seq=4)
    assert arqon.loads(changed(data), HOUSE)
    if fields.get("topic", "").startswith("e."):
        address, _ = arqon.loads(changed(data, **fields), HOUSE)
        assert address.levels["scope"] == "hall"  # the guard's to refuse, as on any topic
        return
    with pytest.raises(DecodeError):
        arqon.loads(changed(data, **fields), HOUSE)


NAMELESS = b"\x12\x1f\x0a\x1a" + MESSAGES["Outcome"]["meta"]["message_id"].encode() + b"\x2a\x01a"


@pytest.mark.parametrize("inner", [b"", b"\x12\x00", b"{}", b"\xff", b"\x12\x02\x0a\x00", NAMELESS])
def test_one_whose_payload_is_no_message_is_refused(inner: bytes) -> None:
    data, said = written("Outcome")
    said.payload.value = inner
    for wrong in (said.SerializeToString(), data + b"\x48\x01", data[:-1], b"\x12"):
        with pytest.raises(DecodeError):
            arqon.loads(wrong, HOUSE)


def test_one_whose_payload_is_named_as_another_is_refused() -> None:
    _, said = written("Outcome")
    said.payload.type_url = "type.googleapis.com/nervus.v1.Command"
    with pytest.raises(DecodeError, match="something else"):
        arqon.loads(said.SerializeToString(), HOUSE)
