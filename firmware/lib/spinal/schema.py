"""A checker for the part of JSON Schema that our contracts use, over schemas packed into bytes.

Types are strict: a bool is no number, 1.0 no integer, NaN and infinities no number, and an integer
beyond ± 2**53 is none that JavaScript could hold. Patterns are not run but named by "x-check".

A schema is a run of rules up to a zero: number (its place in KEYWORDS, from 1), length of the rest
in two bytes, and
  type                   its place in KINDS
  const, enum            the constants, one after the other (see `spell`)
  x-check                its place in CHECKS
  required               names, each ended by a zero
  properties             where the schema of all others stands (0: they may be anything, 1: there
                         may be none), then each name (see `spell`) and where its schema stands
  items                  where the schema of all stands; allOf, anyOf, oneOf: of each
  minimum, maximum       1 for a negative number, then its amount
  the others             a number of two bytes
Places are two bytes that count from the start of the table.
"""

from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTEGER_LIMIT = (1 << 53) - 1

KEYWORDS = (
    "type const enum required minProperties maxProperties properties minItems maxItems items "
    "minLength maxLength x-check minimum maximum allOf anyOf oneOf"
)
"""All a schema may use, in the order in which they are checked."""
KINDS = "object array string boolean null integer number"
CHECKS = "ulid level source timestamp hex16 hex64 hex version path base64"
"""The named checks that stand for a "pattern"."""
ANYTHING, NOTHING = 0, 1

_ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_HEX = "0123456789abcdef"
_WORD = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Rules that are told with the path of a key, though it is the object around it that breaks them.
_OF_THE_PARENT = ("required", "additionalProperties")
_TIMESTAMP = "####-##-##T##:##:##.###Z"
_SPACE = 32
_BEGIN = 2
_END = 3
_OBJECT = 0
_ARRAY = 1
_STRING = 2
_BOOLEAN = 3
_NULL = 4
_INTEGER = 5
_NUMBER = 6
_NO_NUMBER = 7
# The rules that are for one kind of value alone, from and up to; by kind.
_RULES_OF = bytes((3, 7, 7, 10, 10, 13, 0, 0, 0, 0, 13, 15, 13, 15, 13, 15))
_OF_ONE_KIND = 3
_FOR_ALL_AGAIN = 15
_MIN_LENGTH = 10
_MAX_LENGTH = 11
_NAMED = 12
_BASE64 = 9
_PROPERTIES = 6


def check(table: bytes, at: int, value: object) -> "tuple[str, str] | None":
    """Return None when value keeps to the schema at this place, else (path, rule) of a breach.

    path is a JSON pointer such as "/payload/value"; rule is the keyword that was broken, or the
    named check.
    """
    if isinstance(value, bytes):
        return _check_bytes(table, at, value)
    kind = _kind(value)
    low = _RULES_OF[2 * kind]
    high = _RULES_OF[2 * kind + 1]
    while table[at]:
        rule = table[at] - 1
        start = at + 3
        at = start + (table[at + 1] << 8 | table[at + 2])
        if rule == 0:
            if kind != table[start] and (kind, table[start]) != (_INTEGER, _NUMBER):
                return "", "type"
        elif low <= rule < high or not _OF_ONE_KIND <= rule < _FOR_ALL_AGAIN:
            breach = _CHECKERS[rule](table, start, at, value)
            if breach is not None:
                return breach or ("", KEYWORDS.split()[rule])
    return None


def part(table: bytes, at: int, name: str) -> int:
    """Where the schema of one property of the object at this place stands; KeyError."""
    while table[at]:
        end = at + 3 + _two(table, at + 1)
        if table[at] - 1 == _PROPERTIES:
            found = _found(table, at + 5, end, name)
            if found:
                return _two(table, found)
        at = end
    raise KeyError(name)


def _two(table: bytes, at: int) -> int:
    return table[at] << 8 | table[at + 1]


def _kind(value: "Any") -> int:
    if isinstance(value, dict):
        return _OBJECT
    if isinstance(value, str):
        return _STRING
    if isinstance(value, bool):
        return _BOOLEAN
    if isinstance(value, int):
        return _INTEGER if -INTEGER_LIMIT <= value <= INTEGER_LIMIT else _NO_NUMBER
    if isinstance(value, float):
        return _NUMBER if isfinite(value) else _NO_NUMBER
    return _NULL if value is None else _ARRAY


def _found(table: bytes, start: int, end: int, value: "Any") -> int:
    """Where a name or a constant ends in this part of the table, 0 when it is not there."""
    if not isinstance(value, str):
        text = spell(value)
        at = table.find(text, start, end) if text else -1
        return 0 if at < 0 else at + len(text)
    text = value.encode()
    if not text or min(text) < _SPACE:
        return 0
    # As `spell` has it, but what surrounds it is looked at in place, and with so few names that the
    # frame is not taken from the heap: this is done for each key.
    at = table.find(text, start, end)
    while at >= 0:
        if table[at - 1] == _BEGIN and table[at + len(text)] == _END:
            return at + len(text) + 1
        at = table.find(text, at + 1, end)
    return 0


def spell(value: "Any") -> bytes:
    """A text or an integer as it stands in a table; nothing for what cannot stand there.

    Its beginning and end are bytes below 32, which are no part of it: no other one, and no place,
    can be taken for it.
    """
    if isinstance(value, str):
        text = value.encode()
        return b"\2" + text + b"\3" if text and min(text) >= _SPACE else b""
    if isinstance(value, int) and not isinstance(value, bool):
        return b"\4" + str(value).encode() + b"\3"
    return b""


# What follows returns None for a rule that is kept, else () or the breach found further inside.
# A path is put together only where there is a breach, from the inside out: paths of everything
# that is checked cost a board 50 KiB of garbage for one rule.


def _check_constants(table: bytes, start: int, end: int, value: object) -> "tuple[()] | None":
    return None if _found(table, start, end, value) else ()


def _check_required(
    table: bytes, start: int, end: int, value: "dict[str, Any]"
) -> "tuple[str, str] | None":
    while start < end:
        stop = table.find(b"\0", start)
        name = table[start:stop].decode()
        if name not in value:
            return "/" + name, "required"
        start = stop + 1
    return None


def _check_least(table: bytes, start: int, _end: int, value: "Any") -> "tuple[()] | None":
    return () if len(value) < _two(table, start) else None


def _check_most(table: bytes, start: int, _end: int, value: "Any") -> "tuple[()] | None":
    return () if len(value) > _two(table, start) else None


def _check_properties(
    table: bytes, start: int, end: int, value: "dict[str, Any]"
) -> "tuple[str, str] | None":
    others = table[start] << 8 | table[start + 1]
    for key in value:
        at = _found(table, start + 2, end, key)
        place = table[at] << 8 | table[at + 1] if at else others
        if place == NOTHING:
            return "/" + key, "additionalProperties"
        if place != ANYTHING:
            breach = check(table, place, value[key])
            if breach:
                return "/" + key + breach[0], breach[1]
    return None


def _check_items(
    table: bytes, start: int, _end: int, value: "list[Any] | tuple[Any, ...]"
) -> "tuple[str, str] | None":
    place = _two(table, start)
    for position in range(len(value)):
        breach = check(table, place, value[position])
        if breach:
            return f"/{position}{breach[0]}", breach[1]
    return None


def _check_named(table: bytes, start: int, _end: int, value: str) -> "tuple[str, str] | None":
    number = table[start]
    return None if _NAMED_CHECKS[number](value) else ("", CHECKS.split()[number])


def _check_bytes(table: bytes, at: int, value: bytes) -> "tuple[str, str] | None":
    """What CBOR gives where JSON has base64; the limits are those of the text."""
    size = (len(value) + 2) // 3 * 4
    said = "type"
    while table[at]:
        rule = table[at] - 1
        start = at + 3
        at = start + _two(table, at + 1)
        if rule == _MIN_LENGTH and size < _two(table, start):
            return "", "minLength"
        if rule == _MAX_LENGTH and size > _two(table, start):
            return "", "maxLength"
        if rule == _NAMED and table[start] == _BASE64:
            said = ""
    return ("", said) if said else None


def _check_minimum(table: bytes, start: int, end: int, value: "Any") -> "tuple[()] | None":
    return () if value < _number(table, start, end) else None


def _check_maximum(table: bytes, start: int, end: int, value: "Any") -> "tuple[()] | None":
    return () if value > _number(table, start, end) else None


def _number(table: bytes, start: int, end: int) -> int:
    if start + 1 == end:
        return 0
    amount = int.from_bytes(table[start + 1 : end], "big")
    return -amount if table[start] else amount


def _check_all(table: bytes, start: int, end: int, value: object) -> "tuple[str, str] | None":
    for at in range(start, end, 2):
        breach = check(table, _two(table, at), value)
        if breach:
            return breach
    return None


def _check_any(table: bytes, start: int, end: int, value: object) -> "tuple[str, str] | None":
    """Check anyOf: the breach of the part that came furthest, most likely the one meant."""
    deepest = "", "anyOf"
    reached = -1
    for at in range(start, end, 2):
        breach = check(table, _two(table, at), value)
        if breach is None:
            return None
        depth = breach[0].count("/") - (breach[1] in _OF_THE_PARENT)
        if breach[0] and depth > reached:
            reached = depth
            deepest = breach
    return deepest


def _check_one(table: bytes, start: int, end: int, value: object) -> "tuple[()] | None":
    matches = 0
    for at in range(start, end, 2):
        matches += check(table, _two(table, at), value) is None
    return None if matches == 1 else ()


def _is_ulid(text: str) -> bool:
    return len(text) == 26 and text[0] in "01234567" and _made_of(text, _ULID)  # noqa: PLR2004 - 128 bits, 5 to a character


def _is_level(text: str) -> bool:
    return 0 < len(text) <= 64 and _is_plain(text)  # noqa: PLR2004 - wire: 1 to 64 characters


def _is_plain(text: str) -> bool:
    """No control characters, whatever the length."""
    return not text or (min(text.encode()) >= _SPACE and "\x7f" not in text)


def _is_timestamp(text: str) -> bool:
    """ISO 8601 in UTC with milliseconds; the day is checked to 31 only, as the contracts do."""
    if len(text) != len(_TIMESTAMP):
        return False
    for position in range(len(text)):
        sample = _TIMESTAMP[position]
        if sample == "#":
            if not "0" <= text[position] <= "9":
                return False
        elif text[position] != sample:
            return False
    return (
        text[:2] == "20"
        and "01" <= text[5:7] <= "12"
        and "01" <= text[8:10] <= "31"
        and text[11:13] <= "23"
        and text[14:16] <= "59"
        and text[17:19] <= "59"
    )


def _is_hex16(text: str) -> bool:
    return len(text) == 16 and _made_of(text, _HEX)  # noqa: PLR2004 - the name says it


def _is_hex64(text: str) -> bool:
    return len(text) == 64 and _made_of(text, _HEX)  # noqa: PLR2004 - the name says it


def _is_hex(text: str) -> bool:
    return _made_of(text, _HEX)


def _is_version(text: str) -> bool:
    return text[:1] in _WORD and _made_of(text, _WORD + ".+-")


def _is_path(text: str) -> bool:
    """Names between slashes, words between the dots of a name."""
    for name in text.split("/"):
        for word in name.split("."):
            if not word or not _made_of(word, _WORD + "_-"):
                return False
    return True


def _is_base64(text: str) -> bool:
    """3 bytes are 4 characters; bits that stand for no byte are 0 (RFC 4648, section 3.5)."""
    body = text.rstrip("=")
    padding = len(text) - len(body)
    if len(text) % 4 or padding > 2 or not _made_of(body, _WORD + "+/"):  # noqa: PLR2004 - as above
        return False
    return not padding or body[-1] in ("", "AEIMQUYcgkosw048", "AQgw")[padding]


def _made_of(text: str, alphabet: str) -> bool:
    # No loop: each character that it takes from a text becomes a name that a board keeps for good.
    return not text.strip(alphabet)


# In the order of KEYWORDS; "type" is looked at by `check` itself.
_CHECKERS: "Any" = (
    None, _check_constants, _check_constants,
    _check_required, _check_least, _check_most, _check_properties,
    _check_least, _check_most, _check_items,
    _check_least, _check_most, _check_named,
    _check_minimum, _check_maximum,
    _check_all, _check_any, _check_one,
)  # fmt: skip
# In the order of CHECKS.
_NAMED_CHECKS = (
    _is_ulid, _is_level, _is_plain, _is_timestamp, _is_hex16, _is_hex64, _is_hex,
    _is_version, _is_path, _is_base64,
)  # fmt: skip
