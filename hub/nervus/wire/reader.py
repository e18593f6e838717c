"""How the guard reads a message: by validators made of the contract's own schema."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

from pydantic_core import SchemaValidator

from nervus.wire.model import Contract, Model


class Reader(NamedTuple):
    """Two ways to read messages of one contract; neither takes null, nor asks `fault`.

    Attributes:
        strictly: From decoded values, exactly as the contract says.
        plainly: From JSON in a third less time, without looking for control characters: where
            there are neither escapes nor DEL, no text holds one. Of two equal keys it keeps the
            last, so who calls it counts them (`key_count`).
    """

    strictly: Callable[[Any], Contract]
    plainly: Callable[[bytes], Contract]


@cache
def reader(contract: type[Contract]) -> Reader:
    """The reader of a contract, made once."""
    schema = _without_after(contract.__pydantic_core_schema__)
    return Reader(
        _validator(_bare(schema, plain=False)).validate_python,
        _validator(_bare(schema, plain=True)).validate_json,
    )


def _validator(schema: Any) -> SchemaValidator:
    # Else the parts of a message would be read by their own validators, which take null.
    return SchemaValidator(schema, _use_prebuilt=False)


def _without_after(schema: Any) -> Any:
    if schema["type"] == "definitions":
        return {**schema, "schema": _without_after(schema["schema"])}
    return schema["schema"]


def _bare(schema: Any, *, plain: bool) -> Any:
    """The schema without null and, where it is for plain text, without control characters."""
    if isinstance(schema, list):
        return [_bare(each, plain=plain) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "nullable":
        return _bare(schema["schema"], plain=plain)
    return {
        key: _bare(value, plain=plain)
        for key, value in schema.items()
        if not (plain and key == "pattern" and value == _NO_CONTROLS)
    }


_NO_CONTROLS: Final = r"^[^\u0000-\u001f\u007f]*$"


def key_count(message: Contract) -> int:
    """How many keys the JSON text of a validated message has."""
    fields = message.__dict__
    errors = fields["errors"]
    count = len(message.__pydantic_fields_set__) + _keys(fields["meta"]) + _keys(fields["payload"])
    return count if errors is None else count + _nested(errors)


def _keys(model: Model) -> int:
    given = model.__pydantic_fields_set__
    nesting = type(model).nesting
    count = len(given)
    if not nesting.isdisjoint(given):
        fields = model.__dict__
        for name in nesting:
            if type(value := fields[name]) not in _LEAVES:
                count += _nested(value)
    return count


def _nested(value: Any) -> int:
    # By type, not by isinstance or __class__: pydantic's models answer those slowly.
    kind = type(value)
    if kind in _LEAVES:
        return 0
    if kind is dict:
        return len(value) + sum(map(_nested, value.values()))
    return sum(map(_nested, value)) if kind is list else _keys(value)


_LEAVES = frozenset((type(None), bool, int, float, str))
