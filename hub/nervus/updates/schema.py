"""The tables of the updates plane: roll-outs, their boards, and what boards said of themselves."""

import sqlite3
from collections.abc import Iterable
from dataclasses import astuple, fields
from typing import Any, Final

from nervus.updates.record import (
    OPEN,
    BoardUpdate,
    Durable,
    Forget,
    KeepBoard,
    KeepRollout,
    KeepSeen,
    Rollout,
    Seen,
    Stored,
)

SCHEMA: Final = """
CREATE TABLE rollouts (
    update_id TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    canary INTEGER NOT NULL,
    asked_ms INTEGER NOT NULL,
    asked_by TEXT NOT NULL,
    stopped TEXT NOT NULL
);
CREATE TABLE boards (
    update_id TEXT NOT NULL REFERENCES rollouts (update_id) ON DELETE CASCADE,
    device_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    done INTEGER NOT NULL,
    total INTEGER NOT NULL,
    code TEXT NOT NULL,
    error TEXT NOT NULL,
    boot INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (update_id, device_id)
);
CREATE TABLE seen (
    device_id TEXT PRIMARY KEY,
    firmware TEXT NOT NULL,
    online INTEGER NOT NULL,
    since_ms INTEGER NOT NULL
);
"""
"""Version 1 of the tables."""


def write(connection: sqlite3.Connection, effects: Iterable[Durable]) -> None:
    """Apply effects in order, inside the caller's transaction."""
    for effect in effects:
        match effect:
            case KeepRollout(rollout):
                connection.execute(_KEEP["rollouts"], astuple(rollout))
            case KeepBoard(board):
                connection.execute(_KEEP["boards"], astuple(board))
            case KeepSeen(seen):
                connection.execute(_KEEP["seen"], astuple(seen))
            case Forget(update_id):
                connection.execute("DELETE FROM boards WHERE update_id = ?", (update_id,))
                connection.execute("DELETE FROM rollouts WHERE update_id = ?", (update_id,))


def read(connection: sqlite3.Connection) -> Stored:
    """Read everything."""
    rollouts = connection.execute(_READ["rollouts"] + " ORDER BY asked_ms, update_id")
    boards = connection.execute(_READ["boards"] + " ORDER BY update_id, position")
    seen = connection.execute(_READ["seen"] + " ORDER BY device_id")
    return Stored(
        tuple(Rollout(*row) for row in rollouts),
        tuple(BoardUpdate(*row) for row in boards),
        tuple(
            Seen(device, firmware, bool(online), since) for device, firmware, online, since in seen
        ),
    )


def ended(connection: sqlite3.Connection) -> frozenset[str]:
    """The roll-outs that no board needs the pack of any more."""
    states = ", ".join(f"'{state}'" for state in sorted(OPEN))
    rows = connection.execute(
        f"SELECT update_id FROM rollouts WHERE update_id NOT IN "  # noqa: S608 - names of our own
        f"(SELECT update_id FROM boards WHERE state IN ({states}))"
    )
    return frozenset(update_id for (update_id,) in rows)


def _columns(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


_TABLES: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "rollouts": (_columns(Rollout), ("update_id",)),
    "boards": (_columns(BoardUpdate), ("update_id", "device_id")),
    "seen": (_columns(Seen), ("device_id",)),
}
_KEEP: Final = {
    table: (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - names of our own
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
    )
    for table, (names, keys) in _TABLES.items()
}
_READ: Final = {
    table: f"SELECT {', '.join(names)} FROM {table}"  # noqa: S608 - names of our own
    for table, (names, _) in _TABLES.items()
}
