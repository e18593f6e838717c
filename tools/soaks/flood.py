"""Floods brainstem and thalamus over two TLS brokers, and watches how much memory they take.

Boards send twice what they may, so each second message is refused; windows are of 50 ms, so that
many bundles reach thalamus. What the two services hold at the end is compared with what they held
when a third of the time was over: in 10 minutes that is when all that is remembered up to a limit,
such as 32,768 ids, is full. More than a twentieth beyond that and 2 MB is a failure.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.house import house
from benchmarks.messages import ROOMS
from benchmarks.round_trips import connected
from nervus.bus import Session, subscriptions
from nervus.wire import Accepted, Guard, Packet, topics

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from benchmarks.house import House

_CONSUMER: Final = "lamp-logic"
_SERVICES: Final = ("brainstem", "thalamus")
_BOARDS: Final = 20
_LOOKS: Final = 60
_GROWTH: Final = 1.05
_GROWTH_MB: Final = 2.0
_SETTLE_S: Final = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be asked."""
    parser.add_argument("--minutes", type=float, default=10, metavar="M", help="how long")
    parser.add_argument("--rate", type=float, default=2_000, metavar="N", help="messages a second")


def run(given: argparse.Namespace) -> int:
    """Run it; 1 when memory grew, or nothing came of the flood."""
    return asyncio.run(_soak(given.minutes * 60, given.rate))


async def _soak(seconds: float, rate: float) -> int:
    boards = {f"b{n}": f"room/r{n % ROOMS}" for n in range(_BOARDS)}
    limits = f"[brainstem]\nwindow_ms = 50\nsource_rate = {rate / _BOARDS / 2:g}\n"
    async with (
        house(boards=boards, parts={_CONSUMER: "consumer"}, settings=limits, services=False) as hub,
        _service(hub, "brainstem") as brainstem,
        _service(hub, "thalamus") as thalamus,
        _Listener(hub).running() as listener,
    ):
        pids = dict(zip(_SERVICES, (brainstem, thalamus), strict=True))
        # Until both serve: what they have subscribed to is queued for them from then on.
        await asyncio.sleep(_SETTLE_S)
        looks = [_look(pids)]
        flood = await _flood(hub, boards, rate, seconds)
        try:
            began = time.monotonic()
            while flood.returncode is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(flood.wait(), seconds / _LOOKS)
                looks.append(_look(pids))
                print(_line(time.monotonic() - began, looks[-1], listener), flush=True)
        finally:
            if flood.returncode is None:
                flood.kill()
                await flood.wait()
        await asyncio.sleep(_SETTLE_S)
        return _verdict(looks, listener, failed=flood.returncode != 0)


def _verdict(looks: list[dict[str, float]], listener: _Listener, *, failed: bool) -> int:
    early, last = looks[len(looks) // 3], looks[-1]
    problems = ["the flood ended early"] if failed else []
    if not (listener.relayed and listener.refused):
        problems.append(f"{listener.relayed} relayed, {listener.refused} refused")
    problems += [
        f"{name} grew from {early[name]:.1f} to {last[name]:.1f} MB"
        for name in _SERVICES
        if last[name] > early[name] * _GROWTH + _GROWTH_MB
    ]
    for name in _SERVICES:
        told = ", ".join(f"{each[name]:.1f}" for each in (looks[0], early, last))
        print(f"{name}: {told} MB resident when idle, after a third, at the end")
    for problem in problems:
        print("FAILED: " + problem)
    return 1 if problems else 0


def _line(after_s: float, look: dict[str, float], listener: _Listener) -> str:
    sizes = ", ".join(f"{name} {size:.1f} MB" for name, size in look.items())
    return f"{after_s:4.0f} s: {sizes}; {listener.relayed:,} relayed, {listener.refused:,} refused"


def _look(pids: dict[str, int]) -> dict[str, float]:
    """Resident megabytes of each service."""
    return {name: _resident_mb(pid) for name, pid in pids.items()}


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024 / 1e6
    raise ProcessLookupError(f"{pid} has ended")


class _Listener:
    """Counts what passed the gate, and what brainstem says it refused."""

    def __init__(self, hub: House) -> None:
        self.relayed = self.refused = 0
        self._guard = Guard((topics.GATED_RELAY, topics.REJECT))
        self._sessions = [
            Session(
                identity, "core", hub.address(identity, "core"),
                filters=subscriptions([spec]), on_packet=self._take,
            )
            for identity, spec in ((_CONSUMER, topics.GATED_RELAY), ("reflect", topics.REJECT))
        ]  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[_Listener]:
        """Connected, until left."""
        consumer, reflect = self._sessions
        async with connected(consumer), connected(reflect):
            yield self

    async def _take(self, packet: Packet) -> None:
        verdict = self._guard.judge(packet, time.time_ns() // 1_000_000)
        if not isinstance(verdict, Accepted):
            return
        if verdict.address.spec is topics.GATED_RELAY:
            self.relayed += 1
        else:
            self.refused += verdict.message.payload.count or 1


@asynccontextmanager
async def _service(hub: House, name: str) -> AsyncIterator[int]:
    """A service's own process, until left; gives its number."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nervus", "run", name, "--state", str(hub.state.path)
    )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _flood(
    hub: House, boards: dict[str, str], rate: float, seconds: float
) -> asyncio.subprocess.Process:
    listener = hub.settings.brokers.spinal
    plan = {
        "host": listener.connect_host,
        "port": listener.port,
        "boards": {
            name: (scope, str(hub.authority.get(name).folder)) for name, scope in boards.items()
        },
        "rate": rate,
        "seconds": seconds,
        "qos": 0,
        "urgent": False,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.flood", json.dumps(plan)
    )
