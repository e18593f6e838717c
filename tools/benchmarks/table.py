"""The table a benchmark ends with: what, measured, goal, met or not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.machine import Machine

_WIDTH = 160
_WHAT_WIDTH = 56
_VALUES_A_LINE = 3
_GOAL_WIDTH = 24
_WHOLE_FROM = 1_000
_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: ""}


@dataclass(frozen=True, slots=True)
class Goal:
    """What one of a row's values is held to."""

    relation: Literal["≤", "≥"]
    limit: float
    value: str = "median"

    def met(self, measured: float) -> bool:
        """Whether `measured` keeps to it."""
        return measured <= self.limit if self.relation == "≤" else measured >= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        name: What a program that reads the JSON knows it by.
        what: What was measured, for people.
        unit: Of all values.
        values: By what they are (median, p99 …), in the order they are shown.
        count: How many single measurements or messages they come from.
        goals: What they are held to; none for what only stands beside another row.
        note: What one must know to read it.
    """

    name: str
    what: str
    unit: str
    values: dict[str, float]
    count: int
    goals: tuple[Goal, ...] = ()
    note: str = ""
    met: bool | None = field(init=False)

    def __post_init__(self) -> None:
        met = [goal.met(self.values[goal.value]) for goal in self.goals]
        object.__setattr__(self, "met", all(met) if met else None)


def show(name: str, machine: Machine, rows: Sequence[Row], *, quick: bool) -> None:
    """Print the table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(f"\n[bold]{name}[/]  {machine.line()}", highlight=False)
    if quick:
        console.print("[yellow]quick: too few repeats to say anything[/]", highlight=False)
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("what", min_width=_WHAT_WIDTH)
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("goal", max_width=_GOAL_WIDTH)
    table.add_column("met", justify="center")
    for row in rows:
        what = f"{row.what} [dim]({row.note})[/]" if row.note else row.what
        values = [f"{key} {_number(value)}" for key, value in row.values.items()]
        lines = range(0, len(values), _VALUES_A_LINE)
        measured = "\n".join(", ".join(values[at : at + _VALUES_A_LINE]) for at in lines)
        goals = "\n".join(f"{g.value} {g.relation} {_number(g.limit)}" for g in row.goals)
        table.add_row(what, measured, row.unit, f"{row.count:,}", goals, _MARKS[row.met])
    console.print(table, highlight=False)
    if any(row.met is False for row in rows):
        console.print(
            "[dim]absolute numbers move ± 40 % with whatever else runs here: "
            "repeat on an idle machine before believing a ✗[/]",
            highlight=False,
        )


def write_json(
    path: Path, name: str, machine: Machine, rows: Sequence[Row], *, quick: bool
) -> None:
    """Write the table for a program to read."""
    content: dict[str, Any] = {
        "benchmark": name,
        "quick": quick,
        "machine": asdict(machine),
        "rows": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float) -> str:
    if abs(value) >= _WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.3g}"
