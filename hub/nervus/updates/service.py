"""The updates plane's I/O: boards on the spinal broker, orders in a folder, data/updates.db."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final, Never

from nervus.bus import KEPT, Context, Session, Shell, first_failure, plane_settings, subscriptions
from nervus.errors import NervusError
from nervus.store import Store
from nervus.updates import schema
from nervus.updates.core import Updates
from nervus.updates.events import Ordered, Withdrawn
from nervus.updates.orders import Orders
from nervus.updates.pack import Pack
from nervus.updates.reader import DATABASE
from nervus.updates.record import Durable, Stored, open_ids
from nervus.updates.settings import UpdatesSettings
from nervus.wire import Guard, Mint, Publish, Rejected, RejectLane, topics

IDENTITY: Final = "updater"
STORE_SCHEMA: Final = (schema.SCHEMA + KEPT,)
TAKES: Final = (
    topics.CHUNK_REQUEST,
    topics.UPDATE_REPORT,
    topics.DEVICE_STATUS,
    topics.DEVICE_INFO,
)
WATCH_S: Final = 0.5
"""How often the folder of orders is looked at."""

_LOG: Final = logging.getLogger(__name__)


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it. The next start goes on where it was."""
    store = Store(context.data / DATABASE, STORE_SCHEMA)
    try:
        await UpdatesService(context, store).run()
    finally:
        await store.close()


class UpdatesService:
    """The core, its shell, and the folder that it is told by."""

    def __init__(self, context: Context, store: Store) -> None:
        self._context = context
        self._store = store
        self._orders = Orders.of(context.data)
        self._wrong: frozenset[str] = frozenset()
        # It stands beside reliable, which takes commands to the same boards.
        mint = Mint(IDENTITY, "reliable", seed=context.seed, boot=context.boot)
        self._core = Updates(plane_settings(context, "updates", UpdatesSettings), mint)
        sessions = [
            Session(
                IDENTITY,
                "spinal",
                context.session_config(IDENTITY, "spinal"),
                filters=subscriptions(TAKES),
            ),
            Session(IDENTITY, "core", context.session_config(IDENTITY, "core")),
        ]
        self._shell = Shell(
            self._core,
            sessions,
            Guard(TAKES),
            RejectLane(mint, context.house),
            commit=self._commit,
            store=store,
        )

    async def run(self) -> Never:
        """Restore, then run until cancelled."""
        await self._restore(time.time_ns() // 1_000_000)
        try:
            async with asyncio.TaskGroup() as tasks:
                context = self._context
                tasks.create_task(self._shell.run(context.ready, context.trouble), name="updates")
                tasks.create_task(self._watch(), name="orders")
        except BaseExceptionGroup as group:
            raise first_failure(group) from group
        raise AssertionError("a service ends by cancellation or by an error")

    async def _restore(self, now_ms: int) -> None:
        stored = await self._store.read(schema.read)
        packs = await asyncio.to_thread(self._packs, stored)
        effects = self._core.restore(stored, packs, now_ms)
        await self._commit([e for e in effects if not isinstance(e, Publish | Rejected)])

    def _packs(self, stored: Stored) -> dict[str, Pack]:
        """The packs that boards still need and that are as they were."""
        digests = {rollout.update_id: rollout.digest for rollout in stored.rollouts}
        packs = {}
        for update_id in sorted(open_ids(stored)):
            try:
                pack = self._orders.read_pack(update_id)
            except NervusError as error:
                _LOG.error("roll-out %s stops: %s", update_id, error)
                continue
            if pack.digest == digests[update_id]:
                packs[update_id] = pack
            else:
                _LOG.error("roll-out %s stops: its pack is another one now", update_id)
        return packs

    async def _commit(self, effects: Sequence[Durable]) -> None:
        await self._store.write(lambda connection: schema.write(connection, effects))

    async def _watch(self) -> Never:
        while True:
            known, needed = self._core.known, self._core.needed
            for event in await asyncio.to_thread(self._changes, known, needed):
                await self._shell.offer(event)
            # By the store, not by the core: what a crash could bring back needs its pack.
            ended = await self._store.read(schema.ended)
            await asyncio.to_thread(self._orders.tidy, ended)
            await asyncio.sleep(WATCH_S)

    def _changes(self, known: frozenset[str], needed: frozenset[str]) -> list[Ordered | Withdrawn]:
        """What is new in the folder since the last look."""
        there = self._orders.ids()
        events: list[Ordered | Withdrawn] = [
            Withdrawn(each, self._orders.withdrawn_by(each)) for each in sorted(needed - there)
        ]
        wrong = set()
        for update_id in sorted(there - known):
            try:
                events.append(Ordered(*self._orders.read(update_id)))
            except NervusError as error:
                wrong.add(update_id)
                if update_id not in self._wrong:
                    _LOG.error("order not taken: %s", error)
        self._wrong = frozenset(wrong)
        return events
