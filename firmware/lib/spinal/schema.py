"""A checker for the part of JSON Schema that our contracts use.

Types are strict: a bool is no number, 1.0 no integer, NaN and infinities no number, and an integer
beyond ± 2**53 is none that JavaScript could hold. Patterns are not run but named by "x-check".
"""

from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTEGER_LIMIT = (1 << 53) - 1

KEYWORDS = (
    ("type", "const", "enum", "x-check", "anyOf", "oneOf", "allOf")
    + ("required", "properties", "additionalProperties", "minProperties", "maxProperties")
    + ("items", "minItems", "maxItems", "minLength", "maxLength")
    + ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
)
"""All a schema may use: `check` ignores others, so the generator must refuse them."""

_ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_HEX = "0123456789abcdef"
_WORD = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Rules that are told with the path of a key, though it is the object around it that breaks them.
_NOTHING: "dict[str, Any]" = {}
_OF_THE_PARENT = ("required", "additionalProperties")
_TIMESTAMP = "####-##-##T##:##:##.###Z"


def check(schema: "dict[str, Any]", value: object) -> "tuple[str, str] | None":
    """Return None when value keeps to the schema, else (path, rule) of the first breach.

    path is a JSON pointer such as "/payload/value"; rule is the keyword that was broken.
    """
    if isinstance(value, bytes):
        return _check_bytes(schema, value)
    expected = schema.get("type")
    if expected is not None and not _of_type(value, expected):
        return "", "type"
    if "const" in schema and not _same(value, schema["const"]):
        return "", "const"
    if "enum" in schema and not _one_of(value, schema["enum"]):
        return "", "enum"
    if isinstance(value, dict):
        breach = _check_object(schema, value)
    elif isinstance(value, (list, tuple)):
        breach = _check_array(schema, value)
    elif isinstance(value, str):
        breach = _check_text(schema, value)
    elif isinstance(value, bool) or value is None:
        breach = None
    else:
        breach = _check_number(schema, value)
    return breach or _check_joined(schema, value)


# The path is put together only where there is a breach, from the inside out: paths of everything
# that is checked cost a board 50 KiB of garbage for one rule.


def _check_object(schema: "dict[str, Any]", value: "dict[str, Any]") -> "tuple[str, str] | None":
    for key in schema.get("required", ()):
        if key not in value:
            return "/" + key, "required"
    size = len(value)
    if size < schema.get("minProperties", 0):
        return "", "minProperties"
    if size > schema.get("maxProperties", size):
        return "", "maxProperties"
    properties = schema.get("properties", _NOTHING)
    others = schema.get("additionalProperties", True)
    for key in value:
        part = properties.get(key, others)
        if part is False:
            return "/" + key, "additionalProperties"
        if part is not True:
            breach = check(part, value[key])
            if breach:
                return "/" + key + breach[0], breach[1]
    return None


def _check_array(
    schema: "dict[str, Any]", value: "list[Any] | tuple[Any, ...]"
) -> "tuple[str, str] | None":
    size = len(value)
    if size < schema.get("minItems", 0):
        return "", "minItems"
    if size > schema.get("maxItems", size):
        return "", "maxItems"
    part = schema.get("items")
    if part is not None:
        for position in range(size):
            breach = check(part, value[position])
            if breach:
                return f"/{position}{breach[0]}", breach[1]
    return None


def _check_text(schema: "dict[str, Any]", value: str) -> "tuple[str, str] | None":
    size = len(value)
    if size < schema.get("minLength", 0):
        return "", "minLength"
    if size > schema.get("maxLength", size):
        return "", "maxLength"
    named = schema.get("x-check")
    if named is not None and not CHECKS[named](value):
        return "", named
    return None


def _check_bytes(schema: "dict[str, Any]", value: bytes) -> "tuple[str, str] | None":
    """What CBOR gives where JSON has base64; the limits are those of the text."""
    if schema.get("x-check") != "base64":
        return "", "type"
    size = (len(value) + 2) // 3 * 4
    if size < schema.get("minLength", 0):
        return "", "minLength"
    if size > schema.get("maxLength", size):
        return "", "maxLength"
    return None


def _check_number(schema: "dict[str, Any]", value: "Any") -> "tuple[str, str] | None":
    if value < schema.get("minimum", value):
        return "", "minimum"
    if value > schema.get("maximum", value):
        return "", "maximum"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return "", "exclusiveMinimum"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        return "", "exclusiveMaximum"
    return None


def _check_joined(schema: "dict[str, Any]", value: object) -> "tuple[str, str] | None":
    for part in schema.get("allOf", ()):
        breach = check(part, value)
        if breach:
            return breach
    if "anyOf" in schema:
        breach = _check_any(schema["anyOf"], value)
        if breach:
            return breach
    if "oneOf" in schema:
        matches = 0
        for part in schema["oneOf"]:
            matches += check(part, value) is None
        if matches != 1:
            return "", "oneOf"
    return None


def _check_any(parts: "Any", value: object) -> "tuple[str, str] | None":
    """Check anyOf: the breach of the part that came furthest, most likely the one meant."""
    deepest = "", "anyOf"
    reached = -1
    for part in parts:
        breach = check(part, value)
        if breach is None:
            return None
        depth = breach[0].count("/") - (breach[1] in _OF_THE_PARENT)
        if breach[0] and depth > reached:
            reached = depth
            deepest = breach
    return deepest


def _of_type(value: object, expected: "str | list[str] | tuple[str, ...]") -> bool:
    if not isinstance(expected, str):
        for each in expected:  # noqa: SIM110 - a generator costs a board heap
            if _of_type(value, each):
                return True
        return False
    if expected == "number":
        if isinstance(value, float):
            return isfinite(value)
        expected = "integer"
    if expected == "integer":
        return _is_integer(value) and -INTEGER_LIMIT <= value <= INTEGER_LIMIT  # type: ignore[operator] # narrowed by _is_integer
    if expected == "array":
        return isinstance(value, (list, tuple))
    return isinstance(value, _TYPES[expected])


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _same(value: object, constant: object) -> bool:
    return value == constant and isinstance(value, bool) == isinstance(constant, bool)


def _one_of(value: object, constants: "list[object] | tuple[object, ...]") -> bool:
    for constant in constants:  # noqa: SIM110 - as above
        if _same(value, constant):
            return True
    return False


def _is_ulid(text: str) -> bool:
    return len(text) == 26 and text[0] in "01234567" and _made_of(text, _ULID)  # noqa: PLR2004 - 128 bits, 5 to a character


def _is_level(text: str) -> bool:
    return 0 < len(text) <= 64 and _is_plain(text)  # noqa: PLR2004 - wire: 1 to 64 characters


def _is_plain(text: str) -> bool:
    """No control characters, whatever the length."""
    for character in text:  # noqa: SIM110 - as above
        if character < " " or character == "\x7f":
            return False
    return True


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
    for character in text:  # noqa: SIM110 - as above
        if character not in alphabet:
            return False
    return True


_TYPES = {"object": dict, "string": str, "boolean": bool, "null": type(None)}

CHECKS = {
    "ulid": _is_ulid,
    "level": _is_level,
    "source": _is_plain,
    "timestamp": _is_timestamp,
    "hex16": _is_hex16,
    "hex64": _is_hex64,
    "hex": _is_hex,
    "version": _is_version,
    "path": _is_path,
    "base64": _is_base64,
}
"""The named checks that stand for a "pattern"."""
