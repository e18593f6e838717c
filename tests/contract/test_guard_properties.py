"""What holds of the guard for every text, not only for those somebody thought of."""

import gc
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.reference import validator
from contract.vectors import NOW_MS, VALID, VECTORS, Vector
from nervus.wire import Accepted, Guard, Packet, Rejected
from nervus.wire.contracts import CONTRACTS
from nervus.wire.decode import DecodeError, has_null
from nervus.wire.encodings import JSON, decode, told_by
from nervus.wire.topics import TOPICS

GIVEN = [vector for vectors in VECTORS.values() for vector in vectors if vector.topic]
LIMIT = 256 * 1024
"""Bytes that one judgement may take: 8 KiB that are all empty objects, decoded."""

REFERENCES = {name: validator(name) for name in VALID}


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Vector, bytes]:
    """A vector and its text, changed in up to four places."""
    vector = draw(st.sampled_from(GIVEN))
    data = vector.data
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        other = draw(st.sampled_from(GIVEN)).data
        place = draw(st.integers(0, len(other)))
        piece = draw(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from(PIECES),
                st.just(other[place : place + draw(st.integers(1, 40))]),
            )
        )
        data = data[:at] + piece + data[at + length :]
    return vector, data


PIECES = [
    b'"', b'":', b'" :', b",", b"{", b"}", b"null", b"\\", b"\\u0061", b" ", b"1e999", b"NaN", b"0",
    b"9007199254740993", b"-", b".5", b"true", b'"seq":1,', b'"ext":{},', b'"ttl_ms":0,', b"\xff",
]  # fmt: skip


@pytest.mark.req("S4-45", "S0-82", "S0-83")
@given(mutated())
def test_what_the_guard_lets_pass_the_strict_reading_takes_and_nothing_passes_twice(
    case: tuple[Vector, bytes],
) -> None:
    vector, data = case
    assert vector.topic is not None
    guard = Guard(TOPICS, granted=vector.granted.get)
    packet = Packet(vector.packet.broker, vector.topic, data, vector.retain)
    verdict = guard.judge(packet, vector.now_ms)
    taken = _strictly(vector.contract, data)
    if isinstance(verdict, Rejected):
        assert taken is None or verdict.stage != "decode"
        return
    if isinstance(verdict, Accepted):
        assert verdict.message == taken
        read = json.loads(data) if told_by(data) == JSON else decode(data)
        assert REFERENCES[vector.contract].is_valid(read)
    again = guard.judge(packet, vector.now_ms)
    assert isinstance(again, Rejected) is not vector.retain


def _strictly(contract: str, data: bytes) -> object:
    """The message as decoding first and then validating it has it; None when either refuses."""
    try:
        value = decode(data)
        if has_null(data, value):
            return None
        return CONTRACTS[contract].model_validate(value)
    except (DecodeError, ValidationError):
        return None


TEXTS = {
    "objects": "{}," * 2720,
    "lists": "[]," * 2720,
    "nesting": '{"":' * 2040,
    "brackets": "[" * 8190,
    "integers": "1," * 4090,
    "reals": "1.5," * 2040,
    "texts": '"",' * 2720,
    "escapes": "\\u0000" * 1360,
    "keys": ",".join(f'"{n}":1' for n in range(1000)),
    "not ASCII": "\xe9" * 4090,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_judgement_takes_no_more_than_twice_its_limit_of_memory(text: str) -> None:
    topic, message = VALID["DeviceInfo"]
    meta = json.dumps(message["meta"])
    for payload in (text, f'{{"meta":{meta},"payload":[{text}', f'{{"meta":{meta},"x":{{{text}'):
        for end in ("1]}", '"":1}}'):
            data = (payload[: 8191 - len(end)] + end).encode()[:8192]
            assert _peak(Packet("spinal", topic, data, retain=True)) <= 2 * LIMIT


def _peak(packet: Packet) -> int:
    guard = Guard(TOPICS)
    guard.judge(packet, NOW_MS)  # whatever is worked out once
    gc.collect()
    tracemalloc.start()
    try:
        guard.judge(packet, NOW_MS)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_the_guard_keeps_is_bounded_however_many_messages_pass() -> None:
    guard = Guard(TOPICS, dedupe_limit=100)
    topic, message = VALID["AfferentSignal"]
    sizes = []  # after each round of the same ids: the parser keeps some texts of its own
    tracemalloc.start()
    try:
        for n in range(3_000):
            meta = message["meta"] | {"message_id": f"{n % 1_000:026d}"}
            data = json.dumps(message | {"meta": meta}, separators=(",", ":")).encode()
            assert isinstance(guard.judge(Packet("spinal", topic, data), NOW_MS), Accepted)
            if n % 1_000 == 999:
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[-1] < sizes[0] + 64 * 1024
