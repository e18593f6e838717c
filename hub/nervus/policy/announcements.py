"""Commands that observers have yet to be told: a row from the decision to the broker's PUBACK."""

import sqlite3
from collections.abc import Iterable
from typing import Final

from nervus.policy.record import Announce
from nervus.wire import Publish, encode
from nervus.wire.contracts import Command
from nervus.wire.mint import expiry_ms
from nervus.wire.topic_parser import parse

SCHEMA: Final = """
CREATE TABLE announcements (
    number INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    message BLOB NOT NULL
);
"""
"""Version 1 of the table."""


def append(connection: sqlite3.Connection, announced: Iterable[Announce]) -> None:
    """Store messages, inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO announcements (message_id, topic, message) VALUES (?, ?, ?)",
        [
            (each.publish.message.meta.message_id, each.publish.address.topic,
             encode(each.publish.message))
            for each in announced
        ],
    )  # fmt: skip


def forget(connection: sqlite3.Connection, message_ids: Iterable[str]) -> None:
    """Delete messages that the broker has, inside the caller's transaction."""
    connection.executemany(
        "DELETE FROM announcements WHERE message_id = ?", [(each,) for each in message_ids]
    )


def left(connection: sqlite3.Connection, now_ms: int) -> list[Publish]:
    """Return what was decided and is not known to be published, oldest first; same message_id.

    What has expired meanwhile is left out: no guard would take it.
    """
    found = []
    for topic, text in connection.execute(
        "SELECT topic, message FROM announcements ORDER BY number"
    ):
        address, message = parse(topic), Command.model_validate_json(text)
        life_ms = expiry_ms(message.meta, now_ms)
        if address is not None and (life_ms is None or life_ms > 0):
            found.append(Publish(address, message, life_ms))
    return found


def clear_others(connection: sqlite3.Connection, kept: Iterable[Publish]) -> int:
    """Delete all but `kept`, inside the caller's transaction; returns how many were deleted."""
    ids = {each.message.meta.message_id for each in kept}
    rows = [one for (one,) in connection.execute("SELECT message_id FROM announcements")]
    gone = [one for one in rows if one not in ids]
    forget(connection, gone)
    return len(gone)
