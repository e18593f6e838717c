"""Measurements as CBOR by template: the same message as in JSON, in a third of the bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nervus.wire.contracts import CONTRACTS
from spinal import cbor, cborform
from spinal.cbor_tables import META, PAYLOADS
from spinal.clock import Clock
from spinal.envelope import Envelope, mark_historical
from spinal.ids import MessageIds
from spinal.ticks import MASK, later

NOW = 1_790_000_000_000
numbers = (
    st.integers(-(2**53) + 1, 2**53 - 1)
    | st.integers(-300, 300)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = numbers | st.booleans() | st.text(max_size=40) | st.dictionaries(st.text("xyz"), numbers)
seeds = st.binary(min_size=10, max_size=10)


def writers(seed: bytes, boot: int, unix_ms: int | None) -> list[Envelope]:
    """Two boards that differ in nothing but the encoding."""
    made = []
    for encoding in ("json", "cbor"):
        clock = Clock()
        ping = clock.ping(MASK - 20)
        if unix_ms is not None:
            assert clock.pong({**ping, "unix_ms": unix_ms}, MASK - 20) is None
        made.append(Envelope("porch-1", boot, MessageIds(seed), clock, encoding))
    return made


@given(
    seeds,
    st.integers(0, 2**32 - 1),
    st.none() | st.integers(1_704_067_200_000, 4_102_444_000_000),
    st.lists(
        st.tuples(
            values,
            st.sampled_from(["temperature", "lux", "a" * 30]),
            st.sampled_from([None, "Cel", "%"]),
            st.sampled_from([None, "critical", "background"]),
            st.sampled_from([0, 23, 24, 10_000, 86_400_000]),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_every_measurement_says_the_same_in_both_encodings(
    seed: bytes, boot: int, unix_ms: int | None, told: list[Any]
) -> None:
    text, binary = writers(seed, boot, unix_ms)
    for position, (value, sensor, unit, priority, ttl_ms) in enumerate(told):
        tick = later(MASK - 10, position * 7)
        first = bytes(text.afferent(sensor, value, unit, tick, ttl_ms, priority))
        second = bytes(binary.afferent(sensor, value, unit, tick, ttl_ms, priority))
        assert len(second) < len(first)
        assert cbor.loads(second) == json.loads(first)
        assert cbor.loads(mark_historical(second)) == json.loads(mark_historical(first))
        assert mark_historical(mark_historical(second)) == mark_historical(second)
    assert binary.last_seq == text.last_seq == len(told) - 1


@pytest.mark.req("S0-65")
def test_what_the_board_writes_has_the_compact_profile_and_no_more() -> None:
    minimal = "message_id schema_version contract message_type source boot seq t_ms clk ttl_ms"
    (_, binary) = writers(bytes(range(10)), 4, NOW)
    for value in (21.37, 4, True, "open"):
        message = cbor.loads(bytes(binary.afferent("door", value, None, 5, 10_000)))
        CONTRACTS["AfferentSignal"].model_validate(message)
        assert sorted(message["meta"]) == sorted(minimal.split())


def test_a_temperature_takes_110_bytes_at_most() -> None:
    (_, binary) = writers(bytes(range(10)), 2**32 - 1, NOW)
    assert len(binary.afferent("temperature", 21.37, "Cel", 5, 86_400_000, "critical")) <= 110


def test_ids_count_on_over_every_byte() -> None:
    for seed in (b"\xff" * 10, bytes(10)):
        text, binary = MessageIds(seed), MessageIds(seed)
        buffer = bytearray(16)
        for _ in range(70_000):
            text.next()
            binary.write_bytes(buffer, 0)
        assert cbor.dumps(
            {"meta": {"contract": "AfferentSignal", "message_id": text.next()}, "payload": {}}
        ).find(binary_next(binary))


def binary_next(ids: MessageIds) -> bytes:
    buffer = bytearray(16)
    ids.write_bytes(buffer, 0)
    return bytes(buffer)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_what_is_no_value_uses_up_no_number(value: object) -> None:
    (_, binary) = writers(bytes(range(10)), 4, NOW)
    with pytest.raises(ValueError, match=r"no number|cannot be written"):
        binary.afferent("door", value, None, 5, 10_000)
    assert binary.last_seq == -1


def test_the_numbers_are_those_of_the_schemas() -> None:
    names: Any = META[0]
    shown = "message_id schema_version contract message_type source boot seq t_ms clk ttl_ms"
    for number, name in enumerate(shown.split(), 1):
        assert names[number] == name
    assert (names[12], names[15]) == ("priority", "historical")
    clocks: Any = META[names.index("clk")]
    priorities: Any = META[names.index("priority")]
    assert {name: number for number, name in enumerate(clocks) if name} == cborform.CLOCKS
    assert {name: number for number, name in enumerate(priorities) if name} == cborform.PRIORITIES
    payload: Any = PAYLOADS["AfferentSignal"]
    assert payload[0][1:4] == ("sensor_type", "value", "unit")
