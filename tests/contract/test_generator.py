"""The generator refuses schemas that could not be held by every part, and says where."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.reference import SCHEMAS

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from generator import firmware
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
