"""Each benchmark runs with tiny counts: what it measures took place; no timing is judged."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["what", "measured", "unit", "n", "goal", "met"]
FEWEST = {
    "guard": {
        "compact afferent: decode + guard": 60,
        "compact afferent: decode alone": 60,
        "compact afferent: validation alone": 60,
        "full bundle: decode + guard": 60,
        "full bundle: decode alone": 60,
        "full bundle: validation alone": 60,
        "full command request: decode + guard": 60,
        "full command request: decode alone": 60,
        "full command request: validation alone": 60,
        "id": 60,
        "mint": 60,
        "mint + encode": 60,
    },
    "hub": {
        "brainstem in process": 200,
        "thalamus in process": 200,
        "gate decision": 200,
        "store alone": 20,
        "store grouped": 256,
        "sustained qos0 brainstem": 150,
        "sustained qos0 brainstem lag": 150,
        "sustained qos0 paho": 150,
        "sustained qos0 paho lag": 150,
        "sustained qos0 node": 150,
        "sustained qos0 node lag": 150,
        "sustained qos0 mosquitto": 150,
        "sustained qos0 to node": 2,
        "sustained qos0 to paho": 2,
        "sustained qos0 to mosquitto": 2,
        "sustained qos1 brainstem": 150,
        "sustained qos1 brainstem lag": 150,
        "sustained qos1 paho": 150,
        "sustained qos1 paho lag": 150,
        "sustained qos1 node": 150,
        "sustained qos1 node lag": 150,
        "sustained qos1 mosquitto": 150,
        "sustained qos1 to node": 2,
        "sustained qos1 to paho": 2,
        "sustained qos1 to mosquitto": 2,
        "afferent to consumer at 20/s": 8,
        "command to outcome": 3,
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


def bench(name: str, tmp_path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    out = tmp_path / "out.json"
    result = subprocess.run(
        [ROOT / "tools" / "bench", name, "--quick", "--json", out],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["benchmark"] == name
    assert report["quick"] is True
    assert report["machine"]["cores"] >= 1
    return {row["name"]: row for row in report["rows"]}, result.stdout


@pytest.mark.timeout(120)  # starts brokers, services, floods and boards, one set after the other
@pytest.mark.parametrize("name", FEWEST)
def test_every_row_was_measured(name: str, tmp_path: Path) -> None:
    rows, printed = bench(name, tmp_path)
    lines = printed.splitlines()
    assert lines[1].startswith(f"{name}  ")
    assert re.search(r"\d+ cores, .+, Python 3\.\d+\.\d+, load ", lines[1])
    assert [line.split() for line in lines if line.startswith("what ")] == [COLUMNS]
    assert sorted(rows) == sorted(FEWEST[name])
    for row_name, fewest in FEWEST[name].items():
        row = rows[row_name]
        assert row["count"] >= fewest, row
        assert row["what"].split()[0] in printed
        assert row["values"]
        assert (row["met"] is None) == (not row["goals"])
        assert all(goal["value"] in row["values"] for goal in row["goals"])


def test_goal_is_met_or_missed_by_its_own_value(tmp_path: Path) -> None:
    rows, _ = bench("guard", tmp_path)
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
