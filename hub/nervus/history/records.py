"""The tables: messages in the order they were recorded, and each scope's last sequence."""

import sqlite3
from typing import Final

from nervus.history.core import Record, Trim

SCHEMA: Final = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    scope_level TEXT NOT NULL,
    scope TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    recorded_ms INTEGER NOT NULL,
    contract TEXT NOT NULL,
    channel TEXT,
    topic TEXT NOT NULL,
    source TEXT NOT NULL,
    message_id TEXT NOT NULL,
    message TEXT NOT NULL,
    UNIQUE (source, message_id),
    UNIQUE (scope_level, scope, sequence)
);
CREATE INDEX messages_by_time ON messages (recorded_ms);
CREATE TABLE scopes (
    scope_level TEXT NOT NULL,
    scope TEXT NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (scope_level, scope)
);
"""
"""Version 1. A scope's last sequence outlives its messages, so that no number is given twice."""

_INSERT: Final = """
INSERT INTO messages (scope_level, scope, sequence, recorded_ms, contract, channel, topic,
    source, message_id, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def record(connection: sqlite3.Connection, one: Record) -> int | None:
    """Record a message inside the caller's transaction.

    Returns:
        Its sequence, or None when it was recorded before.
    """
    known = connection.execute(
        "SELECT 1 FROM messages WHERE source = ? AND message_id = ?", (one.source, one.message_id)
    ).fetchone()
    if known:
        return None
    scope = one.scope_level, one.scope
    sequence: int
    ((sequence,),) = connection.execute(
        "INSERT INTO scopes (scope_level, scope, last) VALUES (?, ?, 1)"
        " ON CONFLICT (scope_level, scope) DO UPDATE SET last = last + 1 RETURNING last",
        scope,
    ).fetchall()
    connection.execute(
        _INSERT,
        (*scope, sequence, one.recorded_ms, one.contract, one.channel, one.topic, one.source,
         one.message_id, one.message),
    )  # fmt: skip
    return sequence


def trim(connection: sqlite3.Connection, wanted: Trim) -> int:
    """Delete a slice of the oldest that are to go, inside the caller's transaction.

    Deletes from the lowest number upwards and stops at the first to stay, so that what remains of
    a scope has no gaps even when the clock was set back.

    Returns:
        How many went.
    """
    if _used_bytes(connection) > wanted.limit_bytes:
        limit = "SELECT number FROM messages ORDER BY number LIMIT ?"
        deleted = connection.execute(
            f"DELETE FROM messages WHERE number IN ({limit})",  # noqa: S608 - text of our own
            (wanted.rows,),
        )
        return deleted.rowcount
    oldest = connection.execute(
        "SELECT number, recorded_ms FROM messages ORDER BY number LIMIT ?", (wanted.rows,)
    )
    last = 0
    for number, recorded_ms in oldest:
        if recorded_ms >= wanted.before_ms:
            break
        last = number
    return connection.execute("DELETE FROM messages WHERE number <= ?", (last,)).rowcount


def _used_bytes(connection: sqlite3.Connection) -> int:
    """Pages that hold something; deleted ones are used again before the file grows."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    used: int = (pages - free) * size
    return used
