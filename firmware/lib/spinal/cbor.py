"""Strict CBOR (RFC 8949) with the integers of schemas/, the same on every interpreter.

A message is tag 55799 and a map of integer keys. Refused are duplicate keys, indefinite lengths,
other tags, null and undefined, NaN and infinities, integers beyond ± 2**53, bytes after the message
and a payload before its metadata, for only they tell what the payload's keys stand for.
"""

import struct
from math import isfinite

from spinal.cbor_tables import MESSAGE, PAYLOADS
from spinal.jsonscan import DEPTH_LIMIT, INTEGER_LIMIT, SIZE_LIMIT, JSONError, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = b"\xd9\xd9\xf7"
"""The first bytes of a message: the tag that says "this is CBOR"."""
COUNT_LIMIT = 128
"""Items of the longest array or map; no schema allows more."""

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_BYTES, _ULID_LENGTH = 16, 26
_NAMES: "Any" = MESSAGE[0]
_PAYLOAD = _NAMES.index("payload")
_LARGEST_SINGLE = 3.4028234663852886e38
_FIRST = 5  # bits of a head that tell its kind
_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)


class CBORError(ValueError):
    """The bytes are not strict CBOR; the message says what is wrong and at which byte."""


def loads(data: bytes, size_limit: int = SIZE_LIMIT) -> "dict[str, Any]":
    """Return a message, its names restored; CBORError names the first fault and its byte.

    A payload of a contract that PAYLOADS does not hold is not read: the message ends before it.
    """
    if len(data) > size_limit:
        raise CBORError(f"{len(data)} bytes, at most {size_limit} are read")
    return _Reader(bytes(data)).message()


def dumps(message: "dict[str, Any]") -> bytes:
    """Return the message as CBOR, in the shortest form that loses nothing.

    Names without a number, and ids that are none, are written as they are. ValueError for what no
    message holds, such as NaN or None; KeyError for a contract that PAYLOADS does not hold.
    """
    out = bytearray(MARK)
    shape: "dict[int, Any]" = dict(MESSAGE)
    shape[_PAYLOAD] = PAYLOADS[message["meta"]["contract"]]
    _write(out, message, shape)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._argument = 0

    def message(self) -> "dict[str, Any]":
        if self._data[:3] != MARK:
            raise self._fault("no tag 55799")
        self._at = 3
        if self._head() != _MAP:
            raise self._fault("no map in the tag")
        shape: "dict[int, Any]" = dict(MESSAGE)
        message: "dict[str, Any]" = {}
        for _ in range(self._count(2)):
            name, number = self._key(shape)
            if name in message:
                raise self._fault("duplicate key")
            if name == "payload":
                payload = PAYLOADS.get(self._contract(message))
                if payload is None:
                    return message
                shape[_PAYLOAD] = payload
            message[name] = self._value(shape.get(number), DEPTH_LIMIT)
        if self._at < len(self._data):
            raise self._fault("bytes after the message")
        return message

    def _contract(self, message: "dict[str, Any]") -> str:
        if "meta" not in message:
            raise self._fault("a payload before its metadata")
        meta = message["meta"]
        contract = meta.get("contract") if isinstance(meta, dict) else None
        return contract if isinstance(contract, str) else ""

    def _fault(self, what: str) -> CBORError:
        return CBORError(f"{what} at byte {self._at}")

    def _head(self) -> int:
        """Read a head: its kind; its argument is kept."""
        data = self._data
        at = self._at
        if at >= len(data):
            raise self._fault("the end of the bytes")
        extra = data[at] & 31
        if extra < 24:  # noqa: PLR2004 - RFC 8949, section 3: below, it is the argument
            self._argument = extra
            self._at = at + 1
        elif extra < 28:  # noqa: PLR2004 - … and up to here, its width
            end = at + 1 + (1 << extra - 24)
            if end > len(data):
                raise self._fault("the end of the bytes")
            self._argument = int.from_bytes(data[at + 1 : end], "big")
            self._at = end
        else:
            raise self._fault("an indefinite length")
        return data[at] >> _FIRST

    def _count(self, width: int) -> int:
        """Check the count in a head; each item of `width` values takes as many bytes at least."""
        count = self._argument
        if count > COUNT_LIMIT or count * width > len(self._data) - self._at:
            raise self._fault(f"{count} items announced")
        return count

    def _value(self, shape: "Any", depth: int) -> "Any":
        if self._at < len(self._data) and self._data[self._at] >> _FIRST > _TAG:
            return self._simple()
        kind = self._head()
        if kind <= _NEGATIVE:
            return self._integer(kind, shape)
        if kind <= _TEXT:
            return self._bytes_or_text(kind, shape)
        if kind == _TAG:
            raise self._fault("a tag")
        if not depth:
            raise self._fault(f"nested deeper than {DEPTH_LIMIT}")
        if kind == _MAP:
            return self._map(shape, depth - 1)
        item = shape[0] if isinstance(shape, list) else None
        result = []
        for _ in range(self._count(1)):
            result.append(self._value(item, depth - 1))
        return result

    def _map(self, shape: "Any", depth: int) -> "dict[str, Any]":
        shape = shape if isinstance(shape, dict) else None
        result: "dict[str, Any]" = {}
        for _ in range(self._count(2)):
            name, number = self._key(shape)
            if name in result:
                raise self._fault("duplicate key")
            result[name] = self._value(shape.get(number) if shape and number else None, depth)
        return result

    def _key(self, shape: "dict[int, Any] | None") -> "tuple[str, int]":
        """Read a key: its name and its number, 0 for a name that has none here."""
        kind = self._head()
        if kind == _TEXT:
            name = self._text()
            if shape and name in shape[0]:
                raise self._fault(f"{name} has a number")
            return name, 0
        if kind != _UINT or shape is None:
            raise self._fault("no key")
        number = self._argument
        known = shape[0][number] if number < len(shape[0]) else None
        return known or f"#{number}", number if known else 0

    def _integer(self, kind: int, shape: "Any") -> "int | str":
        number = self._argument
        if number > INTEGER_LIMIT - kind:
            raise self._fault("integer beyond 2**53")
        if kind == _NEGATIVE:
            return -1 - number
        if isinstance(shape, tuple) and number < len(shape) and shape[number]:
            return str(shape[number])
        return number

    def _bytes_or_text(self, kind: int, shape: "Any") -> "str | bytes":
        if shape == "base64":
            if kind == _TEXT:
                raise self._fault("a text where bytes belong")
            return self._taken()
        if kind == _TEXT:
            text = self._text()
            if (isinstance(shape, tuple) and text in shape) or (
                shape == "ulid" and _ulid_bytes(text)
            ):
                raise self._fault(f"{text} has a shorter form")
            return text
        if shape != "ulid" or self._argument != _ULID_BYTES:
            raise self._fault("bytes that are no id")
        value = int.from_bytes(self._taken(), "big")
        return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))

    def _text(self) -> str:
        start = self._at
        try:
            return decoded(self._taken(), start)
        except JSONError as error:
            problem = str(error)  # raised below: MicroPython warns about every chained exception
        raise CBORError(problem)

    def _taken(self) -> bytes:
        end = self._at + self._argument
        if end > len(self._data):
            raise self._fault("the end of the bytes")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _simple(self) -> "bool | float":
        first = self._data[self._at]
        if first in (0xF4, 0xF5):
            self._at += 1
            return first == 0xF5  # noqa: PLR2004 - true
        if not 0xF9 <= first <= 0xFB:  # noqa: PLR2004 - a half, a single, a double
            raise self._fault("no value that a message holds")
        self._head()
        width = 1 << (first & 31) - 24
        if width == 2:  # noqa: PLR2004 - MicroPython's struct knows no half
            number = _half(self._argument)
        else:
            form = ">f" if width == 4 else ">d"  # noqa: PLR2004 - bytes of a single
            number = struct.unpack(form, self._data[self._at - width : self._at])[0]
        if not isfinite(number):
            raise self._fault("no finite number")
        return number


def _half(bits: int) -> float:
    exponent = bits >> 10 & 31
    fraction = bits & 1023
    if exponent == 31:  # noqa: PLR2004 - infinities and NaN
        return float("inf")
    number = (fraction + 1024) * 2.0 ** (exponent - 25) if exponent else fraction * 2.0**-24
    return -number if bits >> 15 else number


def _write(out: bytearray, value: "Any", shape: "Any") -> None:
    if isinstance(value, bool):
        out.append(0xF5 if value else 0xF4)
    elif isinstance(value, int):
        _write_integer(out, value)
    elif isinstance(value, float):
        _write_float(out, value)
    elif isinstance(value, str):
        _write_text(out, value, shape)
    elif isinstance(value, dict):
        _write_map(out, value, shape if isinstance(shape, dict) else None)
    elif isinstance(value, (list, tuple)):
        write_head(out, _ARRAY, len(value))
        item = shape[0] if isinstance(shape, list) else None
        for each in value:
            _write(out, each, item)
    else:
        raise ValueError(f"{type(value)} cannot be written as CBOR")  # noqa: TRY004 - as in jsonprint


def write_head(out: bytearray, kind: int, argument: int) -> None:
    """Append a head in its shortest form; kind 0 to 7 as in RFC 8949, section 3.1."""
    kind <<= _FIRST
    if argument < 24:  # noqa: PLR2004 - RFC 8949, section 3
        out.append(kind | argument)
        return
    power = 0
    while argument >> (8 << power):
        power += 1
    out.append(kind | 24 + power)
    out.extend(argument.to_bytes(1 << power, "big"))


def _write_integer(out: bytearray, value: int) -> None:
    if not -INTEGER_LIMIT <= value <= INTEGER_LIMIT:
        raise ValueError(f"{value} is beyond 2**53")
    if value < 0:
        write_head(out, _NEGATIVE, -1 - value)
    else:
        write_head(out, _UINT, value)


def _write_text(out: bytearray, value: str, shape: "Any") -> None:
    if isinstance(shape, tuple) and value in shape:
        write_head(out, _UINT, shape.index(value))
        return
    data = _ulid_bytes(value) if shape == "ulid" else None
    if data is None:
        data = value.encode()
        write_head(out, _TEXT, len(data))
    else:
        write_head(out, _BYTES, len(data))
    out.extend(data)


def _write_map(out: bytearray, value: "dict[str, Any]", shape: "dict[int, Any] | None") -> None:
    write_head(out, _MAP, len(value))
    names = shape[0] if shape else ()
    # By number, so that metadata stand before the payload they explain.
    for number in range(1, len(names)):
        if names[number] in value:
            write_head(out, _UINT, number)
            _write(out, value[names[number]], shape.get(number))  # type: ignore[union-attr] # names are its
    for name in value:
        if name not in names:
            _write_text(out, name, None)
            _write(out, value[name], None)


def _write_float(out: bytearray, value: float) -> None:
    if not isfinite(value):
        raise ValueError(f"{value} is no finite number")
    if abs(value) <= _LARGEST_SINGLE:
        single = struct.pack(">f", value)
        back = struct.unpack(">f", single)[0]
        if back == value:
            half = _half_bits(int.from_bytes(single, "big"))
            if half is None:
                out.append(0xFA)
                out.extend(single)
            else:
                out.append(0xF9)
                out.extend(half.to_bytes(2, "big"))
            return
    out.append(0xFB)
    out.extend(struct.pack(">d", value))


def _half_bits(single: int) -> "int | None":
    """The bits of a half that is the same number as these of a single, None when there is none."""
    exponent = (single >> 23 & 255) - 127
    fraction = single & 0x7FFFFF
    sign = single >> 16 & 0x8000
    if -14 <= exponent <= 15 and not fraction & 0x1FFF:  # noqa: PLR2004 - those of a half
        return sign | exponent + 15 << 10 | fraction >> 13
    if exponent == -127 and not fraction:  # noqa: PLR2004 - zero
        return sign
    drop = -1 - exponent
    if 14 <= drop <= 23 and not (fraction | 0x800000) & (1 << drop) - 1:  # noqa: PLR2004 - a half without exponent
        return sign | (fraction | 0x800000) >> drop
    return None


def _ulid_bytes(text: str) -> "bytes | None":
    """The 16 bytes of an id, None for a text that is none."""
    if len(text) != _ULID_LENGTH or text[0] > "7":
        return None
    value = 0
    for character in text:
        digit = _CROCKFORD.find(character)
        if digit < 0:
            return None
        value = value << 5 | digit
    return value.to_bytes(_ULID_BYTES, "big")
