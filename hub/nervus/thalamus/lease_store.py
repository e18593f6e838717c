"""The store of leases, which all gatekeepers of a house share.

A lease that was not renewed in time may be taken by another; so may that of an identity's former
start, which the broker has cut off by letting the new one in.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from nervus.thalamus.lease import Claim, Lease, Leases, Scope

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS gate_lease (
  scope_level TEXT NOT NULL,
  scope TEXT NOT NULL,
  holder TEXT NOT NULL,
  start TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  until_ms INTEGER NOT NULL,
  PRIMARY KEY (scope_level, scope)
);
CREATE TABLE IF NOT EXISTS gate_epoch (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  epoch INTEGER NOT NULL
);
"""

KEPT_MS: Final = 86_400_000
"""A lease that ended this long ago is forgotten; its epoch is not needed, epochs rise over all."""


def claim(connection: sqlite3.Connection, wanted: Claim) -> Leases:
    """Take what is free and renew what is held, in one transaction of the caller's."""
    connection.execute("DELETE FROM gate_lease WHERE until_ms < ?", (wanted.now_ms - KEPT_MS,))
    return Leases(tuple(_claim_one(connection, wanted, scope) for scope in wanted.scopes))


def lost(
    connection: sqlite3.Connection, holder: str, start: str, scopes: Iterable[Scope]
) -> set[Scope]:
    """Which scopes this start of a holder does not hold, whatever it believes."""
    found = set()
    for scope in scopes:
        row = connection.execute(
            "SELECT holder, start FROM gate_lease WHERE scope_level = ? AND scope = ?", scope
        ).fetchone()
        if row != (holder, start):
            found.add(scope)
    return found


def _claim_one(connection: sqlite3.Connection, wanted: Claim, scope: Scope) -> Lease:
    row = connection.execute(
        "SELECT holder, start, epoch, until_ms FROM gate_lease WHERE scope_level = ? AND scope = ?",
        scope,
    ).fetchone()
    if row is not None:
        holder, start, epoch, until_ms = row
        if holder != wanted.holder and until_ms > wanted.now_ms:
            return Lease(scope, None, until_ms)
    if row is None or (holder, start) != (wanted.holder, wanted.start):
        epoch = _next_epoch(connection, wanted.now_ms)
    connection.execute(
        "INSERT INTO gate_lease (scope_level, scope, holder, start, epoch, until_ms)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (scope_level, scope) DO UPDATE SET"
        " holder = excluded.holder, start = excluded.start, epoch = excluded.epoch,"
        " until_ms = excluded.until_ms",
        (*scope, wanted.holder, wanted.start, epoch, wanted.until_ms),
    )
    return Lease(scope, epoch, wanted.until_ms)


def _next_epoch(connection: sqlite3.Connection, now_ms: int) -> int:
    """Return one above all before; the time in seconds at least, lest a lost store lower it."""
    row = connection.execute("SELECT epoch FROM gate_epoch WHERE one = 1").fetchone()
    epoch = max(now_ms // 1000, row[0] + 1 if row is not None else 0)
    connection.execute(
        "INSERT INTO gate_epoch (one, epoch) VALUES (1, ?)"
        " ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch",
        (epoch,),
    )
    return epoch
