"""Refusals of a board: told at once, folded under flood, never refused themselves."""

import json

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from firmware.rigs import CHECKOUT
from spinal.outgoing import TTL_MS
from spinal.rejects import Rejects

SCHEMAS = CHECKOUT / "schemas"
PAYLOAD = json.loads((SCHEMAS / "contracts/RejectEvent.schema.json").read_text())["properties"][
    "payload"
]
ENVELOPE = Resource.from_contents(json.loads((SCHEMAS / "envelope.schema.json").read_text()))
CHECK = Draft202012Validator(
    {**PAYLOAD, "$schema": "https://json-schema.org/draft/2020-12/schema"},
    registry=Registry().with_resource("nervus:envelope", ENVELOPE),
)
TOPICS = json.loads((SCHEMAS / "topics.json").read_text())["topics"]


def test_first_of_a_kind_goes_at_once_and_the_rest_is_counted() -> None:
    rejects = Rejects(window_ms=5_000)
    first = rejects.add("decode_error", "decode", t_ms=100, ticks_ms=0, topic="/a")
    folded = [
        rejects.add("decode_error", "decode", t_ms=100, ticks_ms=each) for each in range(1, 42)
    ]

    assert first == {
        "reason_code": "decode_error",
        "stage": "decode",
        "observed_at": 100,
        "input_ref": {"source_topic": "/a"},
    }
    assert folded == [None] * 41
    assert rejects.tick(200, 4_999) == []
    (later,) = rejects.tick(200, 5_000)
    assert (later["count"], later["window_ms"], later["observed_at"]) == (41, 5_000, 200)
    assert rejects.tick(300, 10_000) == []


def test_quiet_window_makes_the_next_one_a_first_again() -> None:
    rejects = Rejects(window_ms=5_000)
    rejects.add("expired", "expiry", t_ms=0, ticks_ms=0)
    rejects.tick(0, 5_000)

    assert rejects.add("expired", "expiry", t_ms=0, ticks_ms=5_001) is not None


def test_reasons_are_folded_apart_and_bounded() -> None:
    rejects = Rejects()
    told = [rejects.add(f"reason {each}", "size", t_ms=0, ticks_ms=0) for each in range(9)]

    assert all(payload is not None for payload in told)
    assert rejects.uncounted == 1


@pytest.mark.parametrize("source", ["x" * 81, "", 7, "a\nb", None])
def test_what_was_wrong_with_a_message_does_not_get_into_its_reject(source: object) -> None:
    meta = {"contract": "EfferentCommand", "source": source}
    payload = Rejects().add(
        "schema_invalid",
        "schema",
        t_ms=0,
        ticks_ms=0,
        text="x" * 1_000,
        topic="/t" * 400,
        meta=meta,
        data=bytes(range(256)),
    )
    assert payload is not None

    CHECK.validate(payload)
    assert payload["input_ref"].keys() == {"contract", "source_topic"}


@pytest.mark.parametrize("odd", ["\n", "\x1b[2J", "\x7f", "\u202e", "\x85", "é" * 600])
def test_reject_of_what_is_not_printable_is_printable_and_within_its_limits(odd: str) -> None:
    payload = Rejects().add(
        "schema_invalid",
        "schema",
        t_ms=0,
        ticks_ms=0,
        text=f"/payload/{odd}: additionalProperties",
        topic=f"/sc/{odd}",
    )
    assert payload is not None

    CHECK.validate(payload)
    told = payload["reason"], payload["input_ref"]["source_topic"]
    assert all(text.isprintable() for text in told)
    assert told[0].startswith("/payload/?")
    assert told[1].startswith("/sc/?")


def test_lifetimes_are_those_of_the_topics() -> None:
    listed = {
        topic["contract"]: topic["ttl_ms"]
        for topic in TOPICS
        if "board" in topic["publish"] and "ttl_ms" in topic
    }

    assert {contract: listed[contract] for contract in TTL_MS} == TTL_MS
