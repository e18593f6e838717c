"""`nervus history` over a real archive, as typed."""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nervus.cli.app import app
from nervus.cli.moments import MomentError, moment
from nervus.errors import NervusError
from nervus.history import Record
from nervus.history.records import SCHEMA, record
from support import DEADLINE_S, House

NOW_MS = 1_790_000_000_000


@pytest.fixture
def archive(house: House) -> Path:
    now_ms = time.time_ns() // 1_000_000
    with closing(sqlite3.connect(house.state.data / "history.db")) as database:
        database.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
        for n in range(6):
            meta = {"contract": "Outcome", "source": "reliable"}
            message = json.dumps({"meta": meta, "payload": {"status": "succeeded", "n": n}})
            at_ms = now_ms - (6 - n) * 600_000 + 5_000
            record(
                database,
                Record("room", "kitchen" if n % 2 else "hall", at_ms, "Outcome", None,
                       f"/E/{n}", "reliable", f"id{n}", message),
            )  # fmt: skip
        database.commit()
    return house.state.path


def lines(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, ["history", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


@pytest.mark.req("S4-43")
def test_it_shows_a_range_of_a_scope(archive: Path) -> None:
    shown = lines("--state", str(archive), "--from", "45m", "--scope", "room/kitchen", "--json")
    messages = [json.loads(line) for line in shown]
    assert [one["message"]["payload"]["n"] for one in messages] == [3, 5]
    assert [one["sequence"] for one in messages] == [2, 3]
    table = lines("--state", str(archive), "--from", "45m", "--to", "15m")
    assert sum("Outcome" in line for line in table) == 3
    assert "room/hall" in "\n".join(table)


def test_it_says_that_there_is_more_and_that_there_is_none(archive: Path) -> None:
    shown = lines("--state", str(archive), "--limit", "2", "--json")
    assert [json.loads(line)["sequence"] for line in shown[:2]] == [1, 1]
    assert shown[2:] == ["the first 2; ask for more with --limit"]
    assert lines("--state", str(archive), "--from", "2s") == ["nothing was recorded there"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "yesterday"], "--from: 'yesterday' is no point in time"),
        (["--from", "1h", "--to", "2h"], "ends before it begins"),
        (["--scope", "kitchen"], "--scope"),
        (["--channel", "smell"], "no channel 'smell'"),
    ],
)
def test_what_is_wrong_is_named(archive: Path, arguments: list[str], text: str) -> None:
    with pytest.raises(NervusError, match=text) as caught:
        lines("--state", str(archive), *arguments)
    assert caught.value.exit_code == 2


@pytest.mark.timeout(40)  # a command has to start, some seconds on a busy machine
def test_it_follows_what_comes(archive: Path) -> None:
    command = [sys.executable, "-u", "-m", "nervus", "history", "--follow", "--json"]
    process = subprocess.Popen([*command, "--state", str(archive)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(6)]
        with closing(sqlite3.connect(archive / "data" / "history.db")) as database:
            one = Record("room", "hall", first[-1]["recorded_ms"] + 9, "Outcome", None, "/E/9",
                         "reliable", "id9", '{"meta":{},"payload":{}}')  # fmt: skip
            record(database, one)
            database.commit()
        assert json.loads(process.stdout.readline())["topic"] == "/E/9"
    finally:
        process.terminate()
        process.wait(timeout=DEADLINE_S)
        process.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "before_ms"),
    [("now", 0), ("90s", 90_000), ("1.5h", 5_400_000), ("2d", 172_800_000)],
)
def test_moments_before_now(text: str, before_ms: int) -> None:
    assert moment("--from", text, NOW_MS) == NOW_MS - before_ms


def test_moments_as_dates() -> None:
    assert moment("--to", "2026-09-21T14:13:20Z") == NOW_MS
    local = datetime.fromtimestamp(NOW_MS / 1000).astimezone().replace(tzinfo=None)
    assert moment("--to", local.isoformat()) == NOW_MS
    with pytest.raises(MomentError, match="--to"):
        moment("--to", "5 minutes")
