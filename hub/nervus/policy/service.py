"""The command service: policy and reliable over one store, so that they share transactions."""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Never

from nervus.bus import (
    KEPT,
    Context,
    Journal,
    Machine,
    Session,
    Shell,
    first_failure,
    origin,
    plane_settings,
    recording,
    subscriptions,
)
from nervus.errors import NervusError
from nervus.policy import announcements, audit
from nervus.policy.core import RegimeChanged, Unannounced
from nervus.policy.machine import (
    EVENTS,
    HANDED,
    IDENTITY,
    RELIABLE,
    SERVICE,
    TAKES,
    CommandSettings,
    build,
)
from nervus.policy.raw import OpenRaw
from nervus.policy.record import Announce, AppendAudit
from nervus.policy.rules import TEMPLATE, PolicyFileError, Regime, load
from nervus.policy.settings import PolicySettings
from nervus.reliable import Committed, ReliableService, ReliableSettings, schema
from nervus.store import Store
from nervus.wire import Publish, topics

STORE_SCHEMA: Final = (schema.SCHEMA + audit.SCHEMA, announcements.SCHEMA + KEPT)
WATCH_S: Final = 1.0
"""How often the policy file is looked at."""

_LOG: Final = logging.getLogger(__name__)


async def run(context: Context) -> None:
    """Run policy and reliable until cancelled; the first failure ends both.

    Ending is the answer to every failure of the store: the next start takes up what is durable.
    """
    settings = CommandSettings(
        policy=plane_settings(context, "policy", PolicySettings),
        reliable=plane_settings(context, "reliable", ReliableSettings),
    )
    granted: dict[str, str] = {}
    store = Store(context.data / "command.db", STORE_SCHEMA)
    try:
        with recording(context, SERVICE, settings, EVENTS, handed=HANDED) as journal:
            told = granted.get if journal is None else journal.granted(granted.get)
            machine = build(settings, origin(context), told)
            await CommandService(context, machine, granted, store, journal).run()
    finally:
        await store.close()


class CommandService:
    """The two cores, their shells, and the store between them.

    Args:
        context: Settings, addresses, folders.
        machine: Both planes' pure part.
        granted: What boards are granted, as the machine's guard is told.
        store: What both share.
        journal: Records what both take, in one order.
    """

    def __init__(
        self,
        context: Context,
        machine: Machine,
        granted: dict[str, str],
        store: Store,
        journal: Journal | None,
    ) -> None:
        self._context = context
        self._store = store
        above, below = machine.members[IDENTITY], machine.members[RELIABLE]
        self._reliable = ReliableService(
            context, below, granted, store, journal and journal.member(RELIABLE)
        )
        address = context.session_config(IDENTITY, "core")
        self._shell = Shell(
            above.core,
            [Session(IDENTITY, "core", address, filters=subscriptions(TAKES))],
            above.guard,
            above.lane,
            commit=self._commit,
            confirmed=self._confirmed,
            journal=journal and journal.member(IDENTITY),
            store=store,
        )
        self._announced: asyncio.Queue[str] = asyncio.Queue()
        self._opened: asyncio.Queue[OpenRaw] = asyncio.Queue()
        self._serving = 0
        self._seen: tuple[Regime | None, str] | None = None

    async def run(self) -> Never:
        """Restore, then run until cancelled."""
        await asyncio.to_thread(_ensure_policy, self._context.policy_file)
        now_ms = time.time_ns() // 1_000_000
        await self._reliable.prepare()
        for event in await self._changes():
            self._shell.begin(event)
        await self._take_up(now_ms)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(
                    self._shell.run(self._ready, self._context.trouble), name="policy"
                )
                tasks.create_task(self._reliable.run(self._ready), name="reliable")
                tasks.create_task(self._watch(), name="policy file")
                tasks.create_task(self._forget(), name="announced commands")
                tasks.create_task(self._open_raw(), name="raw opt-ins")
        except BaseExceptionGroup as group:
            raise first_failure(group) from group
        raise AssertionError("a service ends by cancellation or by an error")

    def _ready(self) -> None:
        self._serving += 1
        if self._serving == 2:  # noqa: PLR2004 - policy and reliable
            self._context.ready()

    async def _commit(self, effects: Sequence[Any]) -> None:
        """Decision, audit and acceptance in one transaction; then reliable may publish."""
        records = [effect.record for effect in effects if isinstance(effect, AppendAudit)]
        handed = [effect for effect in effects if isinstance(effect, Committed)]
        announced = [effect for effect in effects if isinstance(effect, Announce)]
        opened = [effect for effect in effects if isinstance(effect, OpenRaw)]
        others = AppendAudit | Committed | Announce | OpenRaw
        actions = [effect for effect in effects if not isinstance(effect, others)]

        def write(connection: Any) -> None:
            audit.append(connection, records)
            schema.write(connection, actions)
            announcements.append(connection, announced)

        await self._store.write(write)
        for one in opened:
            # Durable is what matters; brokers may take seconds, for which no command waits.
            self._opened.put_nowait(one)
        for event in handed:
            await self._reliable.shell.offer(event)

    async def _take_up(self, now_ms: int) -> None:
        """Publish what a killed process had decided and may not have told observers."""
        waiting = await self._store.read(lambda connection: announcements.left(connection, now_ms))
        gone = await self._store.write(
            lambda connection: announcements.clear_others(connection, waiting)
        )
        if gone:
            _LOG.warning("%d commands expired before observers were told; the audit has them", gone)
        if waiting:
            await self._shell.offer(Unannounced.of(waiting))

    def _confirmed(self, publish: Publish) -> None:
        # Bounded by the session's unconfirmed messages and the time of one commit.
        if publish.address.spec is topics.COMMAND:
            self._announced.put_nowait(publish.message.meta.message_id)

    async def _forget(self) -> Never:
        while True:
            told = [await self._announced.get()]
            while not self._announced.empty():
                told.append(self._announced.get_nowait())
            await self._store.write(lambda connection: announcements.forget(connection, told))  # noqa: B023 - awaited within the turn

    async def _open_raw(self) -> Never:
        while True:
            one = await self._opened.get()  # one for each policy file, and for each end
            try:
                await self._context.open_raw(one.grants)
            except NervusError as error:
                # Thalamus goes by the list, which is written, and by each opt-in's own end.
                _LOG.error("opt-ins of raw: %s", error)

    async def _watch(self) -> Never:
        while True:
            await asyncio.sleep(WATCH_S)
            for event in await self._changes():
                await self._shell.offer(event)

    async def _changes(self) -> list[RegimeChanged]:
        """Read the policy file; while it is missing or wrong nothing is allowed."""
        regime, problem = None, ""
        try:
            regime = await asyncio.to_thread(load, self._context.policy_file)
        except PolicyFileError as error:
            problem = str(error)
        if (regime, problem) == self._seen:
            return []
        self._seen = regime, problem
        self._context.trouble(IDENTITY, problem or None)
        if problem:
            _LOG.error("%s", problem)
        else:
            _LOG.info("%s is in force", self._context.policy_file)
        return [RegimeChanged(regime)]


def _ensure_policy(path: Path) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        return
