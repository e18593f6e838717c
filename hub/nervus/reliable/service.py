"""The reliable plane's part of the command service: its shell, and what it watches."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Never

from nervus.bus import DURABLE, Context, Machine, Recorder, Session, Shell, subscriptions
from nervus.reliable import schema
from nervus.reliable.core import Desired, Grants, Published, Restored
from nervus.reliable.effects import Durable
from nervus.reliable.machine import IDENTITY, TAKES
from nervus.reliable.reflex_files import load
from nervus.store import Store
from nervus.wire import Publish, topics

WATCH_S: Final = 1.0
"""How often grants and rule files are looked at."""

_LOG: Final = logging.getLogger(__name__)


class ReliableService:
    """Runs the reliable core over the store it is given.

    Args:
        context: Settings, addresses, grants.
        machine: Core, guard and lane; policy accepts into the core.
        granted: What the guard is told of boards; kept up to date here.
        store: Holds the actions; `schema.SCHEMA` and `bus.KEPT` are part of its schema.
        journal: Records what the machine takes.
    """

    def __init__(
        self,
        context: Context,
        machine: Machine,
        granted: dict[str, str],
        store: Store,
        journal: Recorder | None,
    ) -> None:
        self._context = context
        self._store = store
        self._reflexes = context.policy_file.parent / "reflexes"
        self._granted = granted
        self._desired = Desired({})
        self._problems: tuple[str, ...] = ()
        self._confirmations: asyncio.Queue[Published] = asyncio.Queue()
        sessions = [
            Session(
                IDENTITY,
                "spinal",
                context.session_config(IDENTITY, "spinal"),
                filters=subscriptions(TAKES),
                limits=DURABLE,
            ),
            Session(IDENTITY, "core", context.session_config(IDENTITY, "core")),
        ]
        self.shell = Shell(
            machine.core,
            sessions,
            machine.guard,
            machine.lane,
            commit=self._commit,
            confirmed=self._confirmed,
            journal=journal,
            store=store,
        )

    async def prepare(self) -> None:
        """Take up what is stored and on disk, before the first message comes."""
        self.shell.begin(Restored.of(await self._store.read(schema.read)))
        for event in await self._changes():
            self.shell.begin(event)

    async def run(self, on_ready: Callable[[], None]) -> Never:
        """Run until cancelled; grants and rule files are looked at again and again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.shell.run(on_ready, self._context.trouble), name="reliable")
            tasks.create_task(self._watch(), name="grants and reflexes")
            tasks.create_task(self._pass_on(), name="confirmations")
        raise AssertionError("a service ends by cancellation or by an error")

    async def _commit(self, effects: Sequence[Durable]) -> None:
        await self._store.write(lambda connection: schema.write(connection, effects))

    def _confirmed(self, publish: Publish) -> None:
        # Bounded by the actions the core holds open, each with one outcome.
        if publish.address.spec is topics.OUTCOME:
            self._confirmations.put_nowait(Published(publish.message.meta.message_id))

    async def _pass_on(self) -> Never:
        while True:
            await self.shell.offer(await self._confirmations.get())

    async def _watch(self) -> Never:
        while True:
            await asyncio.sleep(WATCH_S)
            for event in await self._changes():
                await self.shell.offer(event)

    async def _changes(self) -> list[Grants | Desired]:
        """What is new on disk since the last look."""
        events: list[Grants | Desired] = []
        granted = dict(await asyncio.to_thread(self._context.grants))
        if granted != self._granted:
            self._granted.clear()
            self._granted.update(granted)
            events.append(Grants(_scopes(granted)))
        folder = await asyncio.to_thread(load, self._reflexes)
        desired = Desired(folder.reflexes, folder.governed, folder.spared)
        if desired != self._desired:
            self._desired = desired
            events.append(desired)
        problems = tuple(str(error) for error in folder.errors)
        if problems != self._problems:
            self._problems = problems
            for problem in problems:
                _LOG.error("reflex not loaded: %s", problem)
        return events


def _scopes(granted: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    scopes = {}
    for device_id, grant in granted.items():
        scope_level, _, scope = grant.partition("/")
        scopes[device_id] = (scope_level, scope)
    return scopes
