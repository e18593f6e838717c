"""`tools/bench hub`: brainstem, thalamus, store and commands, in process and on real brokers."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from benchmarks import in_process, pressure, round_trips, sustained
from benchmarks.machine import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from benchmarks.table import Row


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Cores first, then rates, then latencies."""
    return await measure_parts(("cores", *_ON_BROKERS), quick, tell)


async def measure_parts(
    parts: Collection[str],
    quick: bool,  # noqa: FBT001 - as `measure`
    tell: Callable[[str], None],
) -> list[Row]:
    """Some of the table: cores, or what needs brokers."""
    rows = []
    if "cores" in parts:
        rows += in_process.cores(quick, tell)
        rows += in_process.flat(quick, tell)
        rows += await in_process.store(quick, tell)
    with nullcontext("quick") if quick else undisturbed() as how:
        for name, measure_part in _ON_BROKERS.items():
            if name in parts:
                measured = await measure_part(quick, tell)
                rows += [replace(row, note=f"{row.note}; {how}") for row in measured]
    return rows


_ON_BROKERS: Final = {
    "sustained": sustained.measure,
    "urgent": round_trips.measure,
    "pressure": pressure.measure,
}
