"""Schemas packed into bytes, in the form that firmware/lib/spinal/schema.py walks."""

from typing import TYPE_CHECKING, Any

from generator.schemas import Schema, SchemaError
from spinal.schema import ANYTHING, CHECKS, KEYWORDS, KINDS, NOTHING, spell

if TYPE_CHECKING:
    from collections.abc import Callable

_KEYWORDS = KEYWORDS.split()
_PLACE_LIMIT = 32 << 8


class Table:
    """A run of bytes to which schemas are added; what occurs twice stands in it once."""

    def __init__(self) -> None:
        # Two bytes ahead, for ANYTHING and NOTHING are no places.
        self.data = bytearray(2)
        self._places: dict[bytes, int] = {}

    def add(self, schema: Schema) -> int:
        """Pack a schema without references and annotations; returns its place.

        Raises:
            SchemaError: A board knows no such keyword, or no such constant.
        """
        if unknown := set(schema) - {*_KEYWORDS, "additionalProperties"}:
            raise SchemaError(f"a board does not check {sorted(unknown)}")
        rules = bytearray()
        for number, keyword in enumerate(_KEYWORDS, 1):
            rest = self._rest(keyword, schema)
            if rest is not None:
                rules += bytes((number,)) + _two(len(rest)) + rest
        node = bytes(rules) + b"\0"
        if node not in self._places:
            self._places[node] = len(self.data)
            self.data += node
            if len(self.data) >= _PLACE_LIMIT:
                raise SchemaError(f"the schemas of a board take more than {_PLACE_LIMIT} bytes")
        return self._places[node]

    def _rest(self, keyword: str, schema: Schema) -> bytes | None:
        """What stands behind the number and length of a rule, None where there is no such rule."""
        if keyword == "properties":
            return self._properties(schema)
        if keyword not in schema:
            return None
        value = schema[keyword]
        packers: dict[str, Callable[[Any], bytes]] = {
            "type": lambda kind: bytes((KINDS.split().index(kind),)),
            "const": _spelled,
            "enum": lambda constants: b"".join(map(_spelled, constants)),
            "required": lambda names: b"".join(name.encode() + b"\0" for name in names),
            "x-check": lambda name: bytes((CHECKS.split().index(name),)),
            "items": lambda part: _two(self.add(part)),
            "minimum": _number,
            "maximum": _number,
            "allOf": self._places_of,
            "anyOf": self._places_of,
            "oneOf": self._places_of,
        }
        return packers.get(keyword, _two)(value)

    def _places_of(self, parts: list[Schema]) -> bytes:
        return b"".join(_two(self.add(part)) for part in parts)

    def _properties(self, schema: Schema) -> bytes | None:
        others = schema.get("additionalProperties", True)
        named = schema.get("properties", {})
        if others is True and not named:
            return None
        rest = _two(self._place(others))
        for name, part in named.items():
            rest += _spelled(name) + _two(self._place(part))
        return rest

    def _place(self, schema: Any) -> int:
        if isinstance(schema, bool):
            return ANYTHING if schema else NOTHING
        return self.add(schema) if schema else ANYTHING


def _two(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _number(value: int) -> bytes:
    return bytes((value < 0,)) + abs(value).to_bytes(7, "big").lstrip(b"\0")


def _spelled(value: object) -> bytes:
    spelled = spell(value)
    if not spelled:
        raise SchemaError(f"a board knows no constant {value!r}: use texts and integers")
    return spelled
