"""The rules that are data: stages and reasons of the guard, and what can be asked for."""

import ast
import json
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from contract.reference import SCHEMAS
from contract.vectors import HOSTILE, VALID, VECTORS, Message, merge
from nervus.policy.capabilities import ArgumentError, capabilities, order
from nervus.wire import Guard, Packet, Rejected
from nervus.wire.contracts import CommandRequestPayload, ReasonCode, RejectStage, Target
from nervus.wire.registries import entries
from nervus.wire.topics import TOPICS

CHECKOUT = Path(__file__).parents[2]
STAGES: dict[str, dict[str, str]] = {
    name: entry["reasons"] for name, entry in entries("stages").items()
}
SAID_BY_A_VARIABLE = {("apply", "retained_command")}
GUARD = tuple(STAGES)[: tuple(STAGES).index("dedupe") + 1]
CALLER_SCOPE = {"b1": "room/kitchen"}


def said() -> Iterator[tuple[str, str]]:
    """Every (stage, reason) that stands side by side in the code of hub and board."""
    for path in [*CHECKOUT.glob("hub/nervus/**/*.py"), *CHECKOUT.glob("firmware/lib/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            found: list[Any] = []
            if isinstance(node, ast.Call):
                found = [*node.args, *(keyword.value for keyword in node.keywords)]
            elif isinstance(node, ast.Tuple):
                found = node.elts
            texts = [each.value if isinstance(each, ast.Constant) else None for each in found]
            for reason, stage in pairwise(texts):
                if reason in get_args(ReasonCode) and stage in get_args(RejectStage):
                    yield str(stage), str(reason)


def test_stages_and_reasons_are_those_of_the_code_and_of_the_contract() -> None:
    listed = {(stage, reason) for stage, reasons in STAGES.items() for reason in reasons}
    assert listed == set(said()) | SAID_BY_A_VARIABLE
    assert tuple(STAGES) == get_args(RejectStage)
    assert {reason for _, reason in listed} == set(get_args(ReasonCode))


def test_the_guard_gives_each_reason_of_its_stages_and_no_other() -> None:
    given = set()
    spoiled = [v for vectors in HOSTILE.values() for v in vectors if v.stage == "guard"]
    for vector in (v for vectors in (*VECTORS.values(), spoiled) for v in vectors if v.topic):
        guard = Guard(TOPICS, granted=vector.granted.get)
        for _ in range(1 + vector.twice):
            verdict = guard.judge(vector.packet, vector.now_ms)
        if isinstance(verdict, Rejected):
            given.add((verdict.stage, verdict.reason_code))
    boards = {("decode", "oversize"), ("decode", "unsupported_encoding")}
    assert given == {(stage, reason) for stage in GUARD for reason in STAGES[stage]} - boards


TOPIC, MESSAGE = VALID["AfferentSignal"]
BROKEN: dict[str, Callable[[Message], Message]] = {
    "allow": lambda it: merge(it, {"meta": {"contract": "Pong", "message_type": "Pong"}}),
    "schema": lambda it: merge(it, {"payload": {"colour": "blue"}}),
    "drift": lambda it: merge(it, {"meta": {"message_type": "Ping"}}),
    "agreement": lambda it: merge(it, {"meta": {"scope": "attic"}}),
    "identity": lambda it: merge(it, {"meta": {"source": "device:b2"}}),
    "expiry": lambda it: merge(it, {"meta": {"t_ms": it["meta"]["t_ms"] - 60_000}}),
}
"""Makes a message fail at each stage that looks at what it says."""


@pytest.mark.req("S0-82")
@pytest.mark.parametrize(("first", "second"), list(combinations(GUARD, 2)))
def test_the_first_stage_that_a_message_fails_names_the_reason(first: str, second: str) -> None:
    vector = VECTORS["AfferentSignal"][0]
    guard = Guard(TOPICS, granted=CALLER_SCOPE.get)
    message = MESSAGE
    for stage in {first, second} & BROKEN.keys():
        message = BROKEN[stage](message)
    data = json.dumps(message).encode()
    if "decode" in (first, second):
        data = data[:-1] + b",}"
    if "size" in (first, second):
        data += b" " * 2000
    if "dedupe" in (first, second):
        fresh = json.dumps(merge(MESSAGE, {"meta": {"message_id": message["meta"]["message_id"]}}))
        guard.judge(Packet("spinal", TOPIC, fresh.encode()), vector.now_ms)
    retain = "topic" in (first, second)
    verdict = guard.judge(Packet("spinal", TOPIC, data, retain), vector.now_ms)
    assert isinstance(verdict, Rejected)
    assert verdict.stage == first


@pytest.mark.parametrize("name", sorted(capabilities()))
@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"value": 0.5}, {"value": True}, {"value": "on"}, {"value": "x" * 65}, {"value": [1]},
        {"value": 1, "other": 1}, {"pulse_ms": 150}, {"pulse_ms": 0}, {"pulse_ms": 0.5},
        {"pulse_ms": True}, {"pulse_ms": 86_400_000}, {"pulse_ms": 86_400_001},
    ],
)  # fmt: skip
def test_policy_takes_the_arguments_that_the_registry_says(name: str, arguments: Message) -> None:
    envelope = json.loads((SCHEMAS / "envelope.schema.json").read_text())
    registry: Registry[Any] = Registry().with_resource(
        "nervus:envelope", Resource.from_contents(envelope)
    )
    entry = entries("capabilities")[name]
    Draft202012Validator.check_schema(entry["output_schema"])
    wanted = Draft202012Validator(entry["input_schema"], registry=registry).is_valid(arguments)
    target = Target(device_id="b1", actuator="lamp")
    request = CommandRequestPayload.model_construct(
        capability=name, target=target, arguments=arguments
    )
    try:
        made = order(capabilities()[name], request).model_dump(exclude_none=True, by_alias=True)
    except ArgumentError:
        assert not wanted
        return
    assert wanted
    assert made == {
        "actuator": "lamp",
        entry["order"]["field"]: arguments[entry["order"]["argument"]],
    }
