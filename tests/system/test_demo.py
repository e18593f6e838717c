"""The demo as a newcomer runs it, and under the loss of each of its parts."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import DIES_WITH_US, eventually, process_lives

CHILDREN = (
    "broker-spinal",
    "broker-core",
    "brainstem",
    "thalamus",
    "gatekeeper",
    "command",
    "reflect",
)


@contextmanager
def running(folder: Path, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """A demo, whole when the block begins, and ended with it."""
    demo = subprocess.Popen(
        [
            *DIES_WITH_US, sys.executable, "-m", "nervus", "demo", "--seconds", str(seconds),
            "--json", str(folder / "out.json"), "--state", str(folder / "state"),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"NERVUS_JOURNAL__ENABLED": "true"},
    )  # fmt: skip

    def stands() -> bool:
        assert demo.poll() is None, demo.communicate()[0]
        return whole(folder)

    with demo:
        try:
            eventually(stands, 75)
            yield demo
        finally:
            demo.kill()


def report(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return read


def rejects(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "nervus", "rejects", "--json", "--last", "1000"]
    command += ["--state", str(folder / "state")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    read: dict[str, Any] = json.loads(printed)
    return read


def replayed(folder: Path) -> dict[str, dict[str, Any]]:
    """What each plane's journal replays to."""
    command = [sys.executable, "-m", "nervus", "replay", "--json", "--from", "15m"]
    command += ["--state", str(folder / "state")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {one["plane"]: one for one in json.loads(printed)}


def pids(folder: Path) -> dict[str, int]:
    """The process of each child that is ready."""
    try:
        status = json.loads((folder / "state/run/status.json").read_text())
    except FileNotFoundError:
        return {}
    children = status["children"]
    return {child["name"]: child["pid"] for child in children if child["state"] == "ready"}


def whole(folder: Path) -> bool:
    """Whether every child is ready and every board runs."""
    return set(CHILDREN) <= pids(folder).keys() and len(board_pids(folder)) >= 3


def lose(folder: Path, name: str, alive: Callable[[Path], dict[str, int]]) -> None:
    """SIGKILL a part, and wait until it is there again."""
    lost = alive(folder)[name]
    os.kill(lost, signal.SIGKILL)
    eventually(lambda: alive(folder).get(name, lost) != lost and whole(folder), 30)


def accepted(folder: Path) -> int:
    """How many commands were accepted so far."""
    with closing(sqlite3.connect(folder / "state/data/command.db")) as database:
        (number,) = database.execute("SELECT COUNT(*) FROM actions").fetchone()
    return int(number)


def board_pids(folder: Path) -> dict[str, int]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            home = (process / "cwd").readlink()
        except OSError:
            continue
        if home.parent == folder / "state/boards":
            found[home.name] = int(process.name)
    return found


@pytest.mark.timeout(150)  # the demo itself is asked to run for 12 s, and then run again
@pytest.mark.req(
    "S0-7", "S0-8", "S0-9", "S0-107", "S1-2", "S1-3", "S1-7", "S2-2", "S2-16", "S4-4", "S4-56"
)
def test_demo_reports_each_thing_the_readme_promises(tmp_path: Path) -> None:
    with running(tmp_path, 12) as demo:
        left_behind = [*pids(tmp_path).values(), *board_pids(tmp_path).values()]
        output, _ = demo.communicate()
    assert demo.returncode == 0, output
    told = report(tmp_path)
    assert len(told["boards"]) >= 3
    assert all(board["status"] == "online" for board in told["boards"].values())
    assert told["afferents"] > told["bundles"] > 0
    assert 0 < told["gated_relays"] < told["bundles"]
    assert told["route_decisions"]["drop"] > 0
    attention = told["attention"]
    # a gate that was shut, expired by itself, and let content flow again; a contest in one room
    for count in ("gates_shut", "gates_expired", "flowing_again_after_expiry"):
        assert attention[count] > 0, attention
    assert attention["contests_won"] > 0 < attention["contests_lost"], attention
    # glass breaks: brainstem raises an alert, which decays
    assert attention["highest_alert"] > 0.5, attention
    assert attention["lowest_alert_after"] < attention["highest_alert"] / 2, attention
    assert told["reflex_fires"] > 0
    commands = told["commands"]
    assert commands["outcomes"]["succeeded"] > 0
    assert commands["outcomes"]["rejected"] > 0
    assert commands["without_outcome"] == commands["outcomes_twice"] == 0
    assert {"decode_error", "identity_mismatch"} <= set(told["rejects"]["by_reason"])
    assert rejects(tmp_path)["counts"] == told["rejects"]["by_reason"]
    assert {"duplicate", "decode_error"} <= {
        each["reason_code"] for each in rejects(tmp_path)["latest"]
    }
    for latency in told["latency_ms"].values():
        assert latency["count"] > 0
        assert latency["p99"] >= latency["p50"] > 0
    # Recorded, and run again: every input gives the same bytes as then.
    planes = replayed(tmp_path)
    assert set(planes) == {"brainstem", "relay", "gatekeeper", "command", "reflect", "history"}
    for plane in planes.values():
        assert (plane["differed"], plane["exact"]) == (0, True), plane
        assert plane["agreed"] > 0 < plane["inputs"]
        assert plane["outputs"] > 0
    assert all(planes[name]["agreed"] > 50 for name in ("brainstem", "relay", "history")), planes
    assert len(left_behind) >= len(CHILDREN) + 3
    assert not [pid for pid in left_behind if process_lives(pid)]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.timeout(180)  # eight losses, one after the other, and the time to come back
@pytest.mark.req("S0-6", "S4-20", "S4-82", "S4-87")
def test_each_part_comes_back_from_sigkill_and_no_command_is_left_open(tmp_path: Path) -> None:
    with running(tmp_path, 600) as demo:
        for child in CHILDREN:
            lose(tmp_path, child, pids)
            time.sleep(1)  # so that some commands are asked of the house while it is whole
        eventually(lambda: accepted(tmp_path) > 20)
        # Its process is there again, its link is not: the demo waits for it.
        lose(tmp_path, "kitchen-1", board_pids)
        demo.send_signal(signal.SIGUSR1)
        output, _ = demo.communicate()
    assert demo.returncode == 0, output
    told = report(tmp_path)
    assert {name: told["restarts"][name] for name in CHILDREN} == dict.fromkeys(CHILDREN, 1)
    assert told["boards"]["kitchen-1"]["starts"] == 2
    assert all(board["status"] == "online" for board in told["boards"].values())
    commands = told["commands"]
    assert commands["accepted"] > 20
    assert commands["without_outcome"] == commands["outcomes_twice"] == 0


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.timeout(120)  # it has to start before it can be stopped
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_cleanly_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path, 600) as demo:
        children = [*pids(tmp_path).values(), *board_pids(tmp_path).values()]
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=40)
    assert demo.returncode == 0, output
    assert "Traceback" not in output
    assert not [pid for pid in children if process_lives(pid)]
