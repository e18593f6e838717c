"""Valid messages of any contract, made up from the schemas for property tests."""

import json
import re
from functools import cache
from typing import Any

from hypothesis import strategies as st

from contract.reference import SCHEMAS
from contract.vectors import MESSAGES, Message
from nervus.wire import timestamp
from nervus.wire.contracts import CONTRACTS
from nervus.wire.ids import ulid_text

LARGEST = 2**53 - 1
Strategy = st.SearchStrategy[Any]

_ENVELOPE = json.loads((SCHEMAS / "envelope.schema.json").read_text())
_DEFINED: dict[tuple[str, str], Strategy] = {}
_KEPT = {"contract", "message_type", "schema_version", "content_type", "content_encoding"}


@cache
def messages(contract: str) -> Strategy:
    """Messages of one contract: its valid one, with payload and optional metadata replaced."""
    schema = json.loads((SCHEMAS / "contracts" / f"{contract}.schema.json").read_text())
    model = CONTRACTS[contract]
    fixed = _KEPT | set(model.forbidden_meta)
    optional = _ENVELOPE["$defs"]["meta"]["properties"].items()
    meta = {name: _values(child, _ENVELOPE) for name, child in optional if name not in fixed}
    parts = {"meta": st.fixed_dictionaries({}, optional=meta)}
    parts["payload"] = _values(schema["properties"]["payload"], schema)
    errors = {}
    if "errors" in schema["properties"]:
        errors["errors"] = _values(schema["properties"]["errors"], schema)

    def joined(made: Message) -> Message:
        return made | {"meta": MESSAGES[contract]["meta"] | made["meta"]}

    return st.fixed_dictionaries(parts, optional=errors).map(joined)


def _values(schema: Message, root: Message) -> Strategy:
    if "$ref" in schema:
        where, _, name = schema["$ref"].partition("#/$defs/")
        home = _ENVELOPE if where else root
        if (home["$id"], name) not in _DEFINED:
            _DEFINED[home["$id"], name] = _values(home["$defs"][name], home)
        return _DEFINED[home["$id"], name]
    if "anyOf" in schema:
        return st.one_of(*(_values(option, root) for option in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return _KINDS[schema["type"]](schema, root)


def _objects(schema: Message, root: Message) -> Strategy:
    if "properties" not in schema:
        name = st.text(st.characters(codec="utf-8"), max_size=8)
        return st.dictionaries(
            name,
            _values(schema["additionalProperties"], root),
            min_size=schema.get("minProperties", 0),
            max_size=min(schema["maxProperties"], 4),
        )
    fields = {name: _values(child, root) for name, child in schema["properties"].items()}
    required = set(schema.get("required", ()))
    choices = [set(option["required"]) for option in schema.get("oneOf", [{"required": ()}])]
    # One alternative, and of the rest what is part of none.
    free = set(fields) - required - set().union(*choices)
    return st.one_of(
        *(
            st.fixed_dictionaries(
                {name: fields[name] for name in sorted(required | choice)},
                optional={name: fields[name] for name in sorted(free)},
            )
            for choice in choices
        )
    )


def _arrays(schema: Message, root: Message) -> Strategy:
    most = max(schema.get("minItems", 0), min(schema["maxItems"], 3))
    return st.lists(
        _values(schema["items"], root), min_size=schema.get("minItems", 0), max_size=most
    )


def _texts(schema: Message, _: Message) -> Strategy:
    if schema.get("x-check") in _NAMED:
        return _NAMED[schema["x-check"]]
    low, high = schema.get("minLength", 0), schema.get("maxLength", LARGEST)
    if "pattern" not in schema:
        return st.text(st.characters(codec="utf-8"), min_size=low, max_size=min(high, 24))
    fitting = [text for text in _SAMPLES if re.search(schema["pattern"], text)]
    fitting = [text for text in fitting if low <= len(text) <= high]
    assert fitting, f"give _SAMPLES a text of {schema['pattern']}"
    return st.sampled_from(fitting)


def _integers(schema: Message, _: Message) -> Strategy:
    return st.integers(schema["minimum"], schema["maximum"])


def _numbers(schema: Message, _: Message) -> Strategy:
    floats = st.floats(
        schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False
    )
    return floats | st.integers(schema.get("minimum", -LARGEST), schema.get("maximum", LARGEST))


_SAMPLES = (
    *("1.4.2", "main.py", "lib/spinal/link.py", "QUJD", "QUI=", "m1", "0" * 16, "f" * 64),
    *("a1" * 64, "https://hub.home", "/webrtc/offer/{device_id}"),
)
_level = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=12)
_NAMED = {
    # Drawn straight, for speed: a regular expression takes ten times as long.
    "ulid": st.integers(0, 2**128 - 1).map(ulid_text),
    "timestamp": st.integers(946684800000, 4102444799999).map(timestamp),
    "level": _level,
    "source": _level,
}
_KINDS = {
    "object": _objects,
    "array": _arrays,
    "string": _texts,
    "integer": _integers,
    "number": _numbers,
    "boolean": lambda _, __: st.booleans(),
}
