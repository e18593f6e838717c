"""The generator refuses schemas that could not be held by every part, and says where."""

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.reference import SCHEMAS

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from generator import cbor, firmware
from generator.schemas import SchemaError, Schemas

Document = dict[str, Any]
TOPICS = "topics.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "schemas"
    shutil.copytree(SCHEMAS, copied, ignore=shutil.ignore_patterns("vectors"))
    return copied


def change(folder: Path, name: str, how: Callable[[Document], object]) -> None:
    path = folder / name
    document = json.loads(path.read_text())
    how(document)
    path.write_text(json.dumps(document))


def contract(name: str) -> str:
    return f"contracts/{name}.schema.json"


def fields(document: Document) -> Document:
    properties: Document = document["properties"]["payload"]["properties"]
    return properties


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        (TOPICS, lambda it: it["without_topic"].clear(), "StreamSessionRequest.*way to travel"),
        (TOPICS, lambda it: it["topics"].pop(), "RejectEvent.*way to travel"),
        (TOPICS, lambda it: it["topics"][0]["publish"].append("king"), "afferent: .*king"),
        (TOPICS, lambda it: it["topics"][0].update(contract="Nonsense"), "afferent: no such"),
        (
            contract("PatternTrigger"),
            lambda it: fields(it)["pattern_type"].update({"x-registry": "dreams"}),
            "PatternTrigger: there is no registries/dreams.json",
        ),
        (
            contract("DeviceLog"),
            lambda it: fields(it)["text"].pop("maxLength"),
            "DeviceLog/payload/text: give the string a bound",
        ),
        (
            contract("DeviceHealth"),
            lambda it: fields(it)["drops"].pop("maxItems"),
            "DeviceHealth/payload/drops: give the array a bound",
        ),
        (
            contract("DeviceLog"),
            lambda it: fields(it)["level"].pop("description"),
            "DeviceLog/payload/level: give it a description",
        ),
        (
            contract("DeviceLog"),
            lambda it: fields(it)["level"].update({"not": {}}),
            "outside the subset",
        ),
    ],
)
def test_what_does_not_hold_together_is_named(
    folder: Path, name: str, how: Callable[[Document], object], said: str
) -> None:
    Schemas(folder)
    change(folder, name, how)
    with pytest.raises(SchemaError, match=said):
        Schemas(folder)


def test_a_pattern_that_a_board_could_not_check_is_named(folder: Path) -> None:
    firmware.contracts(Schemas(folder))
    change(folder, "envelope.schema.json", lambda it: it["$defs"]["ulid"].pop("x-check"))
    with pytest.raises(SchemaError, match=r"\^\[0-7\].*needs an x-check"):
        firmware.contracts(Schemas(folder))


def test_a_contract_that_no_topic_brings_to_a_board_gets_no_table_there(folder: Path) -> None:
    def withhold(document: Document) -> None:
        (pong,) = (row for row in document["topics"] if row["name"] == "pong")
        pong["subscribe"] = ["observer"]

    change(folder, TOPICS, withhold)
    with pytest.raises(SchemaError, match="does not subscribe each of"):
        firmware.contracts(Schemas(folder))


@pytest.fixture(scope="module")
def loaded() -> Schemas:
    return Schemas(SCHEMAS)


def test_every_number_is_on_record(loaded: Schemas) -> None:
    assert cbor.record(loaded, SCHEMAS) == (SCHEMAS / cbor.RECORD).read_text()
    given = json.loads((SCHEMAS / cbor.RECORD).read_text())
    assert len(given["contracts"]["contract"]) == len(loaded.contracts)
    assert given["keys"]["Meta"]["message_id"] == 1
    assert given["values"]["MetaClk"] == {"hub": 1, "ntp": 2, "none": 3}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda it: fields(it)["level"].pop("x-cbor-key"), "DeviceLogPayload: x-cbor-key gives"),
        (lambda it: fields(it)["level"].update({"x-cbor-key": 0}), "x-cbor-key gives"),
        (lambda it: fields(it)["level"].update({"x-cbor-key": True}), "x-cbor-key gives"),
        (lambda it: fields(it)["level"].update({"x-cbor-key": 19_001}), "x-cbor-key gives"),
        (lambda it: fields(it)["level"].update({"x-cbor-key": 2}), "x-cbor-key gives"),
        (lambda it: fields(it)["level"].update({"x-cbor-key": 9}), "level: 9, but it was given 1"),
        (lambda it: fields(it)["level"].pop("x-cbor-value"), "x-cbor-value gives each of the enum"),
        (lambda it: fields(it)["level"]["x-cbor-value"].pop("info"), "x-cbor-value gives each"),
        (
            lambda it: fields(it)["level"]["x-cbor-value"].update(info=1, debug=2),
            "DeviceLogPayloadLevel/debug: 2, but it was given 1 before",
        ),
        (
            lambda it: fields(it).update(words=fields(it).pop("text")),
            "DeviceLogPayload: a number stands for something else already",
        ),
        (lambda it: it.update({"x-cbor-value": 1}), "gives each contract a number of its own"),
        (lambda it: it.update({"x-cbor-value": 99}), "DeviceLog: 99, but it was given 12 before"),
        (
            lambda it: it["properties"]["payload"].update({"x-cbor-key": 9}),
            "DeviceLog/payload: x-cbor-key is 3 everywhere else",
        ),
        (
            lambda it: fields(it)["text"].update(
                {"title": "Meta", "properties": {"a": {"x-cbor-key": 1}}, "x-cbor-key": 3}
            ),
            "two different things are called Meta",
        ),
    ],
)
def test_a_number_that_is_missing_taken_or_changed_is_named(
    loaded: Schemas, how: Callable[[Document], object], said: str
) -> None:
    changed = copy.deepcopy(loaded)
    how(changed.contracts["DeviceLog"])
    with pytest.raises(SchemaError, match=said):
        cbor.record(changed, SCHEMAS)


def test_a_new_field_is_added_to_the_record_and_an_old_one_stays_reserved(loaded: Schemas) -> None:
    changed = copy.deepcopy(loaded)
    log = fields(changed.contracts["DeviceLog"])
    log["line"] = log.pop("text") | {"x-cbor-key": 4}
    keys = json.loads(cbor.record(changed, SCHEMAS))["keys"]["DeviceLogPayload"]
    assert keys == {"level": 1, "name": 2, "text": 3, "line": 4}
