"""How messages of a contract are read that have certain fields, and no others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin

from nervus.wire.model import Contract, Model
from nervus.wire.reader import (
    LEAVES,
    NESTING_META,
    UNIONS,
    Count,
    counter,
    is_model,
    plain_schema,
    reader,
    validator,
)

Names = frozenset[str]


class Fields(NamedTuple):
    """The fields of a message: its metadata's and its payload's.

    `nested` are those of the payload whose values may have keys of their own, `lists` those whose
    items all have the same fields, and which.
    """

    meta: Names
    payload: Names
    nested: Names
    lists: tuple[tuple[str, Names], ...] = ()

    @property
    def but_lists(self) -> "Fields":
        """The same, whatever the items of lists have."""
        return self._replace(lists=())


def fields_of(message: Contract) -> Fields:
    """The fields that a message has."""
    payload = message.payload
    names = frozenset(_given(payload))
    nested, lists = [], []
    for name in sorted(payload.nesting & names):
        value = payload.__dict__[name]
        if type(value) in LEAVES:
            continue
        nested.append(name)
        if type(value) is list and value and is_model(type(value[0])):
            first = _given(value[0])
            if all(_given(each) == first for each in value):
                lists.append((name, frozenset(first)))
    return Fields(frozenset(_given(message.meta)), names, frozenset(nested), tuple(lists))


@dataclass(slots=True, eq=False)
class Narrow:
    """A way to read those messages of one contract that have certain fields.

    Attributes:
        plainly: As that of a Reader, for messages that have just these fields and no `errors`, and
            name their contract, its type and, where at all, JSON. Fields that are absent it leaves
            out of the instances' dictionaries.
        keys: How many keys the message, its metadata and its payload have together.
        meta: Names of the fields of its metadata.
        nests: Whether a value can have keys of its own.
        inner_keys: As that of a Reader.
        least_keys: How many of these there are at least, found out faster.
    """

    plainly: Callable[[bytes], Contract]
    keys: int
    meta: Names
    nests: bool
    inner_keys: Count
    least_keys: Count


def narrowed(contract: type[Contract], fields: Fields) -> Narrow:
    """What reads messages with these fields; the contract must have one profile."""
    name = contract.__name__
    fixed = {"contract": name, "message_type": name, "content_type": "application/json"}
    lists = dict(fields.lists)

    def in_meta(name: str, schema: Any) -> Any:
        return {"type": "literal", "expected": [fixed[name]]} if name in fixed else schema

    def in_payload(name: str, schema: Any) -> Any:
        if name not in lists:
            return schema
        return {**schema, "items_schema": _only(schema["items_schema"], lists[name], _as_it_is)}

    def part(name: str, schema: Any) -> Any:
        if name == "meta":
            return _only(schema, fields.meta, in_meta)
        return _only(schema, fields.payload, in_payload)

    content = contract.__annotations__["payload"]
    nests = fields.nested or NESTING_META & fields.meta
    parts = frozenset(("meta", "payload"))
    return Narrow(
        validator(_only(plain_schema(contract), parts, part)).validate_json,
        len(parts) + len(fields.meta) + len(fields.payload),
        fields.meta,
        bool(nests),
        reader(contract).inner_keys,
        _least_keys(content, fields.nested, lists),
    )


def _only(schema: Any, names: Names, change: Callable[[str, Any], Any]) -> Any:
    """The schema of a model with these fields alone, each required and changed."""
    if schema["type"] == "definition-ref":
        return schema
    if schema["type"] != "model-fields":
        return {**schema, "schema": _only(schema["schema"], names, change)}
    fields = {}
    for name, field in schema["fields"].items():
        if name in names:
            given = field["schema"]
            given = given["schema"] if given["type"] == "default" else given
            fields[name] = {**field, "schema": change(name, given)}
    return {**schema, "fields": fields}


def _as_it_is(_: str, schema: Any) -> Any:
    return schema


def _least_keys(payload: type[Model], names: Names, lists: Mapping[str, Names]) -> Count:
    annotated = {name: payload.model_fields[name].annotation for name in names}
    nests = [
        (name, _times(len(lists[name])) if name in lists else _least(annotation))
        for name, annotation in annotated.items()
    ]
    if len(nests) == 1:
        ((name, keys_of),) = nests
        return lambda fields: keys_of(fields["payload"].__dict__[name])

    def count(fields: Mapping[str, Any]) -> int:
        content = fields["payload"].__dict__
        return sum([keys_of(content[name]) for name, keys_of in nests])

    return count


def _times(keys: int) -> Count:
    return lambda values: keys * len(values)


def _least(annotation: Any) -> Count:
    """What counts the keys of a value, or at least those that are not within its own values."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if get_origin(annotation) in UNIONS and len(kinds) == 1:
        return _least(kinds[0])
    if get_origin(annotation) is list and is_model(kinds[0]):
        return lambda values: sum(map(len, map(_given, values)))
    if is_model(annotation):
        return lambda value: len(_given(value))
    return counter(annotation)


_given = attrgetter("__pydantic_fields_set__")
