"""A part that retains and rejects as it is told, over its real store and a real broker."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from hub.plain_broker import DEADLINE_S, PlainBroker
from nervus.bus import KEPT, Core, Filter, Limits, Session, Shell, subscriptions
from nervus.store import Store
from nervus.wire import Accepted, Guard, Mint, Packet, Publish, RejectLane, timestamp, topics
from nervus.wire.contracts import GlobalBroadcast, GlobalBroadcastPayload

BAD = "/bs/relay/event/room/{}/channel/somatic"
NOW_MS = 1_790_000_000_000
QUICK = Limits(backoff_base_ms=20, backoff_cap_ms=100)
_ids = Mint("part", "brainstem", seed=5, boot=1)


class Obedient:
    """A core that publishes whatever it is offered."""

    due_ms = 0

    def step(self, event: Any, _: int) -> Sequence[Any]:
        return [event] if isinstance(event, Publish) else ()

    def tick(self, _: int) -> Sequence[Any]:
        return ()


class Part:
    """One life of a part; `now_ms` is its clock."""

    def __init__(
        self, broker: PlainBroker, store: Store, now_ms: int = NOW_MS, name: str = "part",
        core: Core | None = None, **kept: Any,
    ) -> None:  # fmt: skip
        self.now_ms = now_ms
        self.session = Session(
            name, "core", broker.address, limits=QUICK, clock=lambda: self.now_ms,
            filters=subscriptions([topics.RELAY_BUNDLE]),
        )  # fmt: skip
        mint = Mint("part", "brainstem", seed=now_ms, boot=1)
        self.shell = Shell(
            core or Obedient(), [self.session], Guard([topics.RELAY_BUNDLE]),
            RejectLane(mint, "home"), store=store, clock=lambda: self.now_ms, **kept,
        )  # fmt: skip

    @property
    def rejects(self) -> Any:
        assert self.shell.reject_log is not None
        return self.shell.reject_log.counters


@asynccontextmanager
async def living(
    broker: PlainBroker, folder: Path, now_ms: int = NOW_MS, *, connected: bool = True
) -> AsyncIterator[Part]:
    """Run a part over the store in `folder` until the block ends."""
    async with (
        Store(folder / "part.db", (KEPT,)) as store,
        serving(Part(broker, store, now_ms), connected=connected) as part,
    ):
        yield part


@asynccontextmanager
async def serving(part: Part, *, connected: bool = True) -> AsyncIterator[Part]:
    """Run a part until the block ends."""
    task = asyncio.create_task(part.shell.run())
    try:
        if connected:
            async with asyncio.timeout(DEADLINE_S):
                await part.session.wait_connected()
        yield part
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task


def alert(room: str, *, state: str = "high_alert", life_ms: int = 60_000) -> Publish:
    """A state that the part retains."""
    return _ids.full(
        GlobalBroadcast,
        topics.global_alert("room", room),
        GlobalBroadcastPayload(state=state, level=1.0),
        NOW_MS,
        expires_at=timestamp(NOW_MS + life_ms),
    )


class Watcher:
    """Sees everything that passes or is retained."""

    def __init__(self, broker: PlainBroker, name: str = "watcher") -> None:
        self.packets: list[Packet] = []
        self.session = Session(
            name, "core", broker.address, on_packet=self._see, limits=QUICK,
            filters=[Filter("/bs/#", 1), Filter("/X/#", 1)],
        )  # fmt: skip

    def payloads(self, topic: str) -> list[bytes]:
        return [packet.payload for packet in self.packets if packet.topic == topic]

    async def _see(self, packet: Packet) -> None:
        self.packets.append(packet)


def rows(folder: Path, statement: str) -> list[Any]:
    """What another process reads in the part's store."""
    with closing(sqlite3.connect(folder / "part.db")) as connection:
        return connection.execute(statement).fetchall()


def bad(source: str) -> bytes:
    """A message that no guard takes, of a source of its own, so that it is not folded."""
    return json.dumps({"meta": {"source": source}, "filler": "x" * 300}).encode()


def rejected(part: Part, room: str = "hall") -> None:
    """Give the part's lane one reject without any broker; another room is another source."""
    packet = Packet("core", BAD.format(room), bad(room))
    verdict = Guard([topics.RELAY_BUNDLE]).judge(packet, part.now_ms)
    assert not isinstance(verdict, Accepted)
    part.shell._reject(verdict, part.now_ms)
