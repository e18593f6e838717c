"""Reads schemas/ and holds it to the subset of JSON Schema that the generators understand."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]

ENVELOPE = "nervus:envelope#/$defs/"
ANNOTATIONS = {
    "$schema", "$id", "$defs", "title", "description", "x-registry", "x-cbor-key", "x-cbor-value",
}  # fmt: skip
KEYWORDS = ANNOTATIONS | {
    "$ref", "type", "const", "enum", "required", "properties", "additionalProperties", "items",
    "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "maximum", "minLength",
    "maxLength", "pattern", "anyOf", "oneOf", "allOf", "x-check",
}  # fmt: skip


class SchemaError(Exception):
    """A schema uses what the generators do not know; says which file and keyword."""


@cache
def _check(schema: str) -> None:
    """Once for each text: it takes 20 ms, and tests read all schemas two dozen times."""
    Draft202012Validator.check_schema(json.loads(schema))


class Schemas:
    """The contracts, the envelope's definitions and the topics of a schema folder."""

    def __init__(self, folder: Path) -> None:
        self.envelope: Schema = json.loads((folder / "envelope.schema.json").read_text())
        self.contracts: dict[str, Schema] = {
            path.name.removesuffix(".schema.json"): json.loads(path.read_text())
            for path in sorted((folder / "contracts").glob("*.schema.json"))
        }
        table = json.loads((folder / "topics.json").read_text())
        form = json.loads((folder / "topics.schema.json").read_text())
        Draft202012Validator(form).validate(table)
        self.roles: dict[str, str] = table["roles"]
        self.topics: list[dict[str, Any]] = table["topics"]
        self.without_topic: dict[str, str] = table["without_topic"]
        registries = {path.stem for path in (folder / "registries").glob("*.json")}
        for name, schema in {"envelope": self.envelope, **self.contracts}.items():
            _check(json.dumps(schema))
            _only_known(schema, name)
            _described_and_bounded(schema, name)
            for registry in _values(schema, "x-registry"):
                if registry not in registries:
                    raise SchemaError(f"{name}: there is no registries/{registry}.json")
        self._hold_together()

    def _hold_together(self) -> None:
        """Every topic names what there is, and every contract has a way to travel."""
        for topic in self.topics:
            roles = {*topic["publish"], *topic["subscribe"], *topic.get("spinal_publish", ())}
            if topic["contract"] not in self.contracts or roles - set(self.roles):
                raise SchemaError(f"topics.json: {topic['name']}: no such contract or role {roles}")
        for what in ("name", "template", "dotted"):
            if len({topic[what] for topic in self.topics}) != len(self.topics):
                raise SchemaError(f"topics.json: two topics have the same {what}")
        carried = {topic["contract"] for topic in self.topics} | set(self.without_topic)
        if lost := carried ^ set(self.contracts):
            raise SchemaError(f"topics.json: {sorted(lost)}: needs a schema and a way to travel")

    def resolve(self, schema: Schema, root: Schema) -> tuple[str | None, Schema]:
        """Follow one $ref; returns the definition's name (None without a $ref) and itself."""
        ref = schema.get("$ref")
        if ref is None:
            return None, schema
        if ref.startswith(ENVELOPE):
            name, definitions = ref.removeprefix(ENVELOPE), self.envelope["$defs"]
        elif ref.startswith("#/$defs/"):
            name, definitions = ref.removeprefix("#/$defs/"), root["$defs"]
        else:
            raise SchemaError(f"$ref {ref}: write {ENVELOPE}NAME or #/$defs/NAME")
        if name not in definitions:
            raise SchemaError(f"$ref {ref}: there is no such definition")
        return name, definitions[name]


BOUNDED_BY = {
    "string": ({"maxLength"}, {"enum"}),
    "integer": ({"minimum", "maximum"}, {"enum"}),
    "array": ({"maxItems"},),
    "object": ({"properties"}, {"maxProperties"}),
}
"""Keywords of which one set must be there: nothing on the wire is of any size."""


def _described_and_bounded(schema: object, where: str) -> None:
    """Every field says what it is and how large it may get; raises SchemaError."""
    if not isinstance(schema, dict):
        return
    options = BOUNDED_BY.get(schema.get("type", ""), ())
    of_one_length = re.fullmatch(r"\^[^*+]*\$", schema.get("pattern", ""))
    if options and not of_one_length and not any(names <= set(schema) for names in options):
        raise SchemaError(f"{where}: give the {schema['type']} a bound")
    for group in ("properties", "$defs"):
        for name, child in schema.get(group, {}).items():
            if child and not {"description", "$ref", "const"} & set(child):
                raise SchemaError(f"{where}/{name}: give it a description")
            _described_and_bounded(child, f"{where}/{name}")
    for group in ("anyOf", "oneOf", "allOf"):
        for number, child in enumerate(schema.get(group, [])):
            _described_and_bounded(child, f"{where}/{group}/{number}")
    for group in ("items", "additionalProperties"):
        _described_and_bounded(schema.get(group), f"{where}/{group}")


def _values(schema: object, keyword: str) -> Iterator[str]:
    """What a keyword says anywhere below a schema."""
    if isinstance(schema, dict):
        if isinstance(value := schema.get(keyword), str):
            yield value
        for child in schema.values():
            yield from _values(child, keyword)
    elif isinstance(schema, list):
        for child in schema:
            yield from _values(child, keyword)


def _only_known(schema: object, where: str) -> None:
    if not isinstance(schema, dict):
        return
    if unknown := set(schema) - KEYWORDS:
        raise SchemaError(f"{where}: keyword {sorted(unknown)} is outside the subset")
    for group in ("properties", "$defs"):
        for name, child in schema.get(group, {}).items():
            _only_known(child, f"{where}/{name}")
    for group in ("anyOf", "oneOf", "allOf"):
        for number, child in enumerate(schema.get(group, [])):
            _only_known(child, f"{where}/{group}/{number}")
    for group in ("items", "additionalProperties"):
        _only_known(schema.get(group), f"{where}/{group}")
