"""`tools/bench simulation`: how much faster than real time a simulated house runs."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.table import Goal, Row
from simulation.invariants import Invariants
from simulation.world import CALM, PLAIN, World

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS: Final = 5
_SECONDS: Final = 60
_QUICK_SECONDS: Final = 2
_BOARDS: Final = 7
_GOAL: Final = 1_000


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Both planes with guards and bytes between them, first alone, then with every rule checked."""
    seconds = _QUICK_SECONDS if quick else _SECONDS
    rounds = 1 if quick else _ROUNDS
    tell(f"{rounds} rounds of {seconds} simulated seconds, without and with checks")
    times: dict[str, list[float]] = {"alone": [], "checked": []}
    rate = 0.0
    for number in range(rounds):
        for name, factors in times.items():
            watch = Invariants(PLAIN) if name == "checked" else _nothing
            world = World(number, CALM, watch, settings=PLAIN, boards=_BOARDS, keep=False)
            began = time.process_time()
            world.run(seconds)
            factors.append(seconds / (time.process_time() - began))
            rate = world.samples / seconds
    note = f"{rate:.0f} messages/s, CPU time, bytes judged by the real guards"
    return [
        Row(f"simulation {name}", f"a simulated house, {name}", "times real time",
            {"median": median(factors), "least": min(factors), "most": max(factors)},
            rounds * seconds, (Goal("≥", _GOAL),) if name == "alone" else (), note)
        for name, factors in times.items()
    ]  # fmt: skip


def _nothing(_: object) -> None:
    """Watch without checking."""
