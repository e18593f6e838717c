"""`tools/bench firmware`: reflexes, rules, messages, heap and link of a virtual board."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks import reflexes
from benchmarks.edges import program
from benchmarks.house import house
from benchmarks.stand import IDENTITY, Stand
from benchmarks.table import Goal, Row
from benchmarks.timing import DidNotHappenError
from nervus.simulator import Toolchain, VirtualBoard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractAsyncContextManager

    from benchmarks.house import House
    from nervus.simulator import Form

_ON_BOARD: Final = Path(__file__).with_name("on_board")
_SCRIPT_S: Final = 3_600.0  # a busy machine gives a board a sixth of a core
# form of the firmware, heap, sensors, actuators, least % free; a rule for each sensor
_HEAPS: Final[tuple[tuple[Form, str, int, int, float], ...]] = (
    ("rom", "128k", 8, 4, 40.0),
    ("rom", "192k", 8, 8, 40.0),
    ("ram", "192k", 8, 8, 25.0),
)
_SETTLE_S: Final = 2.0
_CONNECTED_S: Final = 30.0  # the backoff of a board grows with each connection that does not last
_HEAP_WORD: Final = "heap"
_TALKATIVE: Final = "main.py"  # says each second what is free


@dataclass(frozen=True, slots=True)
class _Counts:
    """How often each thing is done; the packet id of MQTT wraps at 65,535 publishes."""

    repeats: int
    publishes: int
    cycles: int
    reconnects: int
    edges: int


_QUICK: Final = _Counts(3, 50, 500, 1, 24)
_USUAL: Final = _Counts(2_000, 70_000, 20_000, 5, 1_000)
_FULL: Final = _Counts(2_000, 200_000, 1_000_000, 5, 10_000)


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """On MicroPython alone first, then with a broker."""
    return await _measure(_QUICK if quick else _USUAL, tell)


async def measure_full(tell: Callable[[str], None]) -> list[Row]:
    """As `measure`, with the counts that the goals are about: a quarter of an hour."""
    return await _measure(_FULL, tell)


async def measure_reflexes(
    only: Collection[str],
    full: bool,  # noqa: FBT001 - as above
    tell: Callable[[str], None],
) -> list[Row]:
    """The reflexes alone, under some of the conditions in `reflexes.FAULTS`."""
    async with _house() as hub:
        return await reflexes.measure(hub, (_FULL if full else _USUAL).edges, tell, only)


def _house() -> AbstractAsyncContextManager[House]:
    boards = {reflexes.DEVICE: f"room/{reflexes.ROOM}"}
    return house(
        boards=boards,
        parts={IDENTITY: "reliable"},
        services=False,
        max_packet=reflexes.MAX_PACKET,
    )


async def _measure(counts: _Counts, tell: Callable[[str], None]) -> list[Row]:
    tell("rules and messages on MicroPython")
    rows = await _pure(counts.repeats)
    async with _house() as hub:
        tell("QoS 1 publishes over TLS")
        rows.append(await _publishes(hub, counts.publishes))
        for form, heap, doors, lamps, goal in _HEAPS:
            tell(f"free heap of {heap}, modules in {form}")
            parts = doors, lamps
            rows.append(await _free(hub, form, heap, parts, goal, counts.reconnects))
        tell("heap of a loop without a network, meanwhile")
        # The boards of the reflexes run before it, and it takes minutes.
        drift = asyncio.create_task(_drift(hub, counts.cycles))
        try:
            moved = await reflexes.measure(hub, counts.edges, tell)
            return [*moved, *rows, await drift]
        finally:
            drift.cancel()
            await asyncio.gather(drift, return_exceptions=True)


async def _pure(repeats: int) -> list[Row]:
    seen = await _script("pure.py", str(repeats), heap="1m")  # it keeps what it measured
    costs, sizes = seen["costs"], seen["sizes"]

    def row(name: str, what: str, unit: str, goal: float, *keys: str) -> Row:
        values = {key: costs[name][key] for key in keys}
        note = "" if unit == "bytes" else f"{costs['nothing']['least']:.2g} µs of it is the call"
        return Row(f"{name} {unit}", what, unit, values, repeats, (Goal("≤", goal, keys[0]),), note)

    times = "least", "median"  # see pure.py: the least is what the work takes
    return [
        row("rules 1", "evaluating one rule of one leaf", "µs", 5.0, *times),
        row("rules 32", "evaluating 32 rules of one leaf", "µs", 160.0, *times),
        row("rule of 8", "evaluating one rule of 8 leaves", "µs", 50.0, *times),
        row("afferent", "building an afferent by template", "µs", 15.0, *times),
        row("afferent", "… the heap it takes", "bytes", 64.0, "bytes"),
        row("afferent switch", "… of a switch", "bytes", 64.0, "bytes"),
        row("afferent CBOR", "building it in CBOR", "µs", 15.0, *times),
        row("afferent CBOR", "… the heap it takes", "bytes", 64.0, "bytes"),
        Row("size", "a message's bytes", "bytes", {k: float(v) for k, v in sizes.items()}, 1,
            (Goal("≤", 430.0, "AfferentSignal"), Goal("≤", 110.0, "CBOR"))),
    ]  # fmt: skip


async def _publishes(hub: House, count: int) -> Row:
    listener, files = hub.settings.brokers.spinal, reflexes.identity(hub)
    plan = {
        "host": listener.connect_host,
        "port": listener.port,
        "device_id": reflexes.DEVICE,
        "scope": reflexes.ROOM,
        "cert": str(files.certificate),
        "key": str(files.key),
        "ca": str(files.authority),
        "count": count,
        "deadline_s": _SCRIPT_S / 6,
    }
    # A file: MicroPython dies of an argument of more than 255 bytes.
    file = hub.state.path / "publish.json"
    await asyncio.to_thread(file.write_text, json.dumps(plan))
    before = _processor_s()
    seen = await _script("publish.py", str(file))
    used_us = 1e6 * (_processor_s() - before) / count
    if seen["acked"] != count or seen["downs"]:
        raise DidNotHappenError(f"QoS 1 publishes: {seen} of {count}")
    rate = {"rate": 1e3 * seen["acked"] / max(1, seen["ms"])}
    what = "QoS 1 publishes over TLS, built and acknowledged"
    note = f"{used_us:.0f} µs of the board's processor each, its start and TLS included"
    goals = (Goal("≥", 5_000, "rate"),)
    return Row("qos1 publishes", what, "messages/s", rate, count, goals, note)


def _processor_s() -> float:
    """Processor time of the processes that have ended, in seconds."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


async def _free(
    hub: House, form: Form, heap: str, parts: tuple[int, int], goal: float, reconnects: int
) -> Row:
    """Free heap when connected, with a rule for each sensor; 0 when it does not come up."""
    doors, lamps = parts
    stand = Stand(hub, reflexes.DEVICE, reflexes.ROOM)
    flash = hub.state.path / "boards" / f"heap-{form}-{heap}-{lamps}"
    node = reflexes.node(hub.settings.brokers.spinal.port, doors=doors, lamps=lamps)
    note = f"{doors} sensors, {lamps} actuators, {doors} rules, over TLS"
    async with program(_TALKATIVE, form=form, heap=heap) as toolchain, stand.running():
        board = VirtualBoard(flash, node, reflexes.identity(hub), toolchain)
        async with board:
            try:
                await stand.synced()
                for number in range(doors):
                    await stand.configure(reflexes.rule(number, lamps))
                for connects in range(2, 2 + reconnects):
                    board.set_wifi(False)
                    await asyncio.sleep(_SETTLE_S / 10)
                    board.set_wifi(True)
                    await _connected(board, connects)
                    await asyncio.sleep(_SETTLE_S)
            except TimeoutError:
                note += "; does not come up"
        restarts = board.starts - 1
    if restarts:
        note += f"; {reflexes.last_error(board)}"
    lines = [line.split() for line in board.log.lines if f"] {_HEAP_WORD} " in line]
    if "does not" in note or not lines:
        free, total = 0, 1
    else:
        free, total = int(lines[-1][-2]), int(lines[-1][-1])
    values = {"free": 100 * free / total, "restarts": restarts}
    goals = (Goal("≥", goal, "free"), Goal("≤", 0.0, "restarts"))
    what = f"heap free after {1 + reconnects} connects, heapsize {heap}, modules in {form}"
    name = f"heap {heap} {form} {doors}+{lamps}"
    return Row(name, what, "%", values, len(lines), goals, note)


async def _connected(board: VirtualBoard, times: int) -> None:
    async with asyncio.timeout(_CONNECTED_S):
        while sum("] link up" in line for line in board.log.lines) < times:  # noqa: ASYNC110 - its log
            await asyncio.sleep(0.05)


async def _drift(hub: House, cycles: int) -> Row:
    """Heap in use in the second half of the cycles less that in the first, by their medians."""
    flash = hub.state.path / "boards" / "drift"
    await asyncio.to_thread(flash.mkdir, parents=True)
    used = await _script("drift.py", str(cycles), flash=flash, urgent=False)
    half = len(used) // 2
    values = {"drift": median(used[half:]) - median(used[:half]), "in use": float(used[-1])}
    goals = (Goal("≤", 0.0, "drift"),)
    note = "8 sensors, 4 actuators, 8 rules, without a network"
    what = "heap gained by so many turns of the loop"
    return Row("heap drift", what, "bytes", values, cycles, goals, note)


async def _script(
    name: str,
    *arguments: str,
    flash: Path | None = None,
    heap: str = "192k",
    urgent: bool = True,
) -> Any:
    """Run a script of `on_board/` on the board's MicroPython; returns what it printed as JSON."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(0)
        toolchain = replace(Toolchain.locate(), form="ram", heap=heap)
        command = [*toolchain.command(_ON_BOARD / name), *arguments]
        if not urgent:
            command = ["nice", *command]
        return await _printed(name, toolchain, command, theirs.fileno(), flash)


async def _printed(
    name: str, toolchain: Toolchain, command: list[str], control: int, flash: Path | None
) -> Any:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=flash,
        env={
            **await asyncio.to_thread(toolchain.environment),
            "NERVUS_CONTROL_FD": str(control),
        },
        pass_fds=[control],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SCRIPT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise DidNotHappenError(f"{name} ended with status {process.returncode}: {output!r:.300}")
    return json.loads(output.splitlines()[-1])
