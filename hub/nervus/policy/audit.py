"""The audit: one row for each decision, chained by hashes, only ever appended."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from nervus.errors import NervusError
from nervus.policy.record import AuditRecord

SCHEMA: Final = """
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    recorded_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    envelope_id TEXT,
    trace_id TEXT,
    parent_id TEXT,
    invocation_id TEXT,
    parent_invocation_id TEXT,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    channel TEXT NOT NULL,
    capability_id TEXT,
    capability_version TEXT,
    target TEXT,
    request_digest TEXT,
    policy_decision_id TEXT NOT NULL,
    policy_regime_id TEXT NOT NULL,
    allowed INTEGER NOT NULL,
    reason_codes TEXT NOT NULL,
    obligations TEXT NOT NULL
);
CREATE TRIGGER audit_is_never_updated BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
"""
"""Version 1 of the table; the triggers stop accidents, the chain shows tampering."""

GENESIS: Final = "0" * 64
"""The previous hash of the first row."""


class AuditChainError(NervusError):
    """The audit was changed after it was written."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A verified audit: how many rows, and the hash that stands for all of them."""

    rows: int
    head: str


def append(connection: sqlite3.Connection, records: Iterable[AuditRecord]) -> None:
    """Append records, inside the caller's transaction."""
    sequence, previous = connection.execute(
        "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1"
    ).fetchone() or (0, GENESIS)
    for record in records:
        sequence += 1
        row = _row(record)
        digest = _digest(previous, sequence, row)
        connection.execute(_INSERT, row | {
            "sequence": sequence, "previous_hash": previous, "hash": digest,
        })  # fmt: skip
        previous = digest


def verify_chain(connection: sqlite3.Connection) -> Chain:
    """Recompute every hash.

    The chain shows a changed, removed or inserted row. Rows cut off its end leave a shorter chain
    that is whole: compare `head` with one kept elsewhere.

    Raises:
        AuditChainError: A row does not fit; names the first.
    """
    previous, expected = GENESIS, 0
    for row in _rows(connection):
        expected += 1
        sequence, stated_previous, stated = (
            row.pop(name) for name in ("sequence", "previous_hash", "hash")
        )
        whole = sequence == expected and stated_previous == previous
        if not whole or stated != _digest(previous, sequence, row):
            raise AuditChainError(
                f"row {sequence} is not what was written, or rows before it are gone",
                where="audit",
                hint="keep the file as evidence and restore the last backup",
            )
        previous = stated
    return Chain(expected, previous)


def verify_file(path: Path) -> Chain:
    """Verify the audit of a database file, also while its service runs.

    Raises:
        AuditChainError: A row does not fit, or the file has no audit.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise AuditChainError(f"cannot be opened ({error})", where=str(path)) from error
    try:
        return verify_chain(connection)
    except sqlite3.Error as error:
        raise AuditChainError(f"cannot be read ({error})", where=str(path)) from error
    finally:
        connection.close()


_FIELDS: Final = tuple(field.name for field in fields(AuditRecord))
_COLUMNS: Final = ("sequence", "previous_hash", "hash", *_FIELDS)
_INSERT: Final = (
    f"INSERT INTO audit ({', '.join(_COLUMNS)}) "  # noqa: S608 - names of our own
    f"VALUES ({', '.join(':' + name for name in _COLUMNS)})"
)


def _row(record: AuditRecord) -> dict[str, Any]:
    row = asdict(record)
    row["allowed"] = int(record.allowed)
    for name in ("reason_codes", "obligations"):
        row[name] = json.dumps(row[name])
    return row


def _rows(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM audit ORDER BY sequence")  # noqa: S608 - names of our own
    for row in rows:
        yield dict(zip(_COLUMNS, row, strict=True))


def _digest(previous: str, sequence: int, row: dict[str, Any]) -> str:
    content = json.dumps([sequence, row], sort_keys=True, separators=(",", ":"))
    return sha256(f"{previous}{content}".encode()).hexdigest()
