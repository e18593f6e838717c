"""A part that rejects, and reflect: each killed at a chosen point and started again.

Run as a program, with reflect's point, a folder and the ports of two brokers. Every life is forked
from it, so that hundreds of imports are paid for once. Prints what the quarantine holds for each
point of the reporter.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from fault.kept_part import living, rejected
from nervus.bus import BrokerAddress, Shard, reject_log
from nervus.bus.client import FastClient
from nervus.bus.reject_log import RejectLog
from nervus.bus.session import Delivery, Session
from nervus.reflect import Reflect, service
from nervus.wire import Accepted

ROOMS = ("hall", "kitchen", "attic")
LAST = ("cellar",)
DEADLINE_S = 20.0
PUBLISH, PUBACK = 3, 4

Life = Callable[[], Awaitable[Any]]


def die(*_: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed by now")


def after(kind: type, name: str) -> None:
    """Die once this method has done its work."""
    original = getattr(kind, name)

    def wrapped(*arguments: Any) -> None:
        original(*arguments)
        die()

    setattr(kind, name, wrapped)


def in_the_socket(kind: int) -> None:
    """Die with a packet of a kind in the socket, whatever becomes of it there."""
    flush = FastClient._flush

    def wrapped(self: FastClient) -> None:
        written = any(frame[0] >> 4 == kind for frame in self._frames)
        flush(self)
        if written:
            die()

    FastClient._flush = wrapped  # type: ignore[method-assign]


REPORTER: dict[str, Callable[[], None]] = {
    "stored": lambda: setattr(RejectLog, "_send", die),
    "sent": lambda: in_the_socket(PUBLISH),
    "confirmed": lambda: setattr(Session, "_confirm", die),
    "noted": lambda: after(RejectLog, "_done"),
}


def _received() -> None:
    original = Reflect.step

    def step(self: Reflect, event: Any, now_ms: int) -> Any:
        return die() if isinstance(event, Accepted) else original(self, event, now_ms)

    Reflect.step = step  # type: ignore[method-assign]


REFLECT: dict[str, Callable[[], None]] = {
    "received": _received,
    "committed": lambda: setattr(Delivery, "acknowledge", die),
    "acknowledged": lambda: in_the_socket(PUBACK),
}


async def report(core: BrokerAddress, folder: Path, rooms: Sequence[str]) -> None:
    reject_log._FLUSH_S = reject_log._AGAIN_S = 0.05  # type: ignore[misc]
    broker: Any = SimpleNamespace(address=core)
    now_ms = time.time_ns() // 1_000_000
    async with living(broker, folder, now_ms, connected=False) as part:
        for room in rooms:
            rejected(part, room)
        await asyncio.Event().wait()


async def reflect(addresses: dict[str, BrokerAddress], folder: Path) -> None:
    context: Any = SimpleNamespace(
        seed=time.time_ns(), boot=int(time.time()), data=folder,
        table=lambda _: {"batch_ms": 20},
        session_config=lambda _, broker: addresses[broker],
        ready=lambda: None, trouble=lambda *_: None,
        house="home", shard=Shard(), journal=SimpleNamespace(enabled=False),
    )  # fmt: skip
    await service.run(context)


def start(life: Life, prepare: Callable[[], None] | None) -> int:
    """Begin a life that ends at a point; returns its process."""
    if child := os.fork():
        return child
    try:
        if prepare is not None:
            prepare()
        asyncio.run(life())  # type: ignore[arg-type]
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, a life ends with its process
        traceback.print_exc()
    finally:
        os._exit(1)


def rows(file: Path, statement: str) -> list[Any]:
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError:
            return []  # it is just being made


async def forget(addresses: dict[str, BrokerAddress]) -> None:
    """Leave nothing at the brokers of what waits there for reflect."""
    for name in ("spinal", "core"):
        session = Session("reflect", name, addresses[name])  # type: ignore[arg-type]
        task = asyncio.create_task(session.run())
        await session.wait_connected()
        task.cancel()
        await asyncio.wait([task])


class Stage:
    """Both lives of one pair of points, and what they left."""

    def __init__(
        self, addresses: dict[str, BrokerAddress], folder: Path, points: tuple[str, str]
    ) -> None:
        self._folder = folder
        (folder / "last").mkdir(parents=True)
        self._deadline = time.monotonic() + DEADLINE_S
        self._killed: set[str] = set()
        core = addresses["core"]
        self._lives: dict[str, Life] = {
            "reflect": lambda: reflect(addresses, folder),
            "reporter": lambda: report(core, folder, ()),
            "last": lambda: report(core, folder / "last", LAST),
        }
        os.waitpid(start(lambda: forget(addresses), None), 0)
        self._running = {
            "reflect": start(self._lives["reflect"], REFLECT.get(points[1])),
            "reporter": start(lambda: report(core, folder, ROOMS), REPORTER.get(points[0])),
        }

    def play(self) -> tuple[set[str], list[Any]]:
        """Live until all is told; returns who was killed, and the rows of the quarantine."""
        try:
            self._until(lambda: self._noted() == [(1,)] * len(ROOMS))
            self._until(lambda: len(self._kept()) >= len(ROOMS))
            # What comes from now on comes behind whatever the broker had yet to give.
            self._end("reporter")
            self._running["last"] = start(self._lives["last"], None)
            self._until(lambda: any(LAST[0] in topic for topic, _ in self._kept()))
        finally:
            for name in list(self._running):
                self._end(name)
        return self._killed, [row for row in self._kept() if LAST[0] not in row[0]]

    def _noted(self) -> list[Any]:
        return rows(self._folder / "part.db", "SELECT sent FROM bus_rejects")

    def _kept(self) -> list[Any]:
        statement = "SELECT source_topic, count FROM rejects ORDER BY 1"
        return rows(self._folder / "reflect.db", statement)

    def _end(self, name: str) -> None:
        pid = self._running.pop(name)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            for name, pid in list(self._running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del self._running[name]
                    assert os.WTERMSIG(status) == signal.SIGKILL, (name, status)
                    self._killed.add(name)
                    self._running[name] = start(self._lives[name], None)
            assert time.monotonic() < self._deadline, (self._folder, self._killed, self._noted())
            time.sleep(0.01)


def main(keeper: str, folder: Path, ports: list[int]) -> None:
    names = ("spinal", "core")
    addresses = {n: BrokerAddress("127.0.0.1", p) for n, p in zip(names, ports, strict=True)}
    found = {}
    for reporter in ("", *REPORTER):
        points = {"reporter": reporter, "reflect": keeper}
        place = folder / (reporter or "lives")
        killed, found[reporter] = Stage(addresses, place, (reporter, keeper)).play()
        assert killed == {name for name, point in points.items() if point}, (points, killed)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(port) for port in sys.argv[3:]])
