"""Strict JSON: what the wire calls a decode error is one here."""

from typing import Any

import jiter

from nervus.wire.model import SAFE_INTEGER


class DecodeError(ValueError):
    """The bytes are not strict JSON; the message says what and where."""


def decode(data: bytes) -> Any:
    """Parse strict JSON; raises DecodeError.

    Duplicate keys, NaN, infinities (also 1e999), integers beyond ± 2⁵³, trailing or sloppy text,
    invalid UTF-8 and nesting beyond 200 are errors.
    """
    try:
        value = jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as error:
        raise DecodeError(str(error)) from error
    shape = data.translate(_SHAPE, b"+")
    if _LONG_INTEGER in shape or _LARGE_EXPONENT in shape:
        _refuse_too_large(value)
    return value


def has_null(data: bytes, value: Any) -> bool:
    """Whether a decoded message holds null anywhere; no contract does."""
    return b"null" in data and any(item is None for item in _leaves(value))


# A walk is only worth it where the text could hold such a number: sixteen digits in a row, or an
# exponent of three. With every digit made a 9, finding one is two searches for a constant.
_SHAPE = bytes.maketrans(b"012345678E", b"999999999e")
_LONG_INTEGER = b"9" * 16
_LARGE_EXPONENT = b"9e999"


def _refuse_too_large(value: Any) -> None:
    for item in _leaves(value):
        if isinstance(item, int) and abs(item) > SAFE_INTEGER:
            raise DecodeError(f"integer beyond 2^53: {item:.3g}")
        if isinstance(item, float) and item in (float("inf"), float("-inf")):
            raise DecodeError("number beyond the range of a double")


def _leaves(value: Any) -> list[Any]:
    leaves, pending = [], [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        else:
            leaves.append(item)
    return leaves
