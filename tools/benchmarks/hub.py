"""`tools/bench hub`: brainstem, thalamus, store and commands, in process and on real brokers."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import in_process, pressure, round_trips, sustained
from benchmarks.machine import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.table import Row


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Cores first, then rates, then latencies."""
    rows = in_process.cores(quick, tell)
    rows += in_process.flat(quick, tell)
    rows += await in_process.store(quick, tell)
    with nullcontext("quick") if quick else undisturbed() as how:
        measured = await sustained.measure(quick, tell)
        measured += await round_trips.measure(quick, tell)
        measured += await pressure.measure(quick, tell)
    return rows + [replace(row, note=f"{row.note}; {how}") for row in measured]
