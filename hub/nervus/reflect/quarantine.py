"""The quarantine: rejects in SQLite, written by reflect, read by any process."""

import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from nervus.errors import NervusError
from nervus.reflect.reject import Reject

SCHEMA: Final = """
CREATE TABLE rejects (
    number INTEGER PRIMARY KEY,
    received_ms INTEGER NOT NULL,
    reason_code TEXT NOT NULL,
    reason TEXT,
    stage TEXT NOT NULL,
    source TEXT,
    source_topic TEXT,
    message_id TEXT,
    contract TEXT,
    count INTEGER NOT NULL,
    window_ms INTEGER,
    sample TEXT,
    sha256 TEXT,
    reporter TEXT NOT NULL
);
CREATE INDEX rejects_by_time ON rejects (received_ms);
"""
"""Version 1 of the table; numbers rise by one, so the oldest rows are those with the lowest."""

ONCE: Final = """
ALTER TABLE rejects ADD COLUMN event_id TEXT;
CREATE UNIQUE INDEX rejects_once ON rejects (reporter, event_id);
"""
"""What a later version adds: a RejectEvent that comes again, after whatever crash, is one row."""


class QuarantineError(NervusError):
    """The quarantine cannot be read."""


class NoQuarantineError(QuarantineError):
    """Reflect has not made it yet."""


class Quarantine:
    """A reader's view of the quarantine; use it as a context manager or `close` it."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open `reflect.db` for reading, also while reflect writes it.

        Raises:
            NoQuarantineError: It is not there yet, or not whole yet.
            QuarantineError: It cannot be opened.
        """
        missing = NoQuarantineError(
            "there is no quarantine yet",
            where=str(path),
            hint="it appears once the service reflect has run",
        )
        if not path.is_file():
            raise missing
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise QuarantineError(f"cannot be opened ({error})", where=str(path)) from error
        quarantine = cls(connection, path)
        try:
            # Reflect makes the file first, then all that is in it at once.
            [(version,)] = quarantine._query("PRAGMA user_version")
            if not version:
                raise missing
        except QuarantineError:
            quarantine.close()
            raise
        return quarantine

    def counts(self, since_ms: int = 0) -> dict[str, int]:
        """Rejected messages by reason code, the most frequent first; raises QuarantineError."""
        rows = self._query(
            "SELECT reason_code, SUM(count) FROM rejects WHERE received_ms >= ?"
            " GROUP BY reason_code ORDER BY SUM(count) DESC, reason_code",
            since_ms,
        )
        return dict(rows)

    def counts_by_source(self, since_ms: int = 0) -> dict[str, int]:
        """Rejected messages by source ("" where unknown), as `counts`."""
        rows = self._query(
            "SELECT COALESCE(source, ''), SUM(count) FROM rejects WHERE received_ms >= ?"
            " GROUP BY 1 ORDER BY SUM(count) DESC, 1",
            since_ms,
        )
        return dict(rows)

    def latest(self, number: int) -> list[Reject]:
        """The last rejects, the newest first; raises QuarantineError."""
        rows = self._query(
            f"SELECT {', '.join(_COLUMNS)} FROM rejects ORDER BY number DESC LIMIT ?",  # noqa: S608 - names of our own
            number,
        )
        return [Reject(*row) for row in rows]

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _query(self, statement: str, *values: int) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise QuarantineError(f"cannot be read ({error})", where=str(self._path)) from error


def keep(connection: sqlite3.Connection, rejects: Sequence[Reject], limit: int) -> None:
    """Append rejects that are not there yet, delete the oldest beyond `limit`.

    Inside the caller's transaction.
    """
    connection.executemany(
        _INSERT, [[getattr(each, name) for name in (*_COLUMNS, "event_id")] for each in rejects]
    )
    connection.execute(
        "DELETE FROM rejects WHERE number <= (SELECT MAX(number) FROM rejects) - ?", (limit,)
    )


_COLUMNS: Final = tuple(field.name for field in fields(Reject) if field.name != "event_id")
_INSERT: Final = (
    f"INSERT INTO rejects ({', '.join(_COLUMNS)}, event_id) "  # noqa: S608 - names of our own
    f"VALUES ({', '.join('?' * len(_COLUMNS))}, ?) ON CONFLICT (reporter, event_id) DO NOTHING"
)
