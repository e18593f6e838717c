"""What a part was told and has to know again after a restart, for as long as it holds."""

import logging
import sqlite3
from collections.abc import Callable
from typing import ClassVar, Final

from nervus.store import Store
from nervus.wire import Accepted, Packet

SCHEMA: Final = """
CREATE TABLE bus_memory (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    part TEXT NOT NULL,
    key TEXT NOT NULL,
    broker TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    UNIQUE (part, key)
);
"""
"""Version 1 of the table: the newest message of each key."""

KeyOf = Callable[[Accepted], str | None]
"""Says what a message replaces when it comes, as the same key; None for one not to be kept."""

_LOG: Final = logging.getLogger(__name__)
_REPLACE: Final = (
    "INSERT OR REPLACE INTO bus_memory (part, key, broker, topic, payload, expires_ms)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_SELECT: Final = (
    "SELECT key, broker, topic, payload, expires_ms FROM bus_memory"
    " WHERE part = ? AND expires_ms > ? ORDER BY number"
)
_DELETE: Final = "DELETE FROM bus_memory WHERE part = ? AND expires_ms <= ?"


class Memory:
    """Events of one part that still hold; one is acknowledged once it is here.

    A shell that has one steps its core with them before it connects, in the order they came, as
    the packets they were: the guard judges each again.

    Args:
        store: Its schema includes `SCHEMA`.
        part: Whose; parts that do the same work may share what they were told.
        key_of: What to keep, under which key. What never expires is not kept.
    """

    limit: ClassVar[int] = 16_384
    """Messages; what comes beyond is not kept, and counted in `missed`."""

    def __init__(self, store: Store, part: str, key_of: KeyOf) -> None:
        self.missed = 0
        self._store = store
        self._part = part
        self._key_of = key_of
        self._ends: dict[str, int] = {}

    def key(self, event: Accepted, now_ms: int) -> str | None:
        """Under which key a message is to be kept; None when it is not."""
        key = self._key_of(event)
        if key is None or event.left_ms is None:
            return None
        if key not in self._ends and len(self._ends) >= self.limit:
            self._ends = {one: end_ms for one, end_ms in self._ends.items() if end_ms > now_ms}
            if len(self._ends) >= self.limit:
                self.missed += 1
                _LOG.error("%s: not kept for after a restart, too many", event.address.topic)
                return None
        self._ends[key] = now_ms + event.left_ms
        return key

    async def keep(self, key: str, packet: Packet, now_ms: int) -> None:
        """Make a message durable in the place of the former one of its key.

        Raises:
            StoreError: It is not kept.
        """
        row = (self._part, key, packet.broker, packet.topic, packet.payload, self._ends[key])

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(_DELETE, (self._part, now_ms))
            connection.execute(_REPLACE, row)

        await self._store.write(write)

    async def load(self, now_ms: int) -> list[Packet]:
        """Return what still holds, the oldest first."""
        rows = await self._store.read(
            lambda connection: connection.execute(_SELECT, (self._part, now_ms)).fetchall()
        )
        self._ends = {key: end_ms for key, *_, end_ms in rows}
        return [Packet(broker, topic, payload) for _, broker, topic, payload, _ in rows]
