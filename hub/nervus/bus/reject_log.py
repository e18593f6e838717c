"""Rejects of one part: durable in its own store before reflect is told, whatever happens to it."""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Literal, Never

from nervus.bus.errors import PublishError, UnheardError
from nervus.store import Store, StoreError
from nervus.wire import Publish, encode, timestamp
from nervus.wire.contracts import RejectEvent
from nervus.wire.mint import expiry_ms
from nervus.wire.topic_parser import parse

SCHEMA: Final = """
CREATE TABLE bus_rejects (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    part TEXT NOT NULL,
    broker TEXT NOT NULL,
    topic TEXT NOT NULL,
    message BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX bus_rejects_unsent ON bus_rejects (part, number) WHERE NOT sent;
"""
"""Version 1 of the table; a row is a RejectEvent, folded before it came here."""

Done = Callable[[PublishError | None], None]
Post = Callable[[Publish, Done], None]

_FLUSH_S: Final = 1.0
_AGAIN_S: Final = 5.0
"""How often it is tried whether somebody listens where nobody did."""

_LOG: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class RejectLogCounters:
    """RejectEvents since the start.

    `dropped` were never told to reflect: no room to wait, or the oldest unsent rows beyond the
    limits. `unstored` were told, but the store could not take them.
    """

    stored: int = 0
    sent: int = 0
    dropped: int = 0
    unstored: int = 0


class RejectLog:
    """Writes behind: `add` never waits, one task groups what came into one commit, then sends it.

    Sent is what the broker took at QoS 1 and has somebody to give to. Rows stay after that, as this
    part's own quarantine; the oldest of those go first.

    Args:
        store: Its schema includes `SCHEMA`.
        part: Whose rejects; several parts may share a store.
        post: Sends one message, so that reflect gets it or it is an error, and tells how it went.
        clock: Unix milliseconds.
    """

    waiting_limit: ClassVar[int] = 1_024
    """RejectEvents not yet stored; they were folded before, see `RejectLane`."""

    row_limit: ClassVar[int] = 4_096
    byte_limit: ClassVar[int] = 4_194_304

    def __init__(self, store: Store, part: str, post: Post, clock: Callable[[], int]) -> None:
        self.counters = RejectLogCounters()
        self._store = store
        self._part = part
        self._post = post
        self._clock = clock
        self._waiting: deque[Publish] = deque()
        self._sent: list[int] = []
        self._under_way: set[int] = set()
        self._connected: set[str] = set()
        self._unheard: set[str] = set()
        self._again_at = 0.0
        self._wake = asyncio.Event()
        self._rows = 0
        self._bytes = 0
        self._failing = False

    def add(self, publish: Publish) -> None:
        """Take one RejectEvent; beyond `waiting_limit` it is dropped and counted."""
        if len(self._waiting) >= self.waiting_limit:
            self.counters.dropped += 1
            return
        self._waiting.append(publish)
        self._wake.set()

    def connected(self, broker: Literal["spinal", "core"]) -> None:
        """A broker is there again: what was not sent goes out."""
        self._connected.add(broker)
        self._wake.set()

    async def load(self) -> None:
        """Take up what an earlier process stored; it is sent once its broker is there."""
        sql = "SELECT COUNT(*), COALESCE(SUM(LENGTH(message)), 0) FROM bus_rejects WHERE part = ?"
        self._rows, self._bytes = await self._store.read(
            lambda connection: connection.execute(sql, (self._part,)).fetchone()
        )

    async def run(self) -> Never:
        """Store and send until cancelled."""
        while True:
            under_way = self._under_way or self._sent or self._unheard
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S if under_way else None):
                    await self._wake.wait()
            self._wake.clear()
            await self._store_waiting()
            await self._send_again()

    async def _store_waiting(self) -> None:
        batch, told = list(self._waiting), list(self._sent)
        if not batch and not told:
            return
        self._waiting.clear()
        rows = [(self._part, each.on, each.address.topic, encode(each.message)) for each in batch]
        self._rows += len(rows)
        self._bytes += sum(len(row[3]) for row in rows)
        full = self._rows > self.row_limit or self._bytes > self.byte_limit
        try:
            numbers, left = await self._store.write(partial(self._write, rows, told, trim=full))
        except (StoreError, sqlite3.Error) as error:
            # What was refused is content: it never stops the part. It is told, though not durably.
            if not self._failing:
                _LOG.error("%s: rejects are told without being stored: %s", self._part, error)
            self._failing = True
            self.counters.unstored += len(batch)
            for publish in batch:
                self._post(publish, lambda _: None)
            return
        self._failing = False
        self.counters.stored += len(batch)
        del self._sent[: len(told)]
        if left is not None:
            self._rows, self._bytes, dropped = left
            self.counters.dropped += dropped
        for number, publish in zip(numbers, batch, strict=True):
            self._send(number, publish)

    async def _send_again(self) -> None:
        brokers, self._connected = self._connected, set()
        # Where nobody listened one is enough to find out whether somebody does.
        ask = self._unheard - brokers if time.monotonic() >= self._again_at else set()
        if not brokers and not ask:
            return
        for number, broker, topic, text in await self._store.read(self._unsent):
            address = parse(topic)
            busy = number in self._under_way or number in self._sent
            if busy or broker not in brokers | ask or address is None:
                continue
            ask.discard(broker)
            message = RejectEvent.model_validate_json(text)
            # Its life counts from now on, or no guard would take it; observed_at says when it was.
            now_ms = self._clock()
            fresh = {"produced_at": timestamp(now_ms), "historical": True}
            meta = message.meta.model_copy(update=fresh)
            message = message.model_copy(update={"meta": meta})
            self._send(number, Publish(address, message, expiry_ms(meta, now_ms), broker))

    def _send(self, number: int, publish: Publish) -> None:
        self._under_way.add(number)
        self._post(publish, partial(self._done, number, publish.on))

    def _done(self, number: int, broker: str, error: PublishError | None) -> None:
        self._under_way.discard(number)
        if error is None:
            self.counters.sent += 1
            self._sent.append(number)
            if broker in self._unheard:
                self._unheard.discard(broker)
                self._connected.add(broker)
                self._wake.set()
        elif isinstance(error, UnheardError):
            self._again_at = time.monotonic() + _AGAIN_S
            self._unheard.add(broker)

    def _unsent(self, connection: sqlite3.Connection) -> list[tuple[int, str, str, bytes]]:
        sql = (
            "SELECT number, broker, topic, message FROM bus_rejects"
            " WHERE part = ? AND NOT sent ORDER BY number"
        )
        return connection.execute(sql, (self._part,)).fetchall()

    def _write(
        self,
        rows: Sequence[tuple[str, str, str, bytes]],
        told: Sequence[int],
        connection: sqlite3.Connection,
        *,
        trim: bool,
    ) -> tuple[list[int], tuple[int, int, int] | None]:
        insert = "INSERT INTO bus_rejects (part, broker, topic, message) VALUES (?, ?, ?, ?)"
        numbers = [connection.execute(insert, row).lastrowid or 0 for row in rows]
        connection.executemany(
            "UPDATE bus_rejects SET sent = 1 WHERE number = ?", [(number,) for number in told]
        )
        return numbers, self._trim(connection) if trim else None

    def _trim(self, connection: sqlite3.Connection) -> tuple[int, int, int]:
        """Delete down to nine tenths of the limits: the oldest sent rows, then the oldest unsent.

        Returns:
            Rows and bytes left, and how many unsent rows were deleted.
        """
        found = connection.execute(
            "SELECT number, LENGTH(message), sent FROM bus_rejects WHERE part = ?"
            " ORDER BY sent DESC, number",
            (self._part,),
        ).fetchall()
        rows, size = len(found), sum(length for _, length, _ in found)
        gone = []
        for number, length, sent in found:
            if rows <= self.row_limit * 9 // 10 and size <= self.byte_limit * 9 // 10:
                break
            rows, size = rows - 1, size - length
            gone.append((number, sent))
        connection.executemany(
            "DELETE FROM bus_rejects WHERE number = ?", [(number,) for number, _ in gone]
        )
        return rows, size, sum(not sent for _, sent in gone)
