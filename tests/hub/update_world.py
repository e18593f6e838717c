"""Updates in a box: the hub's core over its real tables, the boards' own code on folders as flash.

A board is `spinal.update` and `slots` as they are, in simulated time; between hub and boards is a
network that loses, doubles and reorders. What a boot is good for is the world's: `broken` versions
crash before they connect.
"""

import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firmware.update_pack import KEY
from hub.command_inputs import NOW_MS, judged
from nervus.bus import KEPT
from nervus.updates import Order, Ordered, Pack, Rollout, Updates, UpdatesSettings, schema
from nervus.updates.record import BoardUpdate
from nervus.wire import Mint, Publish, Rejected, topics
from nervus.wire.contracts import (
    ChunkRequest,
    ChunkRequestPayload,
    DeviceInfo,
    DeviceInfoPayload,
    DeviceStatus,
    DeviceStatusPayload,
    UpdateReport,
    UpdateReportPayload,
)
from nervus.wire.ids import MessageIds
from slots import Slots
from spinal import update as board_update
from spinal.contracts import MAX_BYTES, SCHEMAS
from spinal.envelope import parse
from spinal.store import Store

STEP_MS = 250
SLICES = 120
"""Slices of work that a board does in a step."""
GOOD_AFTER_MS = 30_000
CRASH_MS = 2_000

_ids = MessageIds(7)


class Restart(Exception):  # noqa: N818 - no error, an intention
    """The board restarts by intention."""


class FlashedBoard:
    """One board: what its flash has, and the application that runs on it."""

    def __init__(
        self, world: "World", device_id: str, folder: Path, keys: tuple[str, ...] = (KEY,)
    ) -> None:
        self.device_id = device_id
        self.folder = folder
        self.node = {"update_keys": list(keys)}
        self.outgoing = self
        self.outbox: list[object] = []
        self.ticks_ms = 0
        self.linked = False
        self.there = True
        self.boots = 0
        self.tried: set[str] = set()
        self._world = world
        self._booted_ms = 0
        self._crashed = False
        folder.mkdir()
        self.boot()

    @property
    def version(self) -> str:
        """What runs."""
        return self.slots.version or "0.1.0"

    def boot(self) -> None:
        """Power on; what it had not written is gone."""
        with self._flash():
            self.boots += 1
            self.linked = False
            self.slots = Slots(Store("."))
            self.slots.count_boot()
        if self.slots.trial:
            self.tried.add(self.version)
        self._booted_ms = self._world.now_ms
        self._good = False
        self._crashed = self.version in self._world.broken
        self.mint = Mint(
            f"device:{self.device_id}",
            "spinal",
            seed=hash((self.device_id, self.boots)),
            boot=self.boots,
        )
        if not self._crashed:
            with self._flash():
                self.updates = board_update.Updates(self, self.slots, self.version)

    def step(self) -> None:
        """Let STEP_MS pass."""
        self.ticks_ms += STEP_MS
        age_ms = self._world.now_ms - self._booted_ms
        if self._crashed:
            if age_ms >= CRASH_MS:
                self.boot()
            return
        if not self.there:
            self.linked = False
        elif not self.linked and age_ms >= CRASH_MS:
            self._link_up()
        with self._flash():
            for _ in range(SLICES):
                if not self.updates.step():
                    break
            if not self._good and age_ms >= GOOD_AFTER_MS:
                self._good = True
                if self.slots.good():
                    self.updates.tell(self.version, "probation", "succeeded", None)
            try:
                self.updates.each_second()
            except Restart:
                self.boot()

    def take(self, publish: Publish) -> None:
        """A message of the hub."""
        if self._crashed or not self.linked:
            return
        contract = publish.message.meta.contract
        schemas = {contract: SCHEMAS[contract]}
        _, payload = parse(publish.data, schemas, MAX_BYTES[contract])
        with self._flash():
            if publish.address.spec is topics.UPDATE_OFFER:
                self.updates.offer(payload)
            else:
                self.updates.chunk(payload)

    def about_board(self, contract: str, payload: dict[str, Any], _ticks_ms: int) -> None:
        """What the board's code sends by."""
        if not self.linked:
            return
        kind, model, address = {
            "UpdateReport": (UpdateReport, UpdateReportPayload, topics.update_report),
            "ChunkRequest": (ChunkRequest, ChunkRequestPayload, topics.chunk_request),
        }[contract]
        self.send(kind, address(self.device_id), model.model_validate(payload))

    def send(self, kind: Any, address: Any, payload: Any) -> None:
        """Put a message on the air."""
        now_ms = self._world.now_ms
        self._world.to_hub(judged(self.mint.compact(kind, address, payload, now_ms), now_ms))

    def log(self, text: str) -> None:
        """The console."""
        self._world.log.append(f"{self._world.now_ms - NOW_MS:8} {self.device_id}: {text}")

    def files(self) -> dict[str, bytes]:
        """What the slot that runs holds."""
        slot = self.folder / self.slots.slot
        return {
            str(path.relative_to(slot)): path.read_bytes()
            for path in sorted(slot.rglob("*"))
            if path.is_file() and path.name != "manifest"
        }

    def _link_up(self) -> None:
        self.linked = True
        session = self.mint.id(self._world.now_ms)
        status = DeviceStatusPayload(status="online", session=session)
        self.send(DeviceStatus, topics.device_status(self.device_id), status)
        info = DeviceInfoPayload(
            board="virtual", firmware=self.version, versions=["v1"], capabilities=[]
        )
        self._world.retained[self.device_id] = len(self._world.log)
        self.send(DeviceInfo, topics.device_info(self.device_id), info)
        with self._flash():
            self.updates.link_up()

    @contextmanager
    def _flash(self) -> Iterator[None]:
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            yield
        finally:
            os.chdir(before)


class World:
    """The hub, its boards, the network and time."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        seed: int = 0,
        *,
        loss: float = 0.0,
        doubles: float = 0.0,
        delay_ms: int = 0,
        **settings: Any,
    ) -> None:
        def restart() -> None:
            raise Restart

        monkeypatch.setattr(board_update.compat, "restart", restart, raising=False)
        self.now_ms = NOW_MS
        self.random = random.Random(seed)  # noqa: S311 - a simulation
        self.broken: set[str] = set()
        self.loss, self.doubles, self.delay_ms = loss, doubles, delay_ms
        self.crash: Callable[[], str] = lambda: "live"
        self.published: list[tuple[int, Publish]] = []
        self.rejected: list[Rejected] = []
        self.log: list[str] = []
        self.retained: dict[str, int] = {}
        self.boards: dict[str, FlashedBoard] = {}
        self.packs: dict[str, Pack] = {}
        self._folder = folder
        self._air: list[tuple[int, int, Callable[[], None]]] = []
        self._settings = UpdatesSettings(**settings)
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript(schema.SCHEMA + KEPT)
        self.starts = 0
        self.start()

    def add(self, *device_ids: str, keys: tuple[str, ...] = (KEY,)) -> None:
        """Hang boards on the wall."""
        for device_id in device_ids:
            self.boards[device_id] = FlashedBoard(self, device_id, self._folder / device_id, keys)

    def start(self) -> None:
        """The service starts over what is stored; the retained births reach it again."""
        self.starts += 1
        mint = Mint("updater", "reliable", seed=1_000 + self.starts, boot=self.starts)
        self.core = Updates(self._settings, mint)
        stored = schema.read(self.database)
        self.apply(self.core.restore(stored, self.packs, self.now_ms))
        for board in self.boards.values():
            if board.linked:
                info = DeviceInfoPayload(
                    board="virtual", firmware=board.version, versions=["v1"], capabilities=[]
                )
                board.send(DeviceInfo, topics.device_info(board.device_id), info)

    def order(
        self, pack: Pack, *devices: str, canary: int = 1, update_id: str | None = None
    ) -> str:
        """Ask for a roll-out, until that is stored."""
        repeats = update_id is not None
        update_id = update_id or _ids.next(self.now_ms)
        self.packs[update_id] = pack
        order = Order(
            update_id=update_id,
            devices=devices,
            canary=canary,
            asked_ms=self.now_ms,
            asked_by="somebody",
        )
        if repeats:
            self.step(Ordered(order, pack))
        while update_id not in {row.update_id for row in self.stored().rollouts}:
            self.step(Ordered(order, pack))
        return update_id

    def step(self, event: Any) -> None:
        self.apply(self.core.step(event, self.now_ms))

    def apply(self, effects: Sequence[Any]) -> None:
        """Commit, then publish; or die before the commit, or right behind it."""
        effects = list(effects)
        durable = [each for each in effects if not isinstance(each, Publish | Rejected)]
        mode = self.crash() if durable else "live"
        if durable and mode != "before":
            self.database.execute("BEGIN")
            schema.write(self.database, durable)
            self.database.execute("COMMIT")
        if mode != "live":
            self.start()
            return
        self.rejected += [each for each in effects if isinstance(each, Rejected)]
        for publish in effects:
            if isinstance(publish, Publish):
                self.published.append((self.now_ms, publish))
                board = self.boards.get(publish.address.levels["device_id"])
                if board is not None:
                    self._send(lambda board=board, publish=publish: board.take(publish))

    def to_hub(self, event: Any) -> None:
        """A message of a board, on its way."""
        self._send(lambda: self.step(event))

    def run(self, until: Callable[[], bool], minutes: float = 20) -> None:
        """Let time pass until a condition holds; fails if it does not in time."""
        end_ms = self.now_ms + round(minutes * 60_000)
        while not until():
            assert self.now_ms < end_ms, "\n".join([*self.log[-40:], str(self.stored())])
            self.pass_time()

    def pass_time(self, ms: int = STEP_MS) -> None:
        """Let time pass."""
        for _ in range(max(1, ms // STEP_MS)):
            self.now_ms += STEP_MS
            for board in self.boards.values():
                board.step()
            due = sorted(each for each in self._air if each[0] <= self.now_ms)
            self._air = [each for each in self._air if each[0] > self.now_ms]
            for _, _, deliver in due:
                deliver()
            self.apply(self.core.tick(self.now_ms))

    def stored(self) -> Any:
        return schema.read(self.database)

    def rollout(self, update_id: str) -> Rollout:
        (found,) = (row for row in self.stored().rollouts if row.update_id == update_id)
        return found  # type: ignore[no-any-return]

    def board(self, update_id: str, device_id: str) -> BoardUpdate:
        """What is stored of a board in a roll-out."""
        (found,) = (
            row
            for row in self.stored().boards
            if (row.update_id, row.device_id) == (update_id, device_id)
        )
        return found  # type: ignore[no-any-return]

    def states(self, update_id: str) -> dict[str, str]:
        """State by board."""
        return {
            row.device_id: row.state for row in self.stored().boards if row.update_id == update_id
        }

    def sent(self, name: str, device_id: str | None = None) -> list[Publish]:
        """What the hub published on a topic."""
        return [
            publish
            for _, publish in self.published
            if publish.address.spec.name == name
            and device_id in (None, publish.address.levels["device_id"])
        ]

    def _send(self, deliver: Callable[[], None]) -> None:
        if self.random.random() < self.loss:
            return
        for _ in range(2 if self.random.random() < self.doubles else 1):
            at_ms = self.now_ms + self.random.randint(0, self.delay_ms)
            self._air.append((at_ms, self.random.getrandbits(40), deliver))
