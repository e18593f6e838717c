"""Each benchmark runs with tiny counts: what it measures took place; no timing is judged."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("unmeasured")

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["what", "measured", "unit", "n", "goal", "met"]
FEWEST = {
    "guard": {
        "compact afferent: decode + guard": 60,
        "compact afferent: reading alone": 60,
        "compact afferent: two passes": 60,
        "full progress: decode + guard": 60,
        "full progress: reading alone": 60,
        "full progress: two passes": 60,
        "full command request: decode + guard": 60,
        "full command request: reading alone": 60,
        "full command request: two passes": 60,
        "full bundle: decode + guard": 60,
        "full bundle: reading alone": 60,
        "full bundle: two passes": 60,
        "id": 60,
        "mint": 60,
        "mint + encode": 60,
    },
    "hub": {
        "brainstem in process": 200,
        "thalamus in process": 200,
        "gate decision": 200,
        "brainstem by sources": 100,
        "brainstem flat": 100,
        "store alone": 20,
        "store grouped": 256,
        **{
            f"sustained {link} qos{qos} {what}": fewest
            for link, qos in (("plain", 0), ("tls", 1))
            for what, fewest in (
                ("brainstem", 150),
                ("brainstem lag", 150),
                ("node", 150),
                ("node lag", 150),
                ("mosquitto", 150),
                ("to node", 2),
                ("to mosquitto", 2),
            )
        },
        "afferent to consumer at 20/s": 8,
        "command to outcome": 3,
        "control beside low priority": 1,
        "control beside hostile": 1,
        "control beside slow consumer": 1,
    },
    "simulation": {"simulation alone": 2, "simulation checked": 2},
    "firmware": {
        "reflex idle": 20,
        "reflex black hole": 20,
        "reflex flood": 20,
        "reflex reconnects": 20,
        "rules 1 µs": 3,
        "rules 32 µs": 3,
        "afferent µs": 3,
        "afferent bytes": 3,
        "afferent switch bytes": 3,
        "rule of 8 µs": 3,
        "afferent CBOR µs": 3,
        "afferent CBOR bytes": 3,
        "size": 1,
        "qos1 publishes": 50,
        "reflex hostile": 20,
        "heap drift": 100,
        "heap 128k rom 8+4": 0,
        "heap 192k rom 8+8": 1,
        "heap 192k ram 8+8": 1,
    },
}


@dataclass(frozen=True)
class Measured:
    """What one benchmark wrote and printed."""

    rows: dict[str, dict[str, Any]]
    printed: str


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """All of them, side by side: a quick one measures nothing that the others could disturb."""
    folder = tmp_path_factory.mktemp("benches")
    started = {}
    for name in FEWEST:
        command = [ROOT / "tools" / "bench", name, "--quick", "--json", folder / f"{name}.json"]
        with (folder / name).open("w") as output:
            started[name] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        statuses = {name: process.wait(timeout=150) for name, process in started.items()}
    finally:
        for process in started.values():
            process.terminate()
    printed = {name: (folder / name).read_text(encoding="utf-8") for name in FEWEST}
    assert statuses == dict.fromkeys(FEWEST, 0), printed
    return {name: _read(folder / f"{name}.json", printed[name]) for name in FEWEST}


def _read(out: Path, printed: str) -> Measured:
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["benchmark"] == out.stem
    assert report["quick"] is True
    assert report["machine"]["cores"] >= 1
    return Measured({row["name"]: row for row in report["rows"]}, printed)


@pytest.mark.timeout(
    180
)  # the first one waits for all of them: brokers, services, floods and boards
@pytest.mark.parametrize("name", FEWEST)
def test_every_row_was_measured(name: str, benches: dict[str, Measured]) -> None:
    rows, printed = benches[name].rows, benches[name].printed
    lines = printed.splitlines()
    (title,) = [line for line in lines if line.startswith(f"{name}  ")]
    assert re.search(r"\d+ cores, .+, Python 3\.\d+\.\d+ \(/\S+\), load ", title)
    assert [line.split() for line in lines if line.startswith("what ")] == [COLUMNS]
    assert sorted(rows) == sorted(FEWEST[name])
    for row_name, fewest in FEWEST[name].items():
        row = rows[row_name]
        assert row["count"] >= fewest, row
        assert row["what"].split()[0] in printed
        assert row["values"]
        assert (row["met"] is None) == (not row["goals"])
        assert all(goal["value"] in row["values"] for goal in row["goals"])


@pytest.mark.timeout(180)  # as above, where it runs alone
def test_goal_is_met_or_missed_by_its_own_value(benches: dict[str, Measured]) -> None:
    rows = benches["guard"].rows
    row = rows["id"]
    (goal,) = row["goals"]
    assert goal["relation"] == "≤"
    assert row["met"] is (row["values"][goal["value"]] <= goal["limit"])
    assert all(0 < each["values"]["least"] <= each["values"]["most"] for each in rows.values())


def test_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    command = [ROOT / "tools" / "bench", "weather"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert result.returncode == 2
    assert all(name in result.stderr for name in FEWEST)
