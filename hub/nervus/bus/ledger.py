"""The retained ledger: which states a part has on its brokers, so that none is left behind."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Literal, Never, Self

from nervus.bus.errors import PublishError
from nervus.store import Store
from nervus.wire import Publish
from nervus.wire.times import NEVER
from nervus.wire.topic_parser import parse

SCHEMA: Final = """
CREATE TABLE bus_retained (
    part TEXT NOT NULL,
    broker TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    priority TEXT NOT NULL,
    expires_ms INTEGER,
    PRIMARY KEY (part, broker, topic)
);
"""
"""Version 1 of the table: one row for each topic that a part retains on a broker."""

LOOK_MS: Final = 1_000
"""How often the ledger is looked at for states that have expired."""

Broker = Literal["spinal", "core"]
Key = tuple[Broker, str]


@dataclass(frozen=True, slots=True)
class Retained:
    """One state on one broker; an empty payload erases it. `expires_ms` is unix milliseconds."""

    broker: Broker
    topic: str
    payload: bytes
    priority: str = "normal"
    expires_ms: int | None = None

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return self.broker, self.topic

    @classmethod
    def of(cls, publish: Publish, expires_ms: int | None) -> Self:
        """The state that a message retains."""
        return cls(
            "core" if publish.on == "core" else "spinal",
            publish.address.topic,
            publish.data,
            publish.priority,
            expires_ms,
        )

    def is_gone(self, now_ms: int) -> bool:
        """Whether nobody may find it any more: expired, or no longer a state of topics.json."""
        if self.expires_ms is not None and self.expires_ms <= now_ms:
            return True
        address = parse(self.topic)
        return (
            address is None or not address.spec.retained or self.broker not in address.spec.brokers
        )


Post = Callable[[Retained, Callable[[PublishError | None], None]], None]


@dataclass(frozen=True, slots=True)
class Ownership:
    """Of states that one of several parts may retain at a time, as whoever holds a lease.

    Args:
        group: Whose states they are together; what one leaves behind the next takes up.
        owns: Whether the state of a topic is ours now, as far as we know.
        lost: Which of these topics are another's; asked within the transaction that would write
            them, so that a part that stood still for too long writes nothing.
    """

    group: str
    owns: Callable[[str], bool]
    lost: Callable[[sqlite3.Connection, Collection[str]], Collection[str]]


class Ledger:
    """What one part retains, in its own store, written before it is published.

    A broker may lose what it retained, and a part may die before its state expires: from the
    ledger each connection publishes what is alive, and erases what expired or what this version
    of topics.json has no place for.

    Args:
        store: Its schema includes `SCHEMA`.
        part: Whose states; several parts may share a store.
        post: Retains or erases one state at its broker and tells how it went.
        clock: Unix milliseconds.
        ownership: Which states are ours, where several parts take turns; without it all are.
    """

    limit: ClassVar[int] = 16_384
    """Topics; a state beyond them is refused, for nobody could erase it."""

    def __init__(
        self,
        store: Store,
        part: str,
        post: Post,
        clock: Callable[[], int],
        ownership: Ownership | None = None,
    ) -> None:
        self._store = store
        self._ownership = ownership or Ownership(part, lambda _: True, lambda *_: ())
        self._part = self._ownership.group
        self._post = post
        self._clock = clock
        self._rows: dict[Key, Retained] = {}
        self._erasing: set[Key] = set()
        self._erased: asyncio.Queue[Key] = asyncio.Queue()
        self._look_due_ms = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def due_ms(self) -> int:
        """When it is looked at next, unix milliseconds."""
        return self._look_due_ms if self._rows else NEVER

    async def load(self) -> None:
        """Take up what an earlier process recorded."""
        for row in await self._store.read(self._read):
            self._rows[row.key] = row

    def admits(self, state: Retained) -> bool:
        """Whether there is room to record this state."""
        return state.key in self._rows or len(self._rows) < self.limit

    def adopt(self, rows: Sequence[Retained]) -> None:
        """Take over what another of the group left behind."""
        self._rows |= {row.key: row for row in rows}

    async def record(self, states: Sequence[Retained]) -> Collection[str]:
        """Make states durable; only then may they be published.

        Returns:
            Topics of those that are another's by now: not recorded, and not to be published.

        Raises:
            StoreError: They are not recorded.
        """
        topics = {each.topic for each in states}

        def write(connection: sqlite3.Connection) -> Collection[str]:
            lost = self._ownership.lost(connection, topics)
            connection.executemany(_UPSERT, [row for row in rows if row[2] not in lost])
            return lost

        rows = [
            (self._part, each.broker, each.topic, each.payload, each.priority, each.expires_ms)
            for each in states
        ]
        lost = await self._store.write(write)
        self._rows |= {each.key: each for each in states if each.topic not in lost}
        return lost

    def connected(self, broker: Broker, now_ms: int) -> None:
        """Publish on a broker just connected to what is alive, and erase the rest."""
        for row in [row for row in self._rows.values() if row.broker == broker]:
            if not self._ownership.owns(row.topic):
                continue
            if row.is_gone(now_ms):
                self._erase(row)
            else:
                self._post(row, lambda _: None)

    def tick(self, now_ms: int) -> None:
        """Erase what has expired, once a second."""
        if now_ms < self._look_due_ms:
            return
        self._look_due_ms = now_ms + LOOK_MS
        for row in list(self._rows.values()):
            if row.expires_ms is None or row.expires_ms > now_ms:
                continue
            if self._ownership.owns(row.topic):
                self._erase(row)
            else:
                # The broker lets it go by itself; whoever owns the topic may have another there.
                self._erased.put_nowait(row.key)

    async def run(self) -> Never:
        """Forget, until cancelled, what brokers have confirmed to be erased."""
        while True:
            row = self._rows.get(await self._erased.get())
            if row is None or not row.is_gone(self._clock()):
                continue  # a new state took its place
            del self._rows[row.key]
            # A new state may be on its way to the disk: only the row that was erased may go.
            values = (self._part, row.broker, row.topic, row.payload)
            await self._store.write(lambda connection: connection.execute(_DELETE, values) and None)  # noqa: B023 - awaited within the turn

    def _erase(self, row: Retained) -> None:
        if row.key not in self._erasing:
            self._erasing.add(row.key)
            erasure = Retained(row.broker, row.topic, b"", row.priority)
            self._post(erasure, partial(self._settle, row.key))

    def _settle(self, key: Key, error: PublishError | None) -> None:
        # One that failed is due again at the next look.
        self._erasing.discard(key)
        if error is None:
            self._erased.put_nowait(key)

    def _read(self, connection: sqlite3.Connection) -> list[Retained]:
        return recorded(connection, self._part)


def recorded(connection: sqlite3.Connection, group: str) -> list[Retained]:
    """Return what a part, or a group of them, has recorded."""
    return [Retained(*row) for row in connection.execute(_SELECT, (group,))]


_UPSERT: Final = (
    "INSERT INTO bus_retained (part, broker, topic, payload, priority, expires_ms)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (part, broker, topic) DO UPDATE SET"
    " payload = excluded.payload, priority = excluded.priority, expires_ms = excluded.expires_ms"
)
_SELECT: Final = (
    "SELECT broker, topic, payload, priority, expires_ms FROM bus_retained WHERE part = ?"
)
_DELETE: Final = (
    "DELETE FROM bus_retained WHERE part = ? AND broker = ? AND topic = ? AND payload = ?"
)
