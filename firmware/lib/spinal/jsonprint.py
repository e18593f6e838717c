"""Canonical JSON: compact, keys sorted, the same text on every interpreter."""

from math import isfinite

_SHORT = {34: b'\\"', 92: b"\\\\", 8: b"\\b", 12: b"\\f", 10: b"\\n", 13: b"\\r", 9: b"\\t"}
_DEPTH_LIMIT = 16
_SPACE = 32


def dumps(value: object, float_format: str | None = None) -> str:
    """Return compact JSON with sorted keys; ValueError for what JSON cannot say.

    Refused are NaN and infinities, keys that are no strings, other types and nesting deeper than
    16. float_format (such as "%.6g") gives the same text on boards with 32-bit floats; without it
    a float has all the digits it needs.
    """
    parts: list[str] = []
    _write(value, parts, float_format, _DEPTH_LIMIT)
    return "".join(parts)


def quoted(text: str) -> str:
    """Return text as a JSON string; characters beyond ASCII stay as they are."""
    if text and ('"' in text or "\\" in text or min(text.encode()) < _SPACE):
        # Bytes, not characters: each of those would become a name that a board keeps for good.
        escaped = bytearray()
        for byte in text.encode():
            if byte in _SHORT:
                escaped.extend(_SHORT[byte])
            elif byte < _SPACE:
                escaped.extend(b"\\u%04x" % byte)
            else:
                escaped.append(byte)
        text = escaped.decode()
    return '"' + text + '"'


def number(value: int | float, float_format: str | None = None) -> str:  # noqa: PYI041 - MicroPython has no numeric tower
    """Return a number as JSON; ValueError for NaN and infinities."""
    if isinstance(value, int):
        return str(value)
    if not isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    return float_format % value if float_format else str(value)


def _write(value: object, parts: list[str], float_format: str | None, depth: int) -> None:
    if isinstance(value, (dict, list, tuple)):
        if not depth:
            raise ValueError(f"nested deeper than {_DEPTH_LIMIT}")
        is_object = isinstance(value, dict)
        separator = "{" if is_object else "["
        if not value:
            parts.append(separator)
        for each in sorted(value) if is_object else value:
            parts.append(separator)
            if isinstance(value, dict):
                parts.append(_key(each))
            _write(value[each] if isinstance(value, dict) else each, parts, float_format, depth - 1)
            separator = ","
        parts.append("}" if is_object else "]")
    elif isinstance(value, str):
        parts.append(quoted(value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        parts.append(number(value, float_format))
    else:
        parts.append(_word(value))


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise ValueError(f"key {key!r} is no string")  # noqa: TRY004 - one error for all that JSON cannot say
    return quoted(key) + ":"


def _word(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    raise ValueError(f"{type(value)} cannot be written as JSON")
