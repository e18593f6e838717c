"""Reflexes of a virtual board while its network is well, dead, busy, or ever reconnecting."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from benchmarks import edges
from benchmarks.edges import DOOR_PIN, DOORS, LAMP_PIN, Edges
from benchmarks.machine import undisturbed
from benchmarks.proxy import Proxy
from benchmarks.stand import Stand
from benchmarks.table import Goal, Row
from benchmarks.timing import DidNotHappenError, percentiles
from nervus.simulator import Identity, VirtualBoard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from benchmarks.house import House

DEVICE: Final = "m1"
ROOM: Final = "kitchen"
_FLOOD_RATE: Final = 500.0
_CYCLE_S: Final = 0.2
_RECONNECTED_S: Final = 20.0  # the board's backoff comes first
_OFF_S: Final = 0.02
_HOSTILE_BYTES: Final = 1 << 20
MAX_PACKET: Final = 2 * _HOSTILE_BYTES
"""What the brokers are to take: as we run them they refuse such a message, of whoever it is."""
_HOSTILE_GAP_S: Final = 1.0
_GOALS: Final[tuple[Goal, ...]] = (
    Goal("≤", 0.5, "own p50"),
    Goal("≤", 5.0, "own p99"),
    Goal("≤", 20.0, "own worst"),
)
FAULTS: Final = {
    "idle": "the network is well",
    "black hole": "the broker is black-holed",
    "flood": f"{_FLOOD_RATE:.0f} messages/s arrive",
    "reconnects": "Wi-Fi flaps and TLS reconnects in a loop",
    "hostile": "a publish of 1 MiB is offered each second",
}


def node(
    port: int, host: str = "localhost", doors: int = DOORS, lamps: int = DOORS
) -> dict[str, Any]:
    """A node file of doors and lamps."""
    return {
        "device_id": DEVICE,
        "scope_level": "room",
        "scope": ROOM,
        "broker": {"host": "127.0.0.1", "port": port, "server_name": host},
        "keepalive_s": 4,
        "ping_s": 1,
        "sensors": [
            {"id": f"door-{n}", "driver": "digital", "pin": DOOR_PIN + n} for n in range(doors)
        ],
        "actuators": [
            {"id": f"lamp-{n}", "driver": "digital", "pin": LAMP_PIN + n, "boot": 0}
            for n in range(lamps)
        ],
    }


def rule(number: int, lamps: int = DOORS) -> dict[str, Any]:
    """A reflex: a lamp follows its door."""
    lamp = f"lamp-{number % lamps}"
    return {
        "reflex_id": f"r{number}",
        "version": 1,
        "enabled": True,
        "mode": "active",
        "when": {"sensor": f"door-{number}", "op": "eq", "value": True},
        "then": [{"actuator": lamp, "set": True}],
        "else": [{"actuator": lamp, "set": False}],
        "max_fires_per_min": 600,
    }


def last_error(board: VirtualBoard) -> str:
    """What the board said before it went down."""
    errors = [line.strip() for line in board.log.lines if "Error" in line or "status" in line]
    return "; ".join(errors[-2:]) or "the newest lines of its log do not say why"


def identity(hub: House) -> Identity:
    """The DER files of the measured board."""
    folder = hub.authority.get(DEVICE).folder
    return Identity(folder / "cert.der", folder / "key.der", folder / "ca.der")


async def measure(
    hub: House, count: int, tell: Callable[[str], None], only: Collection[str] = tuple(FAULTS)
) -> list[Row]:
    """Move so many inputs and time the outputs, under one condition of FAULTS after the other."""
    listener = hub.settings.brokers.spinal
    proxy = Proxy(listener.connect_host, listener.port)
    stand = Stand(hub, DEVICE, ROOM)
    boards = hub.state.path / "boards"
    async with (
        proxy.running(),
        stand.running(),
        edges.timed() as toolchain,
        VirtualBoard(boards / DEVICE, node(proxy.port), identity(hub), toolchain) as board,
        edges.echo(boards / "echo") as alone,
    ):
        await stand.synced()
        for number in range(DOORS):
            await stand.configure(rule(number))
        rows: list[Row] = []
        for fault, words in FAULTS.items():
            if fault not in only:
                continue
            tell(f"{count} edges while {words}")
            await _online(stand)
            starts = board.starts
            preferred = edges.prefer(board) and edges.prefer(alone)
            # The benchmark may wait for a core between its look at the clock and the edge.
            async with _under(fault, proxy, stand, board) as happened:
                with undisturbed():
                    seen = await edges.move(board, alone, count)
            if not preferred:
                happened[0] += "; in competition for the processor"
            if seen[0].untimed:
                happened[0] += f"; {seen[0].untimed} moved again, when they began is not known"
            if seen[0].slept:
                happened[0] += f"; the board slept in {seen[0].slept} of them"
            restarts = board.starts - starts
            if restarts:
                happened[0] += f"; the board restarted: {last_error(board)}"
            rows.append(_row(fault, words, seen, restarts, happened[0], rows))
    return rows


def _row(
    fault: str,
    words: str,
    seen: tuple[Edges, Edges],
    restarts: int,
    happened: str,
    before: list[Row],
) -> Row:
    of_board, of_stand = seen
    values = percentiles(of_board.times_ms)
    values |= {"missed": of_board.missed, "restarts": restarts}
    goals = _GOALS
    if before:
        goals = (Goal("≤", 2 * before[0].values["own p99"], "own p99"), _GOALS[-1])
    goals = (*goals, Goal("≤", 0.0, "missed"), Goal("≤", 0.0, "restarts"))
    own = percentiles(of_board.own_ms)
    values |= {f"own {key}": value for key, value in own.items()}
    if of_stand.missed:
        raise DidNotHappenError(f"{of_stand.missed} edges of the stand alone led to nothing")
    alone = percentiles(of_stand.times_ms)
    values |= {f"stand {key}": value for key, value in alone.items()}
    values |= {"taken worst": max(of_board.taken_ms), "stand own worst": max(of_stand.own_ms)}
    what = f"reflex, input → output, while {words}"
    return Row(f"reflex {fault}", what, "ms", values, len(of_board.times_ms), goals, happened)


@asynccontextmanager
async def _under(
    fault: str, proxy: Proxy, stand: Stand, board: VirtualBoard
) -> AsyncIterator[list[str]]:
    """Hold a condition; what is yielded says afterwards what took place."""
    happened = [""]
    connections, swallowed = proxy.connections, proxy.swallowed
    published = stand.session.counters.published
    tasks = []
    if fault == "black hole":
        proxy.swallow()
    elif fault == "flood":
        tasks = [asyncio.create_task(stand.flood(_FLOOD_RATE))]
    elif fault == "reconnects":
        tasks = [asyncio.create_task(_reconnecting(board))]
    elif fault == "hostile":
        tasks = [asyncio.create_task(stand.hostile(_HOSTILE_BYTES, _HOSTILE_GAP_S))]
    began = time.perf_counter()
    try:
        if fault == "reconnects":
            async with asyncio.timeout(_RECONNECTED_S):
                while proxy.connections == connections:  # noqa: ASYNC110 - a count, not an event
                    await asyncio.sleep(0.01)
        yield happened
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        proxy.restore()
        board.set_wifi(True)
    seconds = time.perf_counter() - began
    told = {
        "black hole": proxy.swallowed - swallowed,
        "flood": stand.session.counters.published - published,
        "reconnects": proxy.connections - connections,
        "hostile": stand.session.counters.published - published,
    }
    if fault in told and not told[fault]:
        raise DidNotHappenError(f"nothing of the fault {fault!r} took place")
    happened[0] = {
        "idle": f"TLS, {DOORS} rules, a report of each fire",
        "black hole": f"{told['black hole']} bytes swallowed",
        "flood": f"{told['flood'] / seconds:.0f} pongs/s, parsed, checked, refused; "
        f"{told['reconnects']} reconnects",
        "reconnects": f"off 5 times a second, {told['reconnects']} connections in {seconds:.0f} s",
        "hostile": f"{told['hostile']} of {_HOSTILE_BYTES} bytes, passed over; "
        f"{told['reconnects']} reconnects",
    }[fault]


async def _online(stand: Stand) -> None:
    # After a fault the board finds its way back by itself, within its backoff.
    seen = stand.pings
    async with asyncio.timeout(60):
        while stand.pings < seen + 2:  # noqa: ASYNC110 - a count, not an event
            await asyncio.sleep(0.1)


async def _reconnecting(board: VirtualBoard) -> None:
    while True:
        board.set_wifi(False)
        await asyncio.sleep(_OFF_S)
        board.set_wifi(True)
        await asyncio.sleep(_CYCLE_S - _OFF_S)
