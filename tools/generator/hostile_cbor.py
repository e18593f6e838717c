"""Valid CBOR of a contract, spoiled in every known way; read here, not by the hub's own code."""

from collections.abc import Iterator

from generator.hostile_kinds import Kind, Spoiled

MARK = b"\xd9\xd9\xf7"
_META, _PAYLOAD = b"\x02", b"\x03"
_BYTES, _TEXT, _ARRAY, _MAP = 2, 3, 4, 5
_SHORT = 24
_NONE_HAS_IT = 999

Entries = list[tuple[bytes, bytes]]


def spoiled(valid: bytes, kind: Kind) -> Iterator[Spoiled]:
    """Every spoiled form of a valid message, and the few odd ones that are to be taken."""
    parts = _Parts(valid, kind)
    yield from _as_a_whole(parts)
    yield from _keys(parts)
    yield from _values(parts)
    yield from _numbers(parts)
    yield from _ids(parts)
    yield from _enums(parts)
    yield from _payloads(parts)
    if kind.has_topic:
        yield from _judged(parts)
    yield from _taken(parts)


class _Parts:
    """A message's metadata and payload, as keys and values."""

    def __init__(self, valid: bytes, kind: Kind) -> None:
        root = dict(_entries(valid, len(MARK)))
        self.valid, self.kind = valid, kind
        self.meta = _entries(root[_META], 0)
        self.payload = root[_PAYLOAD]

    def but(self, field: str, value: bytes | None) -> bytes:
        """The message with another value for a field of its metadata; None: without it."""
        key = head(0, self.kind.key(field))
        if value is None:
            return self.of([each for each in self.meta if each[0] != key])
        if key not in dict(self.meta):
            return self.more((key, value))
        return self.of([(k, value if k == key else v) for k, v in self.meta])

    def more(self, *entries: tuple[bytes, bytes]) -> bytes:
        """The message with more entries, before the others of its metadata."""
        return self.of([*entries, *self.meta])

    def of(self, meta: Entries) -> bytes:
        """The message with these metadata."""
        return MARK + joined([(_META, joined(meta)), (_PAYLOAD, self.payload)])

    def around(self, payload: bytes) -> bytes:
        """The message with this payload."""
        return MARK + joined([(_META, joined(self.meta)), (_PAYLOAD, payload)])

    def value(self, field: str) -> bytes:
        return dict(self.meta)[head(0, self.kind.key(field))]


def _wrong(name: str, data: bytes) -> Spoiled:
    return Spoiled(name, "decode", "decode_error", data)


def _invalid(name: str, data: bytes, reason: str = "schema_invalid") -> Spoiled:
    return Spoiled(name, "schema", reason, data)


def _as_a_whole(parts: _Parts) -> Iterator[Spoiled]:
    valid = parts.valid
    whole = valid[len(MARK) :]
    meta, payload = joined(parts.meta), parts.payload
    yield _wrong("CBOR that ends too early", valid[:-1])
    yield _wrong("CBOR that ends in its metadata", valid[: len(MARK) + 12])
    yield _wrong("CBOR that ends behind its tag", MARK)
    yield _wrong("CBOR that ends in its tag", MARK[:2])
    yield _wrong("CBOR with a byte behind it", valid + b"\x00")
    yield _wrong("CBOR with a message behind it", valid + MARK + b"\xa0")
    yield _wrong("CBOR under another tag", b"\xd9\xd9\xf6" + whole)
    yield _wrong("CBOR under the tag twice", MARK + valid)
    yield _wrong("CBOR that is an array", MARK + b"\x82" + whole[1:])
    yield _wrong("CBOR that is a text", MARK + b"\x61a")
    yield _wrong("CBOR of indefinite length", MARK + b"\xbf" + whole[1:] + b"\xff")
    yield _wrong("the payload before its metadata", MARK + b"\xa2\x03\xa0\x02" + meta)
    yield _wrong("a payload without metadata", MARK + b"\xa1\x03" + payload)
    yield _wrong("the metadata twice", MARK + b"\xa3\x02\xa0" + whole[1:])
    yield _wrong("the payload twice", MARK + b"\xa3" + whole[1:] + b"\x03\xa0")
    yield _invalid("nothing in CBOR", MARK + b"\xa0")
    yield _invalid("metadata without a payload", MARK + b"\xa1\x02" + meta)
    yield _invalid("metadata that are a list", MARK + b"\xa1\x02\x80")
    strange = MARK + b"\xa3\x02" + meta + b"\x18\x63\x00" + _PAYLOAD + payload
    yield _invalid("a number beside metadata and payload", strange)


def _keys(parts: _Parts) -> Iterator[Spoiled]:
    source = parts.value("source")
    key = head(0, parts.kind.key("source"))
    yield _wrong("a key twice in CBOR", parts.more((key, source)))
    yield _wrong("a key twice, once longer", parts.more((b"\x18" + key, source)))
    yield _wrong("a key by number and by name", parts.more((text("source"), source)))
    named = [(text("source"), v) if k == key else (k, v) for k, v in parts.meta]
    yield _wrong("a key by its name", parts.of(named))
    yield _wrong("a key that is negative", parts.more((b"\x20", b"\x00")))
    yield _wrong("a key that is bytes", parts.more((b"\x41a", b"\x00")))
    yield _wrong("a key that is a truth value", parts.more((b"\xf5", b"\x00")))
    yield _wrong("a key that is a list", parts.more((b"\x80", b"\x00")))
    yield _wrong("a key that is null", parts.more((b"\xf6", b"\x00")))
    yield _invalid("an unknown number for a field", parts.more((b"\x18\xc8", b"\x00")))
    yield _invalid("number 0 for a field", parts.more((b"\x00", b"\x00")))
    yield _invalid("a name of no field", parts.more((text("colour"), b"\x00")))


def _values(parts: _Parts) -> Iterator[Spoiled]:
    yield _wrong("null in CBOR", parts.but("source", b"\xf6"))
    yield _wrong("undefined in CBOR", parts.but("source", b"\xf7"))
    yield _wrong("a simple value in CBOR", parts.but("source", b"\xf8\x20"))
    yield _wrong("an end of nothing in CBOR", parts.but("source", b"\xff"))
    yield _wrong("a head that is reserved", parts.but("source", b"\x7c"))
    yield _wrong("a tag inside CBOR", parts.but("source", b"\xc0" + parts.value("source")))
    yield _wrong("bytes where a text stands", parts.but("source", b"\x41a"))
    yield _wrong("a text in pieces", parts.but("source", b"\x7f\x61a\x61b\xff"))
    yield _wrong("a list without an end", parts.but("source", b"\x9f\x01\xff"))
    yield _wrong("no UTF-8 in CBOR", parts.but("source", b"\x62\xff\xfe"))
    yield _wrong("UTF-8 that is too long", parts.but("source", b"\x62\xc0\x80"))
    yield _wrong("half a surrogate in UTF-8", parts.but("source", b"\x63\xed\xa0\x80"))
    yield _wrong("a text longer than the message", parts.but("source", b"\x79\xff\xff\x61"))
    yield _wrong("a text of an exabyte", parts.but("source", b"\x7b\x10" + bytes(7)))
    yield _wrong(
        "four thousand million items announced", parts.but("source", b"\x9a" + b"\xff" * 4)
    )
    yield _wrong("a map of four thousand million", parts.but("source", b"\xba" + b"\xff" * 4))
    yield _wrong("a list of 129 items", parts.but("source", b"\x98\x81" + bytes(129)))
    yield _wrong("seventeen arrays in each other", parts.but("source", b"\x81" * 17 + b"\x00"))
    yield _wrong("seventeen maps in each other", parts.but("source", b"\xa1\x61a" * 17 + b"\x00"))
    yield _invalid("an integer where a text stands", parts.but("source", b"\x01"))
    yield _invalid("a list where a text stands", parts.but("source", b"\x80"))
    yield _invalid("a map where a text stands", parts.but("source", b"\xa0"))
    yield _invalid("true where a text stands", parts.but("source", b"\xf5"))
    yield _invalid("a float where a text stands", parts.but("source", b"\xf9\x3c\x00"))
    yield _invalid("an empty text in CBOR", parts.but("source", b"\x60"))


def _numbers(parts: _Parts) -> Iterator[Spoiled]:
    # `boot` may stand in the metadata of every contract.
    yield _wrong("NaN in CBOR", parts.but("boot", b"\xf9\x7e\x00"))
    yield _wrong("NaN of eight bytes", parts.but("boot", b"\xfb\x7f\xf8" + bytes(6)))
    yield _wrong("infinity in CBOR", parts.but("boot", b"\xfa\x7f\x80\x00\x00"))
    yield _wrong("negative infinity in CBOR", parts.but("boot", b"\xf9\xfc\x00"))
    yield _wrong("an integer of 2^53 in CBOR", parts.but("boot", b"\x1b\x00\x20" + bytes(6)))
    yield _wrong("an integer of 2^64 - 1", parts.but("boot", b"\x1b" + b"\xff" * 8))
    yield _wrong("a negative of 2^64", parts.but("boot", b"\x3b" + b"\xff" * 8))
    yield _wrong("a big number", parts.but("boot", b"\xc2\x41\x01"))
    yield _invalid("a negative where none may be", parts.but("boot", b"\x20"))
    yield _invalid("true for an integer in CBOR", parts.but("boot", b"\xf5"))
    yield _invalid("half a boot", parts.but("boot", b"\xf9\x38\x00"))
    yield _invalid("a text for an integer in CBOR", parts.but("boot", b"\x611"))
    # A schema takes 3.0 for an integer, the wire does not.
    yield Spoiled(
        "a float for an integer", "guard", "schema_invalid", parts.but("boot", b"\xf9\x42\x00")
    )


def _ids(parts: _Parts) -> Iterator[Spoiled]:
    as_text = b"\x78\x1a" + _ulid(parts.value("message_id")[1:]).encode()
    yield _wrong("an id of 15 bytes", parts.but("message_id", b"\x4f" + bytes(15)))
    yield _wrong("an id of 17 bytes", parts.but("message_id", b"\x51" + bytes(17)))
    yield _wrong("an id as text in CBOR", parts.but("message_id", as_text))
    yield _invalid("an id missing in CBOR", parts.but("message_id", None))
    yield _invalid("an id that is a number", parts.but("message_id", b"\x01"))
    yield _invalid("a text for an id that is none", parts.but("message_id", text("x" * 26)))


def _enums(parts: _Parts) -> Iterator[Spoiled]:
    field = "clk" if any(k == head(0, parts.kind.key("clk")) for k, _ in parts.meta) else "priority"
    name = parts.kind.meta[field]["enum"][0] if "enum" in parts.kind.meta[field] else "normal"
    yield _wrong("a name that has a number", parts.but(field, text(name)))
    yield _invalid("an unknown number for a name", parts.but(field, b"\x18\x63"))
    yield _invalid("number 0 for a name", parts.but(field, b"\x00"))
    yield _invalid("a negative number for a name", parts.but(field, b"\x20"))
    yield _invalid("a name that there is not", parts.but(field, text("nonsense")))
    yield _wrong("a contract by its name", parts.but("contract", text(parts.kind.contract)))
    none = head(0, _NONE_HAS_IT)
    foreign = parts.kind.foreign()
    yield _invalid("a number that no contract has", parts.but("contract", none), foreign)
    yield _invalid("no contract", parts.but("contract", None), foreign)


def _payloads(parts: _Parts) -> Iterator[Spoiled]:
    yield _invalid("a payload that is a number", parts.around(b"\x01"))
    yield _invalid("a payload that is a list of nothing", parts.around(b"\x80"))
    yield _wrong("a payload that is null", parts.around(b"\xf6"))
    entries = _entries(parts.payload, 0)
    yield _invalid(
        "an unknown number in the payload", parts.around(joined([(b"\x18\xc8", b"\x00"), *entries]))
    )
    fields = parts.kind.payload()
    for place, (key, _) in enumerate(entries):
        _, schema = fields[key[-1]]
        before, after = entries[:place], entries[place + 1 :]
        told = f"field {place + 1} of the payload"
        yield _wrong(f"{told} twice", parts.around(joined([(key, b"\x00"), *entries])))
        yield _wrong(f"{told} null", parts.around(joined([*before, (key, b"\xf6"), *after])))
        if schema.get("type") != "object" and "anyOf" not in schema:
            data = parts.around(joined([*before, (key, b"\xa0"), *after]))
            yield _invalid(f"{told} a map", data)


def _judged(parts: _Parts) -> Iterator[Spoiled]:
    """What a guard refuses."""
    drift = parts.but("message_type", head(0, parts.kind.another))
    yield Spoiled("drift in CBOR", "guard", "contract_drift", drift)
    json = parts.but("content_type", b"\x01")
    yield Spoiled("CBOR that says it is JSON", "guard", "unsupported_encoding", json)
    if not parts.kind.is_state:
        yield Spoiled("the same CBOR again", "guard", "duplicate", parts.valid, twice=True)


def _taken(parts: _Parts) -> Iterator[Spoiled]:
    """Heads may be longer than they need to be: a board fills fields of one width."""
    boot = parts.but("boot", b"\x1b" + bytes(7) + b"\x03")
    yield Spoiled("an integer of eight bytes", None, None, boot)
    source = parts.value("source")
    length = source[0] & 31
    if length < _SHORT:
        wide = parts.but("source", b"\x7a\x00\x00\x00" + bytes([length]) + source[1:])
        yield Spoiled("a text whose length has four bytes", None, None, wide)
    keys = [(b"\x19\x00" + k, v) if len(k) == 1 else (k, v) for k, v in parts.meta]
    yield Spoiled("keys of two bytes", None, None, parts.of(keys))


def head(kind: int, argument: int) -> bytes:
    """A head in its shortest form (RFC 8949, section 3)."""
    if argument < _SHORT:
        return bytes([kind << 5 | argument])
    width = next(width for width in (1, 2, 4, 8) if argument < 1 << 8 * width)
    return bytes([kind << 5 | 23 + width.bit_length()]) + argument.to_bytes(width)


def text(value: str) -> bytes:
    """A text of ASCII."""
    return head(_TEXT, len(value)) + value.encode()


def joined(entries: Entries) -> bytes:
    """A map of keys and values."""
    return head(_MAP, len(entries)) + b"".join(key + value for key, value in entries)


def _entries(data: bytes, at: int) -> Entries:
    count, at = _argument(data, at)
    entries = []
    for _ in range(count):
        middle = _end(data, at)
        after = _end(data, middle)
        entries.append((data[at:middle], data[middle:after]))
        at = after
    return entries


def _argument(data: bytes, at: int) -> tuple[int, int]:
    extra = data[at] & 31
    if extra < _SHORT:
        return extra, at + 1
    end = at + 1 + (1 << extra - _SHORT)
    return int.from_bytes(data[at + 1 : end]), end


def _end(data: bytes, at: int) -> int:
    """Where the item ends that begins at `at`."""
    kind = data[at] >> 5
    argument, after = _argument(data, at)
    if kind in (_BYTES, _TEXT):
        return after + argument
    for _ in range(argument * (kind - _ARRAY + 1) if kind in (_ARRAY, _MAP) else 0):
        after = _end(data, after)
    return after


def _ulid(data: bytes) -> str:
    value = int.from_bytes(data)
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(digits[value >> shift & 31] for shift in range(125, -1, -5))
