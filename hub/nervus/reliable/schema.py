"""How actions are stored: one row each, in the database that policy's audit shares."""

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from nervus.reliable.action import Action, of_row, to_row
from nervus.reliable.effects import Durable, ForgetAction, InsertAction, UpdateAction

SCHEMA: Final = """
CREATE TABLE actions (
    action_id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    principal TEXT NOT NULL,
    scope_level TEXT NOT NULL,
    scope TEXT NOT NULL,
    priority TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    request_span_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    actuator TEXT NOT NULL,
    command TEXT,
    offline TEXT NOT NULL,
    deadline_at_ms INTEGER NOT NULL,
    requested_ms INTEGER NOT NULL,
    accepted_ms INTEGER NOT NULL,
    stage TEXT NOT NULL,
    dispatched_ms INTEGER,
    acknowledged_ms INTEGER,
    finished_ms INTEGER,
    outcome BLOB,
    published INTEGER NOT NULL,
    late_status TEXT,
    late_ms INTEGER,
    CHECK ((stage = 'finished') = (outcome IS NOT NULL))
);
"""
"""Version 1 of the table of actions, from acceptance to outcome."""


class LostActionError(Exception):
    """An action to be updated is not stored, or has another outcome already."""


def write(connection: sqlite3.Connection, effects: Iterable[Durable]) -> None:
    """Apply effects in order, inside the caller's transaction.

    Raises:
        LostActionError: An update meets no row, or would change an outcome.
        sqlite3.IntegrityError: An action_id is there already.
    """
    for effect in effects:
        match effect:
            case InsertAction(action):
                connection.execute(_INSERT, _row(action))
            case UpdateAction(action):
                if connection.execute(_UPDATE, _row(action)).rowcount != 1:
                    raise LostActionError(
                        f"action {action.action_id}: not stored, or ended otherwise"
                    )
            case ForgetAction(action_id):
                connection.execute("DELETE FROM actions WHERE action_id = ?", (action_id,))


def read(connection: sqlite3.Connection) -> list[Action]:
    """Read all actions: open ones by acceptance, then finished ones in the order of their end."""
    columns = ", ".join(_COLUMNS)
    rows = connection.execute(
        f"SELECT {columns} FROM actions ORDER BY finished_ms NOTNULL, finished_ms, accepted_ms"  # noqa: S608 - names of our own
    )
    return [_action(dict(zip(_COLUMNS, row, strict=True))) for row in rows]


_COLUMNS: Final = (
    "action_id", "digest", "principal", "scope_level", "scope", "priority", "trace_id",
    "request_id", "request_span_id", "device_id", "actuator", "command", "offline",
    "deadline_at_ms", "requested_ms", "accepted_ms", "stage", "dispatched_ms", "acknowledged_ms",
    "finished_ms", "outcome", "published", "late_status", "late_ms",
)  # fmt: skip
_CHANGING: Final = _COLUMNS[_COLUMNS.index("stage") :]
_INSERT: Final = (
    f"INSERT INTO actions ({', '.join(_COLUMNS)}) "  # noqa: S608 - names of our own
    f"VALUES ({', '.join(':' + name for name in _COLUMNS)})"
)
_UPDATE: Final = (
    f"UPDATE actions SET {', '.join(f'{name} = :{name}' for name in _CHANGING)} "  # noqa: S608 - names of our own
    # An outcome that is there never becomes another.
    "WHERE action_id = :action_id AND (outcome IS NULL OR outcome = :outcome)"
)


def _row(action: Action) -> dict[str, Any]:
    row = to_row(action)
    if row["outcome"] is not None:
        row["outcome"] = row["outcome"].encode()
    return row


def _action(row: dict[str, Any]) -> Action:
    if row["outcome"] is not None:
        row["outcome"] = row["outcome"].decode()
    return of_row(row)
