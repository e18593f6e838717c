"""The board's schema checker against the reference reading and the hub's models."""

import copy
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from contract.vectors import VALID, spoiled
from firmware.rigs import CHECKOUT
from nervus.wire.contracts import CONTRACTS
from spinal import contracts
from spinal.schema import check as check_packed
from spinal.schema import part

sys.path.append(str(CHECKOUT / "tools"))

from generator.packed import Table
from generator.schemas import SchemaError

pytestmark = pytest.mark.usefixtures("unmeasured")

PLACES = contracts.SCHEMAS


def check(schema: dict[str, Any], value: object) -> tuple[str, str] | None:
    """The board's answer, for a schema as people write it."""
    table = Table()
    place = table.add(schema)
    return check_packed(bytes(table.data), place, value)


def check_contract(contract: str, value: object) -> tuple[str, str] | None:
    """… and for one of those that a board has."""
    return check_packed(contracts.TABLE, PLACES[contract], value)


scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    # 1.0 is an integer to the reference and none to us.
    st.floats(-5, 5).filter(lambda number: not number.is_integer()),
    st.text("ab", max_size=4),
)
values = st.recursive(
    scalars,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from("abc"), part),
    max_leaves=6,
)
constants = st.integers(-5, 5) | st.text("ab", min_size=1, max_size=4)
kinds = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
plain = st.fixed_dictionaries(
    {},
    optional={
        "type": kinds,
        "enum": st.lists(constants, min_size=1, max_size=3),
        "const": constants,
        "minimum": st.integers(-3, 3),
        "maximum": st.integers(-3, 3),
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
        "minItems": st.integers(0, 3),
        "maxItems": st.integers(0, 3),
        "minProperties": st.integers(0, 3),
        "maxProperties": st.integers(0, 3),
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
    },
)


def nested(part: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(part, min_size=1, max_size=3)
    return st.builds(
        lambda base, more: base | more,
        plain,
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from("abc"), part, max_size=3),
                "additionalProperties": st.just(value=False) | part,
                "items": part,
                "anyOf": several,
                "oneOf": several,
                "allOf": several,
            },
        ),
    )


schemas = st.recursive(plain, nested, max_leaves=6)


@given(schemas, values)
def test_it_takes_and_refuses_what_the_reference_does(
    schema: dict[str, Any], value: object
) -> None:
    assert (check(schema, value) is None) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.req("S0-9", "S0-82", "S0-83")
@pytest.mark.parametrize("contract", sorted(contracts.SCHEMAS))
def test_the_board_takes_and_refuses_the_messages_the_hub_does(contract: str) -> None:
    _, message = VALID[contract]
    assert check_contract(contract, message) is None
    for what, changed in spoiled(message):
        try:
            CONTRACTS[contract].model_validate(changed)
            hub_takes = changed["meta"]["message_type"] == contract and "null" not in what
        except ValidationError:
            hub_takes = False
        board_takes = check_contract(contract, changed) is None
        if board_takes and not hub_takes:
            # Only the drift rule is left to the envelope: it joins two fields.
            assert changed["meta"]["message_type"] != contract, what
        else:
            assert board_takes == hub_takes, what


@pytest.mark.parametrize(
    "schema",
    [
        {"exclusiveMinimum": 1},
        {"pattern": "^a$"},
        {"const": True},
        {"const": 1.5},
        {"enum": [""]},
        {"enum": ["a\x03b"]},
        {"properties": {"\x02": {}}},
    ],
    ids=str,
)
def test_what_a_board_cannot_check_is_not_packed(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="a board"):
        Table().add(schema)


@pytest.mark.parametrize("key", ["N", "\x02", "a\x03\x02b", "\0", "wall_ms\x03", "", "s"])
def test_no_key_is_taken_for_another_ones_place_in_the_table(key: str) -> None:
    # Every place from 0 to 600, so that each byte that a key might be mistaken for occurs.
    table = Table()
    names = {f"n{number}": {"minLength": number} for number in range(150)}
    place = table.add({"properties": names, "additionalProperties": False})
    assert check_packed(bytes(table.data), place, {key: ""}) == (f"/{key}", "additionalProperties")
    assert check({"enum": ["a", "b", "sb"]}, key) == ("", "enum")


def test_the_schema_of_a_part_is_found() -> None:
    table = Table()
    place = table.add({"type": "object", "properties": {"a": {"type": "string"}}})
    assert check_packed(table.data, part(table.data, place, "a"), 1) == ("", "type")
    with pytest.raises(KeyError):
        part(table.data, place, "b")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", True),
        ("number", math.nan),
        ("number", math.inf),
        ("number", "21.37"),
        ("number", 2**53),
        ("integer", 1.0),
        ("integer", False),
        ("integer", -(2**53)),
        ("boolean", 1),
        ("string", None),
        ("array", {}),
        ("object", []),
    ],
)
def test_types_are_strict(kind: str, value: object) -> None:
    assert check({"type": kind}, value) == ("", "type")


@pytest.mark.parametrize("value", [2**53 - 1, 1 - 2**53, 0, 1.5])
def test_what_javascript_can_hold_is_a_number(value: float) -> None:
    assert check({"type": "number"}, value) is None


def test_a_constant_is_compared_with_its_type() -> None:
    assert check({"const": 1}, value=True) == ("", "const")
    assert check({"enum": [0, 1]}, value=False) == ("", "enum")
    assert check({"enum": ["0"]}, 0) == ("", "enum")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("ulid", "01M7X8PQG0FP793DTR98H6BCFN", "81M7X8PQG0FP793DTR98H6BCFN"),
        ("ulid", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01M7X8PQG0FP793DTR98H6BCFI"),
        ("ulid", "01M7X8PQG0FP793DTR98H6BCFN", "01m7x8pqg0fp793dtr98h6bcfn"),
        ("level", "living room.1", ""),
        ("level", "x" * 64, "x" * 65),
        ("level", "é", "a\x00b"),
        ("source", "device:m1", "a\x7fb"),
        ("timestamp", "2026-11-20T19:44:00.000Z", "2026-11-20T19:44:00Z"),
        ("timestamp", "2096-12-31T23:59:59.999Z", "2026-13-20T19:44:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-11-32T19:44:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-11-20T24:44:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-11-20T19:60:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-11-20T19:44:60.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "1926-11-20T19:44:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-11-2xT19:44:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-00-20T19:44:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-01-00T19:44:00.000Z"),
        ("timestamp", "2026-01-01T00:00:00.000Z", "2026-11-20 19:44:00.000Z"),
        ("hex16", "0123456789abcdef", "0123456789ABCDEF"),
        ("hex64", "0a" * 32, "0a" * 31),
    ],
)
def test_named_checks_stand_for_patterns(name: str, good: str, bad: str) -> None:
    schema = {"type": "string", "x-check": name}
    assert check(schema, good) is None
    assert check(schema, bad) == ("", name)


@pytest.mark.parametrize(
    ("schema", "value", "breach"),
    [
        ({"minProperties": 1}, {}, ("", "minProperties")),
        ({"maxProperties": 0}, {"a": 1}, ("", "maxProperties")),
        ({"items": {"minItems": 1}}, [[]], ("/0", "minItems")),
        ({"items": {"maxItems": 0}}, [[], [1]], ("/1", "maxItems")),
        ({"minimum": 1}, 0, ("", "minimum")),
        ({"maximum": 1}, 2, ("", "maximum")),
        ({"additionalProperties": {"type": "string"}}, {"a": 1}, ("/a", "type")),
    ],
)
def test_each_rule_is_named(schema: dict[str, Any], value: object, breach: object) -> None:
    assert check(schema, value) == breach


def test_a_breach_names_the_place_and_the_rule() -> None:
    _, message = VALID["EfferentCommand"]
    changed = copy.deepcopy(message)
    del changed["meta"]["deadline_ms"]
    assert check_contract("EfferentCommand", changed) == ("/meta/deadline_ms", "required")
    changed = copy.deepcopy(message)
    changed["payload"]["set"] = {"a": 1}
    assert check_contract("EfferentCommand", changed) == ("/payload/set", "anyOf")
    changed = copy.deepcopy(message)
    changed["payload"]["pulse_ms"] = 5
    assert check_contract("EfferentCommand", changed) == ("/payload", "oneOf")


def test_the_deepest_breach_of_alternatives_is_told() -> None:
    leaf = {"type": "object", "properties": {"op": {"enum": ["gt"]}}}
    schema = {"anyOf": [leaf, {"type": "object", "required": ["all"]}]}
    assert check(schema, {"op": "no"}) == ("/op", "enum")
