"""Valid Protobuf of a contract, spoiled in every known way; read here, not by a library."""

import struct
from collections.abc import Iterator

from generator.hostile_kinds import Kind, Spoiled

_META, _PAYLOAD = 2, 3
_VARINT, _FIXED, _LENGTH = 0, 1, 2
_UNKNOWN = 1015
_SPECTRAL, _COHERENCE, _CRITICALITY = "spectral", 1, 2

Fields = list[tuple[int, int, bytes]]
"""Number, wire type, and what stands behind the tag: for a length, without it."""


def spoiled(valid: bytes, kind: Kind) -> Iterator[Spoiled]:
    """Every spoiled form of a valid message, and an odd one that is to be taken."""
    parts = _Parts(valid, kind)
    yield from _as_a_whole(parts)
    yield from _fields(parts)
    yield from _values(parts)
    yield from _names(parts)
    if kind.has_topic:
        yield from _judged(parts)
    backwards = parts.of(parts.meta[::-1])
    yield Spoiled("metadata in another order, in Protobuf", None, None, backwards)


class _Parts:
    """A message's metadata and payload, as fields."""

    def __init__(self, valid: bytes, kind: Kind) -> None:
        root = {number: value for number, _, value in _read(valid)}
        self.valid, self.kind = valid, kind
        self.meta, self.payload = _read(root[_META]), root[_PAYLOAD]

    def but(self, field: str, kind: int, value: bytes | None) -> bytes:
        """The message with another value for a field of its metadata; None: without it."""
        number = self.kind.key(field)
        if value is None:
            return self.of([each for each in self.meta if each[0] != number])
        if number not in {each for each, _, _ in self.meta}:
            return self.of([(number, kind, value), *self.meta])
        return self.of([(number, kind, value) if e[0] == number else e for e in self.meta])

    def of(self, meta: Fields, more: bytes = b"") -> bytes:
        """The message with these metadata, `more` before them."""
        return written([(_META, _LENGTH, more + written(meta)), (_PAYLOAD, _LENGTH, self.payload)])

    def around(self, payload: bytes) -> bytes:
        return written([(_META, _LENGTH, written(self.meta)), (_PAYLOAD, _LENGTH, payload)])

    def value(self, field: str) -> bytes:
        number = self.kind.key(field)
        return next(value for each, _, value in self.meta if each == number)


def _wrong(name: str, data: bytes) -> Spoiled:
    return Spoiled(f"{name}, in Protobuf", "decode", "decode_error", data)


def _invalid(name: str, data: bytes, reason: str = "schema_invalid") -> Spoiled:
    return Spoiled(f"{name}, in Protobuf", "schema", reason, data)


def _as_a_whole(parts: _Parts) -> Iterator[Spoiled]:
    valid = parts.valid
    meta = written([(_META, _LENGTH, written(parts.meta))])
    yield _wrong("an end too early", valid[:-1])
    yield _wrong("an end in the metadata", valid[:12])
    yield _wrong("the first byte alone", valid[:1])
    yield _wrong("a byte behind it", valid + b"\x00")
    yield _wrong("a length beyond the end", b"\x12\xff\x7f" + valid[2:])
    yield _wrong("a length of eleven bytes", b"\x12" + b"\xff" * 10 + b"\x01")
    yield _wrong("a length that is longer than it need be", _widened(valid))
    yield _wrong("the payload twice", valid + b"\x1a\x00")
    yield _wrong("the metadata twice", b"\x12\x00" + valid)
    yield _wrong("a group", valid + b"\x2b\x2c")
    yield _wrong("the end of a group", valid + b"\x2c")
    yield _wrong("field number 0", valid + b"\x02\x00")
    yield _wrong("a wire type that there is not", valid + b"\x2f")
    yield _wrong("a payload that is a number", meta + b"\x18\x01")
    yield _invalid("metadata without a payload", meta)
    yield _invalid("metadata of nothing", b"\x12\x00", parts.kind.foreign())


def _fields(parts: _Parts) -> Iterator[Spoiled]:
    unknown = tag(_UNKNOWN, _VARINT) + b"\x01"
    source = [each for each in parts.meta if each[0] == parts.kind.key("source")]
    yield _wrong("an unknown field", parts.valid + tag(5, _LENGTH) + b"\x00")
    yield _wrong("an unknown field in the metadata", parts.of(parts.meta, unknown))
    yield _wrong("an unknown field in the payload", parts.around(unknown + parts.payload))
    yield _wrong("a field twice", parts.of(parts.meta, written(source)))
    first = parts.payload[: _end(parts.payload, 0)]
    yield _wrong("a field of the payload twice", parts.around(first + parts.payload))
    yield _wrong("a number where a text stands", parts.but("source", _VARINT, b"\x01"))
    yield _wrong("eight bytes where a text stands", parts.but("source", _FIXED, bytes(8)))
    yield _wrong("a text where a number stands", parts.but("boot", _LENGTH, b"3"))
    yield _wrong("a double where an integer stands", parts.but("boot", _FIXED, bytes(8)))


def _values(parts: _Parts) -> Iterator[Spoiled]:
    yield _wrong("no UTF-8", parts.but("source", _LENGTH, b"\xff\xfe"))
    yield _wrong("half a surrogate", parts.but("source", _LENGTH, b"\xed\xa0\x80"))
    yield _wrong("an integer of 2^53", parts.but("boot", _VARINT, b"\x80" * 7 + b"\x10"))
    yield _wrong(
        "an integer that is longer than it need be", parts.but("boot", _VARINT, b"\x83\x00")
    )
    yield _wrong("a true that is 2", parts.but("historical", _VARINT, b"\x02"))
    yield _wrong("an integer of eleven bytes", parts.but("boot", _VARINT, b"\x80" * 10 + b"\x01"))
    yield _invalid(
        "a negative where none may be", parts.but("boot", _VARINT, b"\xff" * 9 + b"\x01")
    )
    yield _invalid("an empty text", parts.but("source", _LENGTH, b""))
    for name, number in (("NaN", float("nan")), ("infinity", float("inf"))):
        rows = [(_COHERENCE, _FIXED, struct.pack("<d", number)), (_CRITICALITY, _FIXED, bytes(8))]
        yield _wrong(name, parts.but(_SPECTRAL, _LENGTH, written(rows)))


def _names(parts: _Parts) -> Iterator[Spoiled]:
    field = "clk" if any(each[0] == parts.kind.key("clk") for each in parts.meta) else "priority"
    foreign = parts.kind.foreign()
    yield _invalid("an enum's 0", parts.but(field, _VARINT, b"\x00"))
    yield _invalid("an enum's 99", parts.but(field, _VARINT, b"\x63"))
    yield _invalid("an enum's -1", parts.but(field, _VARINT, b"\xff" * 9 + b"\x01"))
    yield _invalid("an id missing", parts.but("message_id", _LENGTH, None))
    yield _invalid("an id as bytes", parts.but("message_id", _LENGTH, bytes(16)))
    yield _invalid(
        "an id of small letters", parts.but("message_id", _LENGTH, b"01m7x8pqg0fp793dtr98h6bcfn")
    )
    yield _invalid("no contract", parts.but("contract", _LENGTH, None), foreign)
    yield _invalid(
        "a contract that there is not", parts.but("contract", _LENGTH, b"Nonsense"), foreign
    )


def _judged(parts: _Parts) -> Iterator[Spoiled]:
    """What a guard refuses."""
    drift = parts.but("message_type", _LENGTH, b"Another")
    yield Spoiled("drift in Protobuf", "guard", "contract_drift", drift)
    cbor = parts.but("content_type", _VARINT, b"\x02")
    yield Spoiled("Protobuf that says it is CBOR", "guard", "unsupported_encoding", cbor)
    if not parts.kind.is_state:
        yield Spoiled("the same Protobuf again", "guard", "duplicate", parts.valid, twice=True)


def tag(number: int, kind: int) -> bytes:
    """The tag of a field."""
    return varint(number << 3 | kind)


def varint(value: int) -> bytes:
    """An integer of seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:  # noqa: PLR2004 - seven bits
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def written(fields: Fields) -> bytes:
    """Fields as bytes."""
    return b"".join(
        tag(number, kind) + (varint(len(value)) if kind == _LENGTH else b"") + value
        for number, kind, value in fields
    )


def _widened(valid: bytes) -> bytes:
    """The same with a length of the metadata that has one byte too many."""
    length, after = _varint(valid, 1)
    return valid[:1] + varint(length)[:-1] + bytes([varint(length)[-1] | 128, 0]) + valid[after:]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:  # noqa: PLR2004 - seven bits
            return value, at


def _read(data: bytes) -> Fields:
    fields, at = [], 0
    while at < len(data):
        header, start = _varint(data, at)
        at = _end(data, at)
        value = data[start:at]
        if header & 7 == _LENGTH:
            value = data[_varint(data, start)[1] : at]
        fields.append((header >> 3, header & 7, value))
    return fields


def _end(data: bytes, at: int) -> int:
    """Where the field ends that begins at `at`."""
    header, at = _varint(data, at)
    kind = header & 7
    if kind == _VARINT:
        return _varint(data, at)[1]
    if kind == _FIXED:
        return at + 8
    length, at = _varint(data, at)
    return at + length
