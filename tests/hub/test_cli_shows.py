"""What people see of topics, rejects and history, whoever wrote it, on any terminal."""

import json
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from rich.console import Console
from typer.testing import CliRunner

from nervus.cli.app import app
from nervus.cli.clean import _tell
from nervus.cli.rejects import _lines
from nervus.cli.topics import _other_form
from nervus.cli.update_view import show_boards
from nervus.errors import NervusError, UsageError
from nervus.history import Record
from nervus.history.records import SCHEMA as HISTORY
from nervus.history.records import record
from nervus.reflect import Reject
from nervus.reflect.quarantine import ONCE, SCHEMA, keep
from nervus.runtime.clean import Found
from nervus.runtime.orphans import Orphan
from nervus.updates import BoardUpdate, Rollout, Seen, Stored, schema
from nervus.updates.record import KeepBoard, KeepRollout, KeepSeen
from nervus.wire import Packet
from nervus.wire.plain import plain
from nervus.wire.topics import TOPICS
from support import House

HOSTILE = "\x1b[2J\x9b31m\u202e[red]x[/blue]"
"""Clears a terminal, colours it in two ways, turns its text around, and is wrong as markup."""

REJECT = Reject(
    received_ms=1_790_000_000_000, reason_code="decode_error", reason="no JSON at byte 1",
    stage="decode", source="device:b1", source_topic="/sc/dev/event/device/b1/log",
    message_id=None, contract=None, count=1, window_ms=None, sample="{]", sha256=None,
    reporter="brainstem", event_id="1",
)  # fmt: skip


def nervus(*words: str, columns: int = 200, **env: str) -> str:
    """What a command prints; raises what the command line would explain."""
    result = CliRunner(env={"COLUMNS": str(columns)} | env).invoke(
        app, words, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.output


def refused(house: House, *rejects: Reject) -> tuple[str, str]:
    """A quarantine that holds these; returns the words to read it by."""
    with closing(sqlite3.connect(house.state.data / "reflect.db")) as database:
        database.executescript(f"{SCHEMA}{ONCE}; PRAGMA user_version = 2")
        keep(database, rejects, 100)
        database.commit()
    return "--state", str(house.state.path)


def shows_nothing_hostile(shown: str) -> bool:
    """Whether the hostile text is there, and none of it does anything."""
    return "[red]x[/blue]" in shown and all(c.isprintable() or c == "\n" for c in shown)


def test_a_row_of_the_list_of_topics_leads_to_its_other_form_and_back() -> None:
    for spec in TOPICS:
        whole = _other_form(spec.template)
        assert whole.startswith(spec.dotted)
        assert re.findall(r"{\w+}", whole) == re.findall(r"{\w+}", spec.template)
        assert _other_form(whole) == _other_form(spec.dotted) == spec.template
    assert nervus("topics", whole) == f"{spec.template}\n"
    assert nervus("topics", "sc.device.ping.b1") == "/sc/dev/event/device/b1/ping\n"
    assert nervus("topics", "/sc/dev/event/device/b1/ping") == "sc.device.ping.b1\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sc.aff.sense.room", "this one is sc.aff.sense.{scope_level}.{scope}.{sensor_type}."),
        ("/sc/aff/room/kitchen/sensor/motion", "after the first two levels comes event or state"),
        ("/sc/aff/event/room", "nervus topics lists what there is"),
        ("", None),
    ],
)
def test_a_name_that_is_no_topic_is_told_what_it_lacks(name: str, hint: str | None) -> None:
    if hint is None:
        assert nervus("topics", name).count("\n") == 1 + len(TOPICS)
        return
    with pytest.raises(UsageError, match="is no topic") as caught:
        nervus("topics", name)
    assert caught.value.hint.startswith(hint)


def test_no_terminal_is_too_narrow_for_a_topic() -> None:
    longest = max(len(spec.template) for spec in TOPICS)
    wide = nervus("topics", columns=250, FORCE_COLOR="1")
    narrow = nervus("topics", columns=longest, FORCE_COLOR="1")
    piped = nervus("topics", columns=longest)
    assert piped.count("\n") == 1 + len(TOPICS) == wide.count("\n")
    assert narrow.count("\n") == 2 * len(TOPICS)
    for spec in TOPICS:
        assert f"{spec.template}\n" in narrow
        assert f" {spec.template} " in wide
        assert f" {spec.template} " in piped


def test_where_nothing_was_refused_it_says_so(house: House) -> None:
    with pytest.raises(NervusError, match="there is no quarantine yet") as caught:
        nervus("rejects", "--state", str(house.state.path))
    assert "the service reflect" in caught.value.hint
    state = refused(house)
    assert nervus("rejects", *state) == "Nothing was refused yet.\n"
    assert json.loads(nervus("rejects", "--json", *state)) == {"counts": {}, "latest": []}


def test_rejects_are_counted_by_reason_and_the_last_ones_told_in_full(house: House) -> None:
    now = replace(REJECT, received_ms=time.time_ns() // 1_000_000, event_id="2", count=40)
    unknown = replace(now, reason_code="expired", reason=None, source=None, event_id="3", count=1)
    state = refused(house, REJECT, now, unknown)
    shown = nervus("rejects", *state).splitlines()
    assert re.match(r" *41 +decode_error +▇{20}", shown[1])
    assert re.match(r" *1 +expired +▇ *$", shown[2])
    assert re.search(r"\d\d:\d\d:\d\d expired: no further reason", shown[3])
    assert shown[4].split() == ["somebody", "on", "/sc/dev/event/device/b1/log"]
    assert re.search(r"\d\d:\d\d:\d\d decode_error, 40 times: no JSON at byte 1", shown[6])
    assert shown[8].strip() == "refused by brainstem, it began '{]'"
    assert "decode_error: no JSON" in shown[9]
    last = json.loads(nervus("rejects", "--json", "--last", "1", *state))
    assert [one["reason_code"] for one in last["latest"]] == ["expired"]
    assert last["counts"] == {"decode_error": 41, "expired": 1}


def test_a_reject_of_another_day_says_which() -> None:
    at = datetime.fromtimestamp(REJECT.received_ms / 1000).astimezone()
    same, later = _lines(REJECT, at).plain, _lines(REJECT, at + timedelta(days=1)).plain
    assert same.startswith(f"{at:%H:%M:%S} decode_error: ")
    assert later == f"{at:%Y-%m-%d} {same}"


def test_a_terminal_does_nothing_that_a_refused_message_says(house: House) -> None:
    hostile = replace(
        REJECT, reason=HOSTILE, source=HOSTILE, source_topic=HOSTILE, reporter=HOSTILE,
        sample=HOSTILE,
    )  # fmt: skip
    assert shows_nothing_hostile(nervus("rejects", *refused(house, hostile)))
    with pytest.raises(UsageError) as caught:
        nervus("topics", HOSTILE)
    assert shows_nothing_hostile(caught.value.what)


def test_a_terminal_does_nothing_that_a_recorded_message_says(house: House) -> None:
    message = json.dumps(
        {"meta": {"contract": "Outcome", "source": "lamp"}, "payload": {"error": HOSTILE}},
        ensure_ascii=False,
    )
    one = Record(
        "room", HOSTILE, time.time_ns() // 1_000_000, "Outcome", None, "/E/1", "lamp", "1", message
    )
    with closing(sqlite3.connect(house.state.data / "history.db")) as database:
        database.executescript("PRAGMA journal_mode = WAL;" + HISTORY)
        record(database, one)
        database.commit()
    assert shows_nothing_hostile(nervus("history", "--state", str(house.state.path)))
    lines = nervus("history", "--json", "--state", str(house.state.path))
    assert shows_nothing_hostile(lines)
    assert json.loads(lines)["scope"] == HOSTILE


def test_a_terminal_does_nothing_that_a_board_says_of_its_update(house: House) -> None:
    rollout = Rollout("01KAJ6Y9A3Q5W8B1C2D3E4F5G6", "0.2.0", "d", 0, 1, "ada", stopped=HOSTILE)
    board = BoardUpdate(rollout.update_id, "b1", 0, "failed", 1, code="no_space", error=HOSTILE)
    seen = Seen("b1", HOSTILE, online=True, since_ms=1)
    with closing(
        sqlite3.connect(house.state.data / "updates.db", isolation_level=None)
    ) as database:
        database.executescript(schema.SCHEMA)
        schema.write(database, [KeepRollout(rollout), KeepBoard(board), KeepSeen(seen)])
    shown = nervus("update", "status", "--state", str(house.state.path))
    assert shows_nothing_hostile(shown)
    assert shown.count("[red]x[/blue]") == 3


def test_where_no_board_was_seen_the_status_of_updates_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_boards(Console(), Stored((), (), ()))
    assert capsys.readouterr().out == "No board has said yet what it runs.\n"


def test_a_terminal_does_nothing_that_a_retained_topic_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    packet = Packet("core", f"/bs/{HOSTILE}", b"{}", retain=True)
    _tell(Found(1, (Orphan(packet, "no_owner", HOSTILE),)), erased=False)
    assert shows_nothing_hostile(capsys.readouterr().out)


def test_what_can_be_printed_stays_as_it_is() -> None:
    assert plain("Küche, 21 °C, 灯") == "Küche, 21 °C, 灯"
    assert plain("a\x00b\nc\x7f") == "a\ufffdb\ufffdc\ufffd"
