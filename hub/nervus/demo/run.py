"""Runs the demo: a whole system in a state folder, its boards, its script and its picture."""

import asyncio
import copy
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from nervus.bus import BrokerAddress, first_failure
from nervus.demo.house import BOARDS, INTRUDER, INTRUDER_SCOPE, POLICY, SETTINGS, Board
from nervus.demo.intruder import Intruder
from nervus.demo.parts import (
    ROLES,
    Clock,
    Consumer,
    Diagnostics,
    Hypothalamus,
    Modulator,
    Observer,
    Part,
)
from nervus.demo.script import Cast, Script
from nervus.demo.tally import BoardView, Tally
from nervus.errors import NervusError
from nervus.reflect import NoQuarantineError, Quarantine
from nervus.runtime.brokers import brokers
from nervus.runtime.state import BrokerName
from nervus.runtime.status import read_status
from nervus.runtime.system import prepare, running_system
from nervus.simulator import Identity, VirtualBoard

SERVICES_READY_S: Final = 60.0
"""For a process each of all services, where others use the machine, too."""
BOARDS_ONLINE_S: Final = 20.0
AT_REST_S: Final = 12.0
"""How long the end waits for outcomes, and for boards on their way back."""


class DemoError(NervusError):
    """The demo did not come up."""


class Demo:
    """One run. `tally`, `clock` and `over` are there from the start, for whoever draws."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tally = Tally(boards={board.device_id: BoardView() for board in BOARDS})
        self.clock = Clock()
        self.over = False
        self._virtual: dict[str, VirtualBoard] = {}
        self._state, settings, self._authority = prepare(folder)
        self._settings = settings.model_copy(update={"processes": "separate"})

    async def play(
        self, seconds: float | None, stop: asyncio.Event, enough: asyncio.Event
    ) -> tuple[Tally, float]:
        """Run for so many seconds or until `enough`, then come to rest; or to `stop`.

        Returns:
            The tally as it stood before the house was closed, and the seconds it took.

        Raises:
            NervusError: Something did not start, or a part failed.
        """
        try:
            return await self._play(seconds, stop, enough)
        except BaseExceptionGroup as group:
            raise first_failure(group) from group

    async def _play(
        self, seconds: float | None, stop: asyncio.Event, enough: asyncio.Event
    ) -> tuple[Tally, float]:
        self._furnish()
        async with AsyncExitStack() as stack:
            system = running_system(self._state, self._settings, within_s=SERVICES_READY_S)
            await stack.enter_async_context(system)
            cast = await stack.enter_async_context(self._parts())
            boards = await stack.enter_async_context(self._boards())
            await self._until_online(stop)
            self.clock.restart()
            self.tally.begin()
            script = Script(boards, cast, self.tally, self.clock)
            async with script.playing():
                await _wait(seconds, stop, enough)
            await self._come_to_rest(cast.consumer, stop)
            await self.refresh()
            self.over = True
            return copy.deepcopy(self.tally), self.clock.seconds()

    async def refresh(self) -> None:
        """Read what nobody publishes: the children's state, the stored rejects, boards' starts."""
        for name, board in self._virtual.items():
            self.tally.boards[name].starts = board.starts
        status = await asyncio.to_thread(read_status, self._state)
        for child in status["children"] if status else ():
            self.tally.parts[child["name"]] = (child["state"], child["restarts"])
        store = self._state.data / "reflect.db"
        with suppress(NoQuarantineError):
            self.tally.rejects, self.tally.reject_lines = await asyncio.to_thread(_rejects, store)

    def _furnish(self) -> None:
        written = self._state.settings_file.read_text()
        if SETTINGS not in written:
            self._state.settings_file.write_text(written + SETTINGS)
        for name, role in ROLES.items():
            self._authority.ensure(name, role)
        for board in BOARDS:
            self._authority.ensure(board.device_id, "board", board.scope)
            for reflex in board.reflexes:
                path = self.folder / "reflexes" / board.device_id / f"{reflex['reflex_id']}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(reflex, indent=1) + "\n")
        self._authority.ensure(INTRUDER, "board", INTRUDER_SCOPE)
        self._state.policy_file.write_text(POLICY)
        for broker in brokers(self._state, self._settings):
            broker.write_acl(self._authority)

    @asynccontextmanager
    async def _parts(self) -> AsyncIterator[Cast]:
        tally, clock = self.tally, self.clock
        consumer = Consumer(self._address("demo", "core"), tally, clock)
        modulator = Modulator(self._address("demo-modulator", "core"), tally, clock)
        hypothalamus = Hypothalamus(self._address("demo-hypothalamus", "core"), tally, clock)
        intruder = Intruder(self._address(INTRUDER, "spinal"), tally, clock)
        parts: list[Part] = [
            consumer,
            modulator,
            hypothalamus,
            intruder,
            Diagnostics(self._address("demo-diagnostics", "core"), tally, clock),
            Observer("spinal", self._address("demo-observer", "spinal"), tally, clock),
            Observer("core", self._address("demo-observer", "core"), tally, clock),
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part.session.run()) for part in parts]
            yield Cast(consumer, modulator, hypothalamus, intruder)
            for task in tasks:
                task.cancel()

    @asynccontextmanager
    async def _boards(self) -> AsyncIterator[dict[str, VirtualBoard]]:
        listener = self._settings.brokers.get("spinal")
        async with AsyncExitStack() as stack:
            for board in BOARDS:
                files = self._authority.get(board.device_id).folder
                identity = Identity(files / "cert.der", files / "key.der", files / "ca.der")
                self._virtual[board.device_id] = await stack.enter_async_context(
                    VirtualBoard(
                        self.folder / "boards" / board.device_id,
                        board.node(listener.connect_host, listener.port),
                        identity,
                    )
                )
            yield self._virtual

    async def _until_online(self, stop: asyncio.Event) -> None:
        deadline = self.clock.seconds() + BOARDS_ONLINE_S
        while not stop.is_set():
            missing = [board.device_id for board in BOARDS if not self._furnished(board)]
            if not missing:
                return
            if self.clock.seconds() > deadline:
                raise DemoError(
                    f"{', '.join(missing)}: not online with reflexes in {BOARDS_ONLINE_S:.0f} s",
                    where=str(self.folder / "boards"),
                    hint="read the board's .log file beside its folder",
                )
            await asyncio.sleep(0.05)

    def _furnished(self, board: Board) -> bool:
        view = self.tally.boards[board.device_id]
        return view.status == "online" and len(view.fires) == len(board.reflexes)

    async def _come_to_rest(self, consumer: Consumer, stop: asyncio.Event) -> None:
        deadline = self.clock.seconds() + AT_REST_S
        boards = self.tally.boards.values()
        while not stop.is_set() and (
            self.tally.open_commands() or any(board.status != "online" for board in boards)
        ):
            if self.clock.seconds() > deadline:
                return
            await consumer.repeat_unanswered()
            await asyncio.sleep(0.2)

    def _address(self, identity: str, broker: BrokerName) -> BrokerAddress:
        listener = self._settings.brokers.get(broker)
        tls = self._authority.get(identity).ssl_context()
        return BrokerAddress(listener.connect_host, listener.port, tls)


@asynccontextmanager
async def state_folder(path: Path | None) -> AsyncIterator[Path]:
    """The given folder, or one that is gone afterwards unless something failed."""
    if path is not None:
        yield path
        return
    made = Path(tempfile.mkdtemp(prefix="nervus-demo-"))
    yield made
    await asyncio.to_thread(shutil.rmtree, made)


async def _wait(seconds: float | None, *events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(each.wait()) for each in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def _rejects(store: Path) -> tuple[dict[str, int], list[str]]:
    with Quarantine.open(store) as quarantine:
        lines = [
            f"{each.source or 'somebody'}: {each.reason_code} ({each.stage})"
            for each in quarantine.latest(3)
        ]
        return dict(quarantine.counts()), lines
