"""Edges of inputs, timed until the output follows; among them, edges of the stand alone.

A virtual board's edge passes the benchmark's own sockets, two processes, the machine's scheduler
and, on a virtual machine, the hypervisor's. So every fourth one is followed by one of a second
virtual board that does nothing but let its outputs follow its inputs (`on_board/echo.py`): what
that takes is the stand's. A board has its processor to itself, so where the kernel lets us (root),
both run before everything else here, the benchmark itself comes next, and an edge during which it
stood still is not timed: what it waited between its look at the clock and the edge would count as
the board's.

What no board of its own would take is told from what it works by its processor time, which the
board itself reads as it drives the output (`on_board/timed.py`): *own* is what it computed since
the edge. The kernel counts neither waiting for a core nor what a hypervisor stole from it. Where
the board has let go of its core in between, for a disk or to sleep while an input waits, that is
its own doing: then all counts but what it waited for a core. Both stand in the table: "p50" to
"worst" is what was seen, "own" what is held to the goals, "taken" the most that neither the board
computed nor the kernel kept it waiting.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from nervus.simulator import Output, Toolchain, VirtualBoard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping


DOORS: Final = 12  # so that no rule comes near its most fires a minute
DOOR_PIN: Final = 10
LAMP_PIN: Final = 30
_ON_BOARD: Final = Path(__file__).with_name("on_board")
_LEAST_GAP_S: Final = 0.008
_MOST_GAP_S: Final = 0.012
_ALONE_EVERY: Final = 4
_STOOD_NS: Final = 1_000_000  # setting an input takes some 50,000
_MISSED_S: Final = 10.0  # a machine that stands still for a second misses no edge
_SLEPT: Final = "\nvoluntary_ctxt_switches:"
_OF_A_PROCESS: Final = 2  # CPUCLOCK_SCHED


@dataclass(slots=True)
class Edges:
    """What became of the edges of one board, in milliseconds."""

    times_ms: list[float] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    """What of them the board worked or slept."""
    taken_ms: list[float] = field(default_factory=list)
    """What of them it could have run, on a core that was its own, and did not."""
    slept: int = 0
    """How many of them the board slept in."""
    missed: int = 0
    untimed: int = 0
    """Moved once more: nobody knows when they began, or what the board did just then."""

    def add(self, before: Usage, after: Usage, took_ms: float, output: Output) -> None:
        """Note one that led to an output; `after` may be later than the output."""
        # What it has waited since the output does not count; the counter does not say when.
        waited_ms = min(took_ms, (after.waited_ns - before.waited_ns) / 1e6)
        worked_ms = max(0.0, min(took_ms, (output.used_us * 1_000 - before.used_ns) / 1e6))
        slept = output.slept > before.slept
        self.slept += slept
        own_ms = max(worked_ms, took_ms - waited_ms) if slept else worked_ms
        self.times_ms.append(took_ms)
        self.own_ms.append(own_ms)
        self.taken_ms.append(max(0.0, took_ms - own_ms - waited_ms))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the kernel has counted of a process so far."""

    used_ns: int
    """On a core, without what a hypervisor took."""
    waited_ns: int
    """Ready to run, without a core."""
    slept: int
    """How often it let go of its core by itself."""

    @classmethod
    def read(cls, pid: int | None) -> Self:
        """Of a board that runs; nothing of one that restarts at the moment."""
        with suppress(OSError):
            schedstat = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii")
            slept = _slept(pid)
            # The clock of another process has a number (clock_getcpuclockid(3)).
            used_ns = time.clock_gettime_ns(~(pid or 0) << 3 | _OF_A_PROCESS)
            return cls(used_ns, int(schedstat.split()[1]), slept)
        return cls(0, 0, 0)


@asynccontextmanager
async def program(main: str, **changes: Any) -> AsyncIterator[Toolchain]:
    """The firmware tree with `on_board/MAIN` in place of its main.py.

    Args:
        main: The program.
        changes: Fields of the Toolchain, such as form and heap.
    """
    with _tree({"main.py": _ON_BOARD / main}) as (found, tree):
        yield replace(found, firmware=tree, **changes)


@asynccontextmanager
async def timed(main: Path | None = None) -> AsyncIterator[Toolchain]:
    """The firmware tree, or another program in it, that times its outputs from within."""
    program = main or Toolchain.locate().firmware / "main.py"
    with _tree({"main.py": _ON_BOARD / "timed.py", "program.py": program}) as (found, tree):
        yield replace(found, firmware=tree)


@contextmanager
def _tree(files: Mapping[str, Path]) -> Iterator[tuple[Toolchain, Path]]:
    found = Toolchain.locate()
    with tempfile.TemporaryDirectory(prefix="nervus-bench-") as folder:
        tree = Path(folder)
        for part in ("lib", "simulator", "boot.py"):
            (tree / part).symlink_to(found.firmware / part)
        for name, file in files.items():
            (tree / name).symlink_to(file)
        yield found, tree


@asynccontextmanager
async def echo(folder: Path) -> AsyncIterator[VirtualBoard]:
    """The stand alone: a board whose every lamp follows its door, and nothing else."""
    async with timed(_ON_BOARD / "echo.py") as toolchain:
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
    before = Usage.read(board.pid)
    with board.outputs() as outputs:
        set_ns = time.time_ns()
        board.set_pin(DOOR_PIN + door, level)
        moved_ns = time.time_ns()
        settled = _slept(board.pid) == before.slept
        output = await _moved(outputs, lamp, level)
    if output is None:
        edges.missed += 1
        return True
    # Where the board took the core to answer, the output came before the benchmark went on.
    if set_ns + _STOOD_NS < moved_ns < output.at_ns:
        return False
    # It went to sleep as the door moved: a sleep before the edge looks like one after it.
    if not settled and moved_ns < output.at_ns:
        return False
    edges.add(before, Usage.read(board.pid), (output.at_ns - set_ns) / 1e6, output)
    return True


async def _moved(outputs: AsyncIterator[Output], pin: int, level: int) -> Output | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_MISSED_S):
            async for output in outputs:
                if (output.number, output.value) == (pin, level):
                    return output
    return None


def _slept(pid: int | None) -> int:
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(status.partition(_SLEPT)[2].split()[0])
    return 0
