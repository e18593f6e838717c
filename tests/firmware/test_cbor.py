"""The board's CBOR: what it writes it reads back, and nothing else passes."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contract.vectors import MESSAGES, VECTORS
from spinal import cbor
from spinal.cbor_tables import PAYLOADS
from spinal.envelope import WireError, parse

pytestmark = pytest.mark.usefixtures("unmeasured")

# A board reads chunks and writes none: their bytes come back as bytes, see test_encodings.py.
WRITTEN = sorted(set(PAYLOADS) - {"Chunk"})
LARGEST = 2**53 - 1
plain = st.one_of(
    st.booleans(),
    st.integers(-LARGEST, LARGEST),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
)
values = st.one_of(plain, st.dictionaries(st.text(max_size=8), plain, max_size=4))


def afferent(value: object) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(json.dumps(MESSAGES["AfferentSignal"]))
    message["payload"]["value"] = value
    return message


def written(text: str) -> bytes:
    """Bytes of a message from hexadecimal with blanks, behind the tag."""
    return cbor.MARK + bytes.fromhex(text)


@pytest.mark.parametrize("contract", WRITTEN)
def test_every_valid_message_comes_back_as_it_was(contract: str) -> None:
    asked = [v.meaning for v in VECTORS[contract] if v.stage is None and v.meaning]
    assert len(asked) >= 4
    for message in asked:
        again = cbor.loads(cbor.dumps(message))
        assert again == message
        assert json.dumps(again, sort_keys=True) == json.dumps(message, sort_keys=True)


def test_a_temperature_takes_at_most_110_bytes() -> None:
    message = MESSAGES["AfferentSignal"]
    assert message["payload"]["value"] == 21.37
    assert len(cbor.dumps(message)) <= 110 < len(json.dumps(message, separators=(",", ":")))


@given(values)
@example(-0.0)
@example(5e-324)
@example(2.0**-24)
@example(65504.0)
@example(3.4028235677973366e38)
@example(-LARGEST)
def test_a_value_comes_back_with_its_type(value: object) -> None:
    again = cbor.loads(cbor.dumps(afferent(value)))["payload"]["value"]
    assert json.dumps(again) == json.dumps(value)


@given(st.integers(0, 0xFFFF))
def test_every_half_is_read_as_its_number_and_written_in_two_bytes(bits: int) -> None:
    (number,) = struct.unpack(">e", struct.pack(">H", bits))
    data = cbor.dumps(afferent(1)).replace(
        b"e\x02\x01\x03", b"e\x02\xf9" + bits.to_bytes(2) + b"\x03"
    )
    if not math.isfinite(number):
        with pytest.raises(cbor.CBORError, match="no finite number"):
            cbor.loads(data)
        return
    again = cbor.loads(data)["payload"]["value"]
    assert struct.pack(">d", again) == struct.pack(">d", number)
    assert cbor.dumps(afferent(number)) == data


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_takes_the_fewest_bytes_that_hold_it(number: float) -> None:
    size = len(cbor.dumps(afferent(number))) - len(cbor.dumps(afferent(0.0)))
    fits = []
    for extra, form in ((0, ">e"), (2, ">f"), (6, ">d")):
        try:
            fits.append((extra, struct.unpack(form, struct.pack(form, number))[0] == number))
        except OverflowError:
            fits.append((extra, False))
    assert size == next(extra for extra, holds in fits if holds)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the end of the bytes"),
        ("80", "no map in the tag"),
        ("bf ff", "an indefinite length"),
        ("a1 02 bf ff", "an indefinite length"),
        ("a1 02 a1 05 7f 61 61 ff", "an indefinite length"),
        ("a1 02 9b ff ff ff ff ff ff ff ff", "items announced"),
        ("bb ff ff ff ff ff ff ff ff", "items announced"),
        ("a1 02 7b 7f ff ff ff ff ff ff ff", "the end of the bytes"),
        ("a1 02 98 81" + "00" * 129, "129 items announced"),
        ("a2 02 a0 02 a0", "duplicate key"),
        ("a1 02 a2 06 01 06 02", "duplicate key"),
        ("a1 02 a2 61 61 01 61 61 02", "duplicate key"),
        ("a1 02 a1 64 62 6f 6f 74 01", "boot has a number"),
        ("a1 02 a1 20 01", "no key"),
        ("a1 03 a0", "a payload before its metadata"),
        ("a1 02 c1 00", "a tag"),
        ("d9 d9 f7 a0", "no map in the tag"),
        ("a1 02 f6", "no value that a message holds"),
        ("a1 02 f7", "no value that a message holds"),
        ("a1 02 f8 ff", "no value that a message holds"),
        ("a1 02 f9 7e 00", "no finite number"),
        ("a1 02 fa 7f 80 00 00", "no finite number"),
        ("a1 02 fb 7f f8 00 00 00 00 00 00", "no finite number"),
        ("a1 02 1b 00 20 00 00 00 00 00 00", r"beyond 2\*\*53"),
        ("a1 02 3b 00 1f ff ff ff ff ff ff", r"beyond 2\*\*53"),
        ("a1 02 1c", "an indefinite length"),
        ("a1 02 62 c0 80", "no UTF-8"),
        ("a1 02 63 ed a0 80", "no UTF-8"),
        ("a1 02 a1 01 41 00", "bytes that are no id"),
        ("a1 02 a1 05 50" + "00" * 16, "bytes that are no id"),
        ("a1 02 a1 01 78 1a" + "30" * 26, "has a shorter form"),
        ("a1 02 a1 09 63 68 75 62", "hub has a shorter form"),
        ("a1 02" + "81" * 17 + "00", "nested deeper than 16"),
        ("a1 02 a0 00", "bytes after the message"),
    ],
)
def test_what_is_not_strict_is_refused_with_what_and_where(text: str, fault: str) -> None:
    with pytest.raises(cbor.CBORError, match=rf"{fault}.* at byte \d+|{fault}"):
        cbor.loads(written(text))


def test_what_is_too_long_is_not_begun() -> None:
    with pytest.raises(cbor.CBORError, match="9000 bytes, at most 8192"):
        cbor.loads(cbor.MARK + b"\xa1" + bytes(8996))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    for prefix in (b"", cbor.MARK, cbor.MARK + b"\xa2\x02\xa1\x03\x02\x03"):
        try:
            message = cbor.loads(prefix + data)
        except cbor.CBORError:
            continue
        assert isinstance(message, dict)


@given(st.integers(0, 98), st.integers(0, 255))
def test_a_damaged_message_is_refused_or_is_another_message(at: int, byte: int) -> None:
    message = afferent(21.37)
    data = bytearray(cbor.dumps(message))
    at %= len(data)
    changed = data[at] != byte
    data[at] = byte
    try:
        again = cbor.loads(bytes(data))
    except cbor.CBORError:
        return
    assert (again == message) is not changed


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 2**53, -(2**53), object()])
def test_what_no_message_holds_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r"CBOR|finite|beyond"):
        cbor.dumps(afferent(value))


def refusal(data: bytes) -> tuple[str, str]:
    with pytest.raises(WireError) as caught:
        parse(data)
    return caught.value.code, caught.value.stage


def test_a_field_without_a_number_or_with_an_unknown_one_is_the_schemas_to_refuse() -> None:
    message = json.loads(json.dumps(MESSAGES["EfferentCommand"]))
    message["meta"]["colour"] = "blue"
    data = cbor.dumps(message)
    assert refusal(data) == ("schema_invalid", "schema")
    assert refusal(data.replace(b"\x66colour", b"\x18\xff")) == ("schema_invalid", "schema")


@pytest.mark.req("S0-60")
def test_what_a_message_says_of_its_encoding_must_be_true() -> None:
    message = json.loads(json.dumps(MESSAGES["EfferentCommand"]))
    assert parse(cbor.dumps(message)) == (message["meta"], message["payload"])
    message["meta"]["content_type"] = "application/cbor"
    assert parse(cbor.dumps(message)) == (message["meta"], message["payload"])
    assert refusal(json.dumps(message).encode()) == ("unsupported_encoding", "agreement")
    message["meta"]["content_type"] = "text/xml"
    assert refusal(json.dumps(message).encode()) == ("unsupported_encoding", "schema")


def test_a_contract_that_a_board_has_no_numbers_for_is_not_taken() -> None:
    message = json.loads(json.dumps(MESSAGES["EfferentCommand"]))
    for contract, number in (("Outcome", 39), ("Nonsense", 99)):
        spelled = contract.encode()
        data = cbor.dumps(message).replace(b"\x03\x02\x04\x02", b"\x03\x18%c\x04\x02" % number)
        assert refusal(data) == ("contract_not_allowed", "allow")
        text = bytes([0x60 + len(spelled)]) + spelled
        data = cbor.dumps(message).replace(b"\x03\x02\x04\x02", b"\x03%s\x04\x02" % text)
        assert refusal(data) == ("contract_not_allowed", "allow")
