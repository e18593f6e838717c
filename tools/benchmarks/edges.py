"""Edges of inputs, timed until the output follows; among them, edges of the stand alone.

A virtual board's edge passes the benchmark's own sockets, two processes and the machine's
scheduler. So every fourth one is followed by one of a second virtual board that does nothing but
let its outputs follow its inputs (`on_board/echo.py`): what that takes is the stand's, and where
both are late at once it was the machine. A board has its processor to itself, so where the kernel
lets us (root), both run before everything else here, the benchmark itself comes next, and an edge
during which it stood still is not timed: what it waited between its look at the clock and the edge
would count as the board's. What the board's process waited for a core all the same, as the kernel
counts it, is taken off what is held to the goals. Both stand in the table: "worst" is what was
seen, "own worst" without that waiting (at most: a wait between the output and the benchmark's look
counts, too). What a hypervisor takes no counter here tells from the board's own work.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nervus.simulator import Output, Toolchain, VirtualBoard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


DOORS: Final = 12  # so that no rule comes near its most fires a minute
DOOR_PIN: Final = 10
LAMP_PIN: Final = 30
ECHO: Final = "echo.py"
_ON_BOARD: Final = Path(__file__).with_name("on_board")
_LEAST_GAP_S: Final = 0.008
_MOST_GAP_S: Final = 0.012
_ALONE_EVERY: Final = 4
_STOOD_NS: Final = 1_000_000  # setting an input takes some 50,000
_MISSED_S: Final = 10.0  # a machine that stands still for a second misses no edge


@dataclass(slots=True)
class Edges:
    """What became of the edges of one board: milliseconds in all, and those without a core."""

    times_ms: list[float] = field(default_factory=list)
    waited_ms: list[float] = field(default_factory=list)
    missed: int = 0
    untimed: int = 0
    """Moved once more: the benchmark itself stood still, and nobody knows when they began."""

    def own_ms(self) -> list[float]:
        """What the edges took less what the board waited for a core: it has one to itself."""
        return [t - w for t, w in zip(self.times_ms, self.waited_ms, strict=True)]


@asynccontextmanager
async def program(name: str, **changes: Any) -> AsyncIterator[Toolchain]:
    """The firmware tree with `on_board/NAME` in place of its main.py.

    Args:
        name: The program.
        changes: Fields of the Toolchain, such as form and heap.
    """
    found = Toolchain.locate()
    with tempfile.TemporaryDirectory(prefix="nervus-bench-") as folder:
        tree = Path(folder)
        for part in ("lib", "simulator", "boot.py"):
            (tree / part).symlink_to(found.firmware / part)
        (tree / "main.py").symlink_to(_ON_BOARD / name)
        yield replace(found, firmware=tree, **changes)


@asynccontextmanager
async def echo(folder: Path) -> AsyncIterator[VirtualBoard]:
    """The stand alone: a board whose every lamp follows its door, and nothing else."""
    async with program(ECHO) as toolchain:
        board = VirtualBoard(folder, {"device_id": "echo"}, None, toolchain)
        async with board:
            await board.wait_for("pin", LAMP_PIN + DOORS - 1, 0)
            yield board


async def move(board: VirtualBoard, alone: VirtualBoard, count: int) -> tuple[Edges, Edges]:
    """Move so many doors of the board, and of the other now and then: what became of them."""
    of_board, of_stand = Edges(), Edges()
    for number in range(count):
        while not await _edge(board, number % DOORS, of_board):
            of_board.untimed += 1
        if number % _ALONE_EVERY == 0:
            while not await _edge(alone, number // _ALONE_EVERY % DOORS, of_stand):
                of_stand.untimed += 1
    return of_board, of_stand


def prefer(board: VirtualBoard) -> bool:
    """Let a board run before all that is not urgent; False where the kernel does not allow it."""
    if board.pid is None:
        return False
    try:
        # Before a benchmark of the hub beside it, which takes 1.
        os.sched_setscheduler(board.pid, os.SCHED_FIFO, os.sched_param(2))
    except (PermissionError, ProcessLookupError):
        return False
    return True


async def _edge(board: VirtualBoard, door: int, edges: Edges) -> bool:
    """Move one door; False when nobody knows when that was."""
    # Not in step with anything the board does by itself.
    await asyncio.sleep(random.uniform(_LEAST_GAP_S, _MOST_GAP_S))  # noqa: S311 - no secret
    lamp = LAMP_PIN + door
    level = int(board.level("pin", lamp) == 0)
    waited_ns = _waited_ns(board.pid)
    with board.outputs() as outputs:
        set_ns = time.time_ns()
        board.set_pin(DOOR_PIN + door, level)
        moved_ns = time.time_ns()
        output = await _moved(outputs, lamp, level)
    if output is None:
        edges.missed += 1
        return True
    # Where the board took the core to answer, the output came before the benchmark went on.
    if set_ns + _STOOD_NS < moved_ns < output.at_ns:
        return False
    took_ms = (output.at_ns - set_ns) / 1e6
    edges.times_ms.append(took_ms)
    # What it has waited since the output does not count; the counter does not say when.
    edges.waited_ms.append(min(took_ms, (_waited_ns(board.pid) - waited_ns) / 1e6))
    return True


async def _moved(outputs: AsyncIterator[Output], pin: int, level: int) -> Output | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_MISSED_S):
            async for output in outputs:
                if (output.number, output.value) == (pin, level):
                    return output
    return None


def _waited_ns(pid: int | None) -> int:
    """How long a process could have run and had no core, so far (`/proc/PID/schedstat`)."""
    # A board that restarts has no process for a moment; a kernel may be built without the file.
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1])
    return 0
