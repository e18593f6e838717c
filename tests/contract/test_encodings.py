"""JSON, CBOR and Protobuf: one meaning in all three, and nothing sloppy in any."""

import base64
import contextlib
import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contract.messages import messages
from contract.vectors import MESSAGES, VALID, VECTORS, Message, Vector, merge
from nervus.wire import Accepted, Guard, Packet, Rejected, cbor, protobuf
from nervus.wire.contracts import CONTRACTS
from nervus.wire.decode import DecodeError
from nervus.wire.encodings import CBOR, CONTENT_TYPES, JSON, PROTOBUF, decode, encode, told_by
from nervus.wire.guard import HARD_LIMIT
from nervus.wire.ids import ulid_text, ulid_value
from nervus.wire.topics import TOPICS
from spinal import cbor as board_cbor
from spinal.cbor_tables import PAYLOADS as BOARD_PAYLOADS
from spinal.contracts import SCHEMAS as BOARD_SCHEMAS
from spinal.contracts import TABLE
from spinal.schema import check

BINARY = {CBOR: cbor.dumps, PROTOBUF: protobuf.dumps}
AFFERENT = MESSAGES["AfferentSignal"]


def in_encoding(content_type: str, message: Message) -> bytes:
    """The message as it stands, in another encoding; it says so where it says anything."""
    if "content_type" in message["meta"]:
        message = merge(message, {"meta": {"content_type": content_type}})
    return BINARY[content_type](message)


def judged(vector: Vector, data: bytes) -> str:
    assert vector.topic is not None
    guard = Guard(TOPICS, granted=vector.granted.get)
    packet = Packet(vector.broker, vector.topic, data, vector.retain)
    for _ in range(1 + vector.twice):
        verdict = guard.judge(packet, vector.now_ms)
    return verdict.reason_code if isinstance(verdict, Rejected) else "taken"


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("contract", sorted(CONTRACTS))
@given(st.data())
def test_a_message_means_the_same_in_all_three(contract: str, data: st.DataObject) -> None:
    value = data.draw(messages(contract))
    model = CONTRACTS[contract].model_validate(value)
    again = model
    for content_type in (JSON, CBOR, PROTOBUF, CBOR, JSON):
        written = encode(again, content_type)
        assert told_by(written) == content_type
        again = CONTRACTS[contract].model_validate(decode(written))
        assert again.meta.content_type in (None, content_type)
    assert again == model


@pytest.mark.req("S0-60")
@pytest.mark.parametrize("content_type", BINARY)
def test_the_guard_says_the_same_of_every_vector_in_another_encoding(content_type: str) -> None:
    asked: dict[str | None, int] = {None: 0, "schema": 0, "guard": 0}
    for vector in (v for vectors in VECTORS.values() for v in vectors):
        if vector.topic is None or vector.stage == "decode" or vector.encoding != JSON:
            continue
        if not vector.data or vector.reason_code == "oversize":
            continue  # what is too long in JSON may well fit
        try:
            message = json.loads(vector.data)
            if message["meta"].get("content_type", JSON) != JSON:
                continue  # about its encoding
            data = in_encoding(content_type, message)
            same = decode(data) == merge(message, decode(data) | {"payload": message["payload"]})
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # cannot be written: no such field, type or name
        if not same:
            continue  # 7.0 for an integer is a 7 in Protobuf
        asked[vector.stage] += 1
        assert judged(vector, data) == (vector.reason_code or "taken"), vector
    assert asked[None] > 180
    assert asked["guard"] > 150
    assert asked["schema"] > (300 if content_type == CBOR else 50)


@pytest.mark.parametrize("stated", [*CONTENT_TYPES, "text/xml"])
@pytest.mark.parametrize("told", CONTENT_TYPES)
@pytest.mark.req("S0-60")
def test_what_a_message_says_of_its_encoding_must_be_true(told: str, stated: str) -> None:
    topic, message = VALID["CommandRequest"]
    vector = VECTORS["CommandRequest"][0]
    message = merge(message, {"meta": {"content_type": stated}})
    if told == PROTOBUF and stated == "text/xml":
        return  # there is no number for it
    data = json.dumps(message).encode() if told == JSON else BINARY[told](message)
    verdict = Guard(TOPICS, granted=vector.granted.get).judge(
        Packet("core", topic, data), vector.now_ms
    )
    if told == stated:
        assert isinstance(verdict, Accepted)
        assert verdict.message.meta.content_type == told
        return
    assert isinstance(verdict, Rejected)
    stage = "agreement" if stated in CONTENT_TYPES else "schema"
    assert (verdict.reason_code, verdict.stage) == ("unsupported_encoding", stage)


def test_a_temperature_takes_at_most_110_bytes() -> None:
    assert AFFERENT["payload"] == {
        "sensor_type": "temperature", "value": 21.37, "unit": "Cel", "quality": "good"
    }  # fmt: skip
    assert len(cbor.dumps(AFFERENT)) <= 110


@pytest.mark.parametrize("contract", sorted(set(BOARD_PAYLOADS) - {"Chunk"}))
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_hub_and_board_write_the_same_bytes(contract: str, data: st.DataObject) -> None:
    message = data.draw(messages(contract))
    written = cbor.dumps(message)
    assert board_cbor.dumps(message) == written
    assert board_cbor.loads(written) == cbor.loads(written) == message


@given(st.binary(min_size=1, max_size=1024))
def test_bytes_travel_as_they_are_and_a_board_takes_them_so(octets: bytes) -> None:
    text = base64.b64encode(octets).decode()
    message = merge(MESSAGES["Chunk"], {"payload": {"data": text}})
    for write in BINARY.values():
        assert write(message).endswith(octets)
        assert decode(write(message)) == message
    taken = board_cbor.loads(cbor.dumps(message))
    assert taken == message | {"payload": message["payload"] | {"data": octets}}
    assert check(TABLE, BOARD_SCHEMAS["Chunk"], taken) is None


@settings(max_examples=300)
@given(st.binary(max_size=120), st.sampled_from([0, 3, 6, 20, 60]))
@example(b"\xa1\x03\xa0", 3)
def test_hub_and_board_read_the_same_bytes(noise: bytes, kept: int) -> None:
    # CBOR of what both have numbers for; the rest is noise.
    data = cbor.dumps(MESSAGES["EfferentCommand"])[:kept] + noise
    if data[:3] != cbor.MARK:
        data = cbor.MARK + data
    try:
        by_board: Any = board_cbor.loads(data)
    except board_cbor.CBORError:
        by_board = DecodeError
    try:
        by_hub: Any = cbor.loads(data)
    except DecodeError:
        by_hub = DecodeError
    if by_board is DecodeError or "payload" in by_board or by_hub is DecodeError:
        # A board does not read on where it takes no such contract.
        assert by_hub == by_board or "payload" not in by_board


def test_no_bytes_are_no_message() -> None:
    with pytest.raises(DecodeError):
        decode(b"")


@pytest.mark.parametrize("content_type", BINARY)
def test_no_list_is_read_of_more_items_than_any_schema_allows(content_type: str) -> None:
    for count in (128, 129):
        sources = [f"b{number}" for number in range(count)]
        message = merge(MESSAGES["RelayBundle"], {"payload": {"sources": sources}})
        data = BINARY[content_type](message)
        if count == 128:
            assert decode(data)["payload"]["sources"] == sources
        else:
            with pytest.raises(DecodeError, match="129 items"):
                decode(data)


@given(st.integers(0, 2**128 - 1))
def test_an_id_is_the_same_as_text_and_as_a_number(value: int) -> None:
    assert ulid_value(ulid_text(value)) == value


@pytest.mark.parametrize(
    "text", ["", "8" + "0" * 25, "0" * 25 + "I", "0" * 25 + "a", "0" * 27, "0" * 25 + "\n"]
)
def test_a_text_that_is_no_id_has_no_number(text: str) -> None:
    assert ulid_value(text) is None


@settings(max_examples=400)
@given(st.binary(max_size=300), st.sampled_from([b"", cbor.MARK, b"\x12", b"\x12\x02\x1a\x00"]))
def test_no_bytes_make_the_guard_raise(data: bytes, prefix: bytes) -> None:
    topic, _ = VALID["AfferentSignal"]
    verdict = Guard(TOPICS).judge(Packet("spinal", topic, prefix + data), 0)
    assert isinstance(verdict, Rejected)


@settings(max_examples=300)
@given(st.data(), st.sampled_from([CBOR, PROTOBUF]))
def test_a_damaged_message_is_refused_or_says_something_else(
    data: st.DataObject, content_type: str
) -> None:
    contract = data.draw(st.sampled_from(["AfferentSignal", "RelayBundle", "ReflexConfigure"]))
    whole = BINARY[content_type](MESSAGES[contract])
    at = data.draw(st.integers(1, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    damaged = whole[:at] + bytes([byte]) + whole[at + 1 :]
    try:
        read = decode(damaged)
    except DecodeError:
        return
    assert json.dumps(read) != json.dumps(decode(whole))  # where true is not 1


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a text of an exabyte", b"\xa1\x02\x7b\x10" + bytes(7)),
        ("an id of an exabyte", b"\xa1\x02\xa1\x01\x5b\x10" + bytes(7)),
        ("an array of an exabyte", b"\xa1\x02\x9b\x10" + bytes(7)),
        ("a map of an exabyte", b"\xbb\x10" + bytes(7)),
        ("arrays in arrays", b"\xa1\x02" + b"\x81" * 8000),
        ("arrays without an end", b"\xa1\x02" + b"\x9f" * 8000),
        ("a long text", b"\xa1\x02\x79\x1f\x40" + b"x" * 8000),
        ("a long array", b"\xa1\x02\x99\x1f\x40" + bytes(8000)),
        ("an integer of many bytes", b"\xa1\x02\xc2\x59\x1f\x40" + b"\xff" * 8000),
    ],
)
def test_what_is_announced_is_not_set_aside_before_it_has_come(name: str, data: bytes) -> None:
    data = cbor.MARK + data
    assert len(data) <= HARD_LIMIT
    with contextlib.suppress(DecodeError):
        cbor.loads(data)  # once before: what coverage notes of new lines is none of the reader's
    tracemalloc.start()
    with contextlib.suppress(DecodeError):
        cbor.loads(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * HARD_LIMIT + 4096, name  # the limit, twice, and frames of the reader


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 2**53, object()])
def test_what_no_message_holds_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r"holds|finite|beyond"):
        cbor.dumps(AFFERENT | {"payload": {"value": value}})


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"meta": {"contract": "Nonsense"}, "payload": {}},
        merge(AFFERENT, {"payload": {"colour": "blue"}}),
        merge(AFFERENT, {"payload": {"value": [1]}}),
        merge(AFFERENT, {"payload": {"quality": "excellent"}}),
        merge(AFFERENT, {"meta": {"seq": "7"}}),
        merge(MESSAGES["Chunk"], {"payload": {"data": "TR=="}}),
        merge(MESSAGES["Chunk"], {"payload": {"data": 7}}),
    ],
)
def test_what_its_contract_does_not_hold_is_no_protobuf(message: Message) -> None:
    with pytest.raises(ValueError, match=r"not a message of its|not in tuple|not the base64"):
        protobuf.dumps(message)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-0.0)
@example(2.0**-24)
@example(3.4028235677973366e38)
def test_a_float_takes_the_fewest_bytes_that_hold_it(number: float) -> None:
    data = cbor.dumps(AFFERENT | {"payload": {"value": number}})
    size = len(data) - len(cbor.dumps(AFFERENT | {"payload": {"value": False}}))
    (again,) = cbor.loads(data)["payload"].values()
    assert struct.pack(">d", again) == struct.pack(">d", number)
    fits = [size]
    for extra, form in ((2, ">e"), (4, ">f")):
        try:
            if struct.unpack(form, struct.pack(form, number))[0] == number:
                fits.append(extra)
        except OverflowError:
            continue
    assert size == min(fits)
