"""Opening a database: durable, private, owned by one process, at the newest schema."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from nervus.store.errors import StoreError

BUSY_MS = 5_000
_LOCK_PAUSE_S = 0.02
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def own(path: Path, *, wait: bool = False) -> int:
    """Become the one process that writes this database; closing the descriptor gives it up.

    With `wait`, wait up to 5 s for another to give it up: for stores that several processes own in
    turn, each for as long as it takes to open them.

    Raises:
        StoreError: Another process has it, or its folder cannot be written.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable("cannot be opened", path, error) from error
    deadline = time.monotonic() + (BUSY_MS / 1000 if wait else 0)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(_LOCK_PAUSE_S)
                continue
            os.close(descriptor)
            raise StoreError(
                "another process writes this store",
                where=str(path),
                hint="stop it; a store has one owner",
            ) from error
        return descriptor


def open_writer(path: Path, schema: Sequence[str]) -> sqlite3.Connection:
    """Open for writing, create what is missing and bring the schema up to date.

    Args:
        path: The database file.
        schema: One script for each version, never changed once released; `user_version` counts
            those that were applied. Scripts hold no BEGIN or COMMIT.

    Raises:
        StoreError: It cannot be opened, is damaged, or is newer than `schema`.
    """
    try:
        # SQLite gives its journal files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise unusable("cannot be opened", path, error) from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, path, schema)
        _sync_folder(path.parent)
    except sqlite3.Error as error:
        connection.close()
        raise unusable("cannot be used", path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open for reading only; sees what was committed before each statement."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection


def unusable(what: str, path: Path, error: OSError | sqlite3.Error) -> StoreError:
    """The error for people: what a database suffers from, and what to do."""
    # An extended code says more in its higher bytes.
    damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
    return StoreError(
        f"{what} ({getattr(error, 'strerror', None) or error})",
        where=str(path),
        hint="restore it from a backup; moved away, it begins anew without what it held"
        if damaged
        else "is its disk full or failing? look at `nervus doctor`",
    )


def _migrate(connection: sqlite3.Connection, path: Path, schema: Sequence[str]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(schema):
        raise StoreError(
            f"written by a newer version (schema {version}, this program knows {len(schema)})",
            where=str(path),
            hint="update the program",
        )
    for number, script in enumerate(schema[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA user_version = {number};\nCOMMIT;"
        )


def _sync_folder(folder: Path) -> None:
    # The file's name must be as durable as its content.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
