"""The reference reading of the schemas: jsonschema, with patterns as ECMA-262 has them."""

import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry, Resource

from nervus import resources

SCHEMAS = resources.find("schemas")
_REGISTRY: Registry[Any] = Registry().with_resource(
    "nervus:envelope",
    Resource.from_contents(json.loads((SCHEMAS / "envelope.schema.json").read_text())),
)


def _pattern(_: object, pattern: str, value: object, __: object) -> Iterator[ValidationError]:
    # Python's $ also matches before a last line break; that of JSON Schema (ECMA-262) does not.
    strict = re.sub(r"\$$", r"\\Z", pattern)
    if isinstance(value, str) and not re.search(strict, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = extend(Draft202012Validator, {"pattern": _pattern})


def validator(contract: str) -> Draft202012Validator:
    """The validator of one contract."""
    schema = json.loads((SCHEMAS / "contracts" / f"{contract}.schema.json").read_text())
    validator: Draft202012Validator = _Validator(schema, registry=_REGISTRY)
    return validator
