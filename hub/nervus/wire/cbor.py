"""Strict CBOR (RFC 8949) with the integers of schemas/: what a compact message is in few bytes.

A message is tag 55799 and a map of integer keys. Refused are duplicate keys, indefinite lengths,
other tags, null and undefined, NaN and infinities, integers beyond ± 2⁵³, bytes after the message,
and a payload before its metadata, for only they tell what the payload's keys stand for. Integers,
lengths and floats may be longer than they need to be: a board fills fields of fixed width.

The reader is our own since none of Python's tells a duplicate key, an indefinite length or a tag
it knows from what the wire allows: by the time their hooks are called it is gone.
"""

import struct
from math import isfinite
from typing import Any, Final

from nervus.wire.cbor_tables import MESSAGE, PAYLOADS
from nervus.wire.decode import DecodeError
from nervus.wire.ids import ulid_text, ulid_value
from nervus.wire.model import SAFE_INTEGER
from nervus.wire.octets import octets_of, octets_text

MARK: Final = b"\xd9\xd9\xf7"
"""The first bytes of a message: the tag that says "this is CBOR"."""

DEPTH_LIMIT: Final = 16
COUNT_LIMIT: Final = 128
"""Items of the longest array or map; no schema allows more."""

# A shape as in cbor_tables: None, "ulid", "base64", a tuple, a list or a dict.
Shape = Any

_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_MESSAGE: Final[Shape] = MESSAGE
_PAYLOAD: Final = _MESSAGE[0].index("payload")
_ULID_BYTES: Final = 16
_SHORT: Final = 24  # RFC 8949, section 3: below, a head is its argument
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS: Final = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
_FALSE, _TRUE = 0xF4, 0xF5


def loads(data: bytes) -> dict[str, Any]:
    """Return a message with its names restored; raises DecodeError.

    A payload of a contract that is not known is not read: the message ends before it.
    """
    try:
        return _message(data)
    except IndexError:
        raise DecodeError("the bytes end too early") from None


def dumps(message: dict[str, Any]) -> bytes:
    """Return the message as CBOR, in the shortest form that loses nothing.

    Names without a number, and ids that are none, are written as they are. ValueError for what no
    message holds, such as NaN, None, or a text for bytes that is no base64; KeyError for a contract
    that there is none of.
    """
    out = bytearray(MARK)
    _write(out, message, {**_MESSAGE, _PAYLOAD: PAYLOADS[message["meta"]["contract"]]})
    return bytes(out)


def _message(data: bytes) -> dict[str, Any]:
    if data[:3] != MARK or data[3] >> 5 != _MAP:
        raise DecodeError("a message is tag 55799 and a map")
    count, at = _count(data, 3, 2)
    message: dict[str, Any] = {}
    for _ in range(count):
        name, number, at = _key(data, at, _MESSAGE)
        if name in message:
            raise DecodeError(f"duplicate key at byte {at}")
        shape = _MESSAGE.get(number)
        if name == "payload":
            if "meta" not in message:
                raise DecodeError(f"a payload before its metadata at byte {at}")
            shape = _payload_shape(message["meta"])
            if shape is None:
                return message
        message[name], at = _value(data, at, shape, DEPTH_LIMIT)
    if at < len(data):
        raise DecodeError(f"bytes after the message at byte {at}")
    return message


def _payload_shape(meta: object) -> Shape:
    contract = meta.get("contract") if isinstance(meta, dict) else None
    return PAYLOADS.get(contract) if isinstance(contract, str) else None


def _argument(data: bytes, at: int) -> tuple[int, int]:
    """The argument of the head at `at`, and where what follows it begins."""
    extra = data[at] & 31
    if extra < _SHORT:
        return extra, at + 1
    width = _WIDTHS.get(extra)
    if width is None:
        raise DecodeError(f"an indefinite length at byte {at}")
    end = at + 1 + width
    if end > len(data):
        raise IndexError
    return int.from_bytes(data[at + 1 : end]), end


def _count(data: bytes, at: int, width: int) -> tuple[int, int]:
    """The count of items in the head at `at`, each of which takes `width` bytes at least."""
    count, after = _argument(data, at)
    if count > COUNT_LIMIT or count * width > len(data) - after:
        raise DecodeError(f"{count} items announced at byte {at}")
    return count, after


def _value(data: bytes, at: int, shape: Shape, depth: int) -> tuple[Any, int]:
    return _READERS[data[at] >> 5](data, at, shape, depth)


def _natural(data: bytes, at: int, shape: Shape, _: int) -> tuple[int | str, int]:
    number, after = data[at], at + 1  # the kind is 0, so a short head is its argument
    if number >= _SHORT:
        number, after = _argument(data, at)
    if number > SAFE_INTEGER:
        raise DecodeError(f"integer beyond 2^53 at byte {at}")
    if shape.__class__ is tuple and number < len(shape) and shape[number]:
        return shape[number], after
    return number, after


def _negative(data: bytes, at: int, _: Shape, __: int) -> tuple[int, int]:
    number, after = _argument(data, at)
    if number >= SAFE_INTEGER:
        raise DecodeError(f"integer beyond 2^53 at byte {at}")
    return -1 - number, after


def _tag(_: bytes, at: int, __: Shape, ___: int) -> tuple[Any, int]:
    raise DecodeError(f"a tag at byte {at}")


def _array(data: bytes, at: int, shape: Shape, depth: int) -> tuple[list[Any], int]:
    item = shape[0] if shape.__class__ is list else None
    if not depth:
        raise DecodeError(f"nested deeper than {DEPTH_LIMIT} at byte {at}")
    count, at = _count(data, at, 1)
    result = []
    for _ in range(count):
        value, at = _value(data, at, item, depth - 1)
        result.append(value)
    return result, at


def _map(data: bytes, at: int, shape: Shape, depth: int) -> tuple[dict[str, Any], int]:
    if not depth:
        raise DecodeError(f"nested deeper than {DEPTH_LIMIT} at byte {at}")
    shape = shape if shape.__class__ is dict else None
    names = shape[0] if shape else ()
    count, at = _count(data, at, 2)
    result: dict[str, Any] = {}
    for _ in range(count):
        number = data[at]
        # Nearly every key is one byte: this path saves a third of the time.
        name = names[number] if number < _SHORT and number < len(names) else None
        if name:
            at += 1
        else:
            name, number, at = _key(data, at, shape)
        if name in result:
            raise DecodeError(f"duplicate key at byte {at}")
        part = shape.get(number) if number and shape else None
        result[name], at = _READERS[data[at] >> 5](data, at, part, depth - 1)
    return result, at


def _key(data: bytes, at: int, shape: Shape) -> tuple[str, int, int]:
    """A key's name, its number (0 for a name that has none here), and where its value begins."""
    kind = data[at] >> 5
    if kind == _UINT and shape is not None:
        number, after = _argument(data, at)
        names = shape[0]
        known = names[number] if number < len(names) else None
        # An unknown number is a foreign field: the schema's to refuse.
        return (known, number, after) if known else (f"#{number}", 0, after)
    if kind != _TEXT:
        raise DecodeError(f"no key at byte {at}")
    name, after = _text(data, at, None)
    if shape is not None and name in shape[0]:
        raise DecodeError(f"{name} has a number, at byte {at}")
    return name, 0, after


def _text(data: bytes, at: int, shape: Shape, _: int = 0) -> tuple[str, int]:
    length, start = data[at] & 31, at + 1
    if length >= _SHORT:
        length, start = _argument(data, at)
    end = start + length
    if end > len(data):
        raise IndexError
    try:
        text = data[start:end].decode()
    except UnicodeDecodeError:
        raise DecodeError(f"no UTF-8 at byte {at}") from None
    if shape is not None and (
        shape == "base64"
        or (shape.__class__ is tuple and text in shape)
        or (shape == "ulid" and ulid_value(text) is not None)
    ):
        raise DecodeError(f"{text} has a shorter form, at byte {at}")
    return text, end


def _bytes(data: bytes, at: int, shape: Shape, _: int) -> tuple[str, int]:
    length, start = _argument(data, at)
    end = start + length
    if shape != "base64" and (shape != "ulid" or length != _ULID_BYTES):
        raise DecodeError(f"bytes that are no id at byte {at}")
    if end > len(data):
        raise IndexError
    found = data[start:end]
    return octets_text(found) if shape == "base64" else ulid_text(int.from_bytes(found)), end


def _simple(data: bytes, at: int, _: Shape, __: int) -> tuple[bool | float, int]:
    first = data[at]
    if first in (_FALSE, _TRUE):
        return first == _TRUE, at + 1
    form = _FLOATS.get(first & 31)
    if form is None:
        raise DecodeError(f"no value that a message holds at byte {at}")
    end = at + 1 + form.size
    if end > len(data):
        raise IndexError
    (number,) = form.unpack_from(data, at + 1)
    if not isfinite(number):
        raise DecodeError(f"no finite number at byte {at}")
    return number, end


_READERS: Final = (_natural, _negative, _bytes, _text, _array, _map, _tag, _simple)


def _write(out: bytearray, value: Any, shape: Shape) -> None:
    match value:
        case bool():
            out.append(_TRUE if value else _FALSE)
        case int():
            if abs(value) > SAFE_INTEGER:
                raise ValueError(f"{value} is beyond 2^53")
            _write_head(out, _NEGATIVE if value < 0 else _UINT, value if value >= 0 else -1 - value)
        case float():
            out += _shortest(value)
        case str():
            _write_text(out, value, shape)
        case dict():
            _write_map(out, value, shape if isinstance(shape, dict) else None)
        case list():
            _write_head(out, _ARRAY, len(value))
            item = shape[0] if isinstance(shape, list) else None
            for each in value:
                _write(out, each, item)
        case _:
            raise ValueError(f"{type(value).__name__} is nothing that a message holds")


def _write_head(out: bytearray, kind: int, argument: int) -> None:
    if argument < _SHORT:
        out.append(kind << 5 | argument)
        return
    power = 0
    while argument >> (8 << power):
        power += 1
    out.append(kind << 5 | _SHORT + power)
    out += argument.to_bytes(1 << power)


def _write_text(out: bytearray, value: str, shape: Shape) -> None:
    if isinstance(shape, tuple) and value in shape:
        _write_head(out, _UINT, shape.index(value))
        return
    number = ulid_value(value) if shape == "ulid" else None
    if shape == "base64":
        kind, data = _BYTES, octets_of(value)
    elif number is not None:
        kind, data = _BYTES, number.to_bytes(_ULID_BYTES)
    else:
        kind, data = _TEXT, value.encode()
    _write_head(out, kind, len(data))
    out += data


def _write_map(out: bytearray, value: dict[str, Any], shape: dict[int, Any] | None) -> None:
    _write_head(out, _MAP, len(value))
    names = shape[0] if shape else ()
    # By number, so that metadata stand before the payload they explain.
    for number, name in enumerate(names):
        if name in value and shape:
            _write_head(out, _UINT, number)
            _write(out, value[name], shape.get(number))
    for name in value.keys() - set(names) if names else value:
        _write_text(out, name, None)
        _write(out, value[name], None)


def _shortest(value: float) -> bytes:
    """A float in the fewest bytes that hold it."""
    if not isfinite(value):
        raise ValueError(f"{value} is no finite number")
    for extra, form in _FLOATS.items():
        try:
            packed = form.pack(value)
        except OverflowError:
            continue
        if form.unpack(packed)[0] == value:
            return bytes((_SIMPLE << 5 | extra,)) + packed
    raise AssertionError("a double holds every float")
