"""How the guard reads a message: by validators made of the contract's own schema."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic_core import SchemaValidator

from nervus.wire.contracts import CompactMeta, FullMeta
from nervus.wire.model import Contract, Model, holds_keys

Count = Callable[[Any], int]


@dataclass(slots=True, eq=False)
class Reader:
    """Two ways to read messages of one contract; neither takes null, nor asks `fault`.

    Attributes:
        strictly: From decoded values, exactly as the contract says.
        plainly: From JSON in a third less time, without looking for control characters: where
            there are neither escapes nor DEL, no text holds one. Of two equal keys it keeps the
            last, so who calls it counts them.
        inner_keys: How many keys the JSON of a message has within the values of its metadata, of
            its payload and of `errors`, told from the message's fields.
    """

    strictly: Callable[[Any], Contract]
    plainly: Callable[[bytes], Contract]
    inner_keys: Callable[[Mapping[str, Any]], int]


@cache
def reader(contract: type[Contract]) -> Reader:
    """The reader of a contract, made once."""
    schema = _without_after(contract.__pydantic_core_schema__)
    return Reader(
        validator(_bare(schema, plain=False)).validate_python,
        validator(plain_schema(contract)).validate_json,
        _inner_keys(contract.__annotations__["payload"]),
    )


@cache
def plain_schema(contract: type[Contract]) -> Any:
    """The schema of a reader's `plainly`."""
    return _bare(_without_after(contract.__pydantic_core_schema__), plain=True)


def validator(schema: Any) -> SchemaValidator:
    """What validates by a schema alone."""
    # Without prebuilt: else the parts of a message would be read by their own validators, which
    # take null. And half of its texts come once: to look for them takes longer than to make them.
    return SchemaValidator(schema, {"cache_strings": "keys"}, _use_prebuilt=False)


def _without_after(schema: Any) -> Any:
    if schema["type"] == "definitions":
        return {**schema, "schema": _without_after(schema["schema"])}
    return schema["schema"]


def _bare(schema: Any, *, plain: bool) -> Any:
    """The schema without null and, where it is for plain text, without control characters.

    Of alternatives the real number is tried first: most measurements are one, and to fail takes
    longer than to fit. Each is exact for another kind of value, so their order chooses none.
    """
    if isinstance(schema, list):
        return [_bare(each, plain=plain) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "nullable":
        return _bare(schema["schema"], plain=plain)
    if schema.get("type") == "union":
        choices = sorted(schema["choices"], key=lambda choice: choice["type"] != "float")
        schema = {**schema, "choices": choices}
    return {
        key: _bare(value, plain=plain)
        for key, value in schema.items()
        if not (plain and key == "pattern" and value == _NO_CONTROLS)
    }


_NO_CONTROLS: Final = r"^[^\u0000-\u001f\u007f]*$"


def _inner_keys(payload: type[Model]) -> Callable[[Mapping[str, Any]], int]:
    nests = [(name, counter(payload.model_fields[name].annotation)) for name in payload.nesting]

    def count(fields: Mapping[str, Any]) -> int:
        keys, content = 0, fields["payload"].__dict__
        for name, keys_of in nests:
            if (value := content.get(name)) is not None:
                keys += keys_of(value)
        head = fields["meta"]
        if not NESTING_META.isdisjoint(head.__pydantic_fields_set__):
            keys += _keys(head) - len(head.__pydantic_fields_set__)
        errors = fields.get("errors")
        return keys if errors is None else keys + _nested(errors)

    return count


def counter(annotation: Any) -> Count:
    """What counts the keys of a value of this type; the plainer the type, the fewer looks."""
    origin = get_origin(annotation)
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if origin is Annotated or (origin in UNIONS and len(kinds) == 1):
        return counter(kinds[0])
    if origin is dict and not holds_keys(kinds[1]):
        return len
    if origin is list and is_model(kinds[0]):
        return _each(kinds[0])
    return _keys if is_model(annotation) else _nested


def is_model(annotation: Any) -> bool:
    """Whether this is a model."""
    return isinstance(annotation, type) and issubclass(annotation, Model)


def _each(model: type[Model]) -> Count:
    nesting = model.nesting

    def count(values: list[Model]) -> int:
        keys = 0
        for value in values:
            given = value.__pydantic_fields_set__
            keys += len(given) if nesting.isdisjoint(given) else _keys(value)
        return keys

    return count


def _keys(model: Model) -> int:
    given = model.__pydantic_fields_set__
    nesting = type(model).nesting
    count = len(given)
    if not nesting.isdisjoint(given):
        fields = model.__dict__
        for name in nesting:
            if type(value := fields.get(name)) not in LEAVES:
                count += _nested(value)
    return count


def _nested(value: Any) -> int:
    # By type, not by isinstance or __class__: pydantic's models answer those slowly.
    kind = type(value)
    if kind in LEAVES:
        return 0
    if kind is dict:
        return len(value) + sum(map(_nested, value.values()))
    return sum(map(_nested, value)) if kind is list else _keys(value)


LEAVES = frozenset((NoneType, bool, int, float, str))
UNIONS = (Union, UnionType)
NESTING_META = CompactMeta.nesting | FullMeta.nesting
