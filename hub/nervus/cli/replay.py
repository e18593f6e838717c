"""`nervus replay`: yesterday again, and with another parameter."""

import json
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from nervus.bus import JournalRun
from nervus.cli.moments import moment
from nervus.cli.options import State, output_folder
from nervus.runtime.divergence import Divergence, Saying
from nervus.runtime.replay import (
    PLANES,
    ReplayError,
    Verified,
    change,
    diverge,
    replayed,
    runs,
    verify,
    within,
)
from nervus.runtime.state import StateFolder

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_COLUMNS: Final = 60
_CUT: Final = 160


def replay(
    state: State,
    *,
    from_: Annotated[
        str, typer.Option("--from", metavar="TIME", help="A date, or how long ago: 15m, 2h, 3d.")
    ] = "1h",
    to: Annotated[str, typer.Option("--to", metavar="TIME", help="Strictly before it.")] = "now",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Change this.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each plane's output log there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    r"""Run what was recorded again, as it was or with other settings, and show the difference.

    Needs journals: `enabled = true` under \[journal] in nervus.toml. A plane runs from its start,
    so that it knows what it knew then; only what came of the range is compared. Exit code 1: the
    recorded run could not be repeated exactly.

    [bold]Examples[/bold]

      nervus replay --from 15m

      nervus replay --from 2026-11-20T08:00 --to 2026-11-20T09:00 --set thalamus.aggregate_ms=5000
    """
    from_ms, to_ms = moment("--from", from_), moment("--to", to)
    if from_ms >= to_ms:
        raise ReplayError("the range ends before it begins", hint="exchange --from and --to")
    changes: dict[str, dict[str, Any]] = {}
    for table, key, value in (change(text) for text in set_ or ()):
        changes.setdefault(table, {})[key] = value
    folder = StateFolder.open(state)
    found = _found(folder, from_ms, to_ms)
    if out is not None:
        _write_logs(output_folder(out), found, from_ms, to_ms)
    began = time.monotonic()
    if changes:
        _show_divergences(diverge(found, from_ms, to_ms, changes), as_json=as_json)
        return
    verified = [verify(plane, found[plane], from_ms, to_ms) for plane in found]
    _show_verified(verified, time.monotonic() - began, as_json=as_json)
    raise typer.Exit(1 if any(one.differed for one in verified) else 0)


def _found(folder: StateFolder, from_ms: int, to_ms: int) -> dict[str, list[JournalRun]]:
    found = {plane: runs(folder, plane, from_ms, to_ms) for plane in PLANES}
    found = {plane: journals for plane, journals in found.items() if journals}
    if not found:
        raise ReplayError(
            "no plane journalled anything in this range",
            where=str(folder.data / "journal"),
            hint="set enabled = true under [journal] in nervus.toml, or name another range",
        )
    return found


def _write_logs(out: Path, found: dict[str, list[JournalRun]], from_ms: int, to_ms: int) -> None:
    for plane, journals in found.items():
        with (out / f"{plane}.log").open("wb") as log:
            for run in journals:
                for one in within(replayed(run), from_ms, to_ms):
                    log.write(one.lines())


def _show_verified(verified: list[Verified], seconds: float, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in verified]))
        return
    table = Table("plane", "inputs", "outputs", "as then", "otherwise", "", box=None)
    for one in verified:
        remarks = [] if one.exact else ["some inputs are missing"]
        remarks += ["recorded by another program"] if one.other_code else []
        remarks += [f"first at input {one.first}"] if one.first is not None else []
        cells = (one.inputs, one.outputs, one.agreed, one.differed)
        table.add_row(one.plane, *(f"{cell:,}" for cell in cells), ", ".join(remarks))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"in {seconds:.1f} s", style="dim")


def _show_divergences(divergences: dict[str, Divergence], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({name: _plain(one) for name, one in divergences.items()}))
        return
    console = Console(highlight=False, soft_wrap=True)
    for plane, one in divergences.items():
        a, b = one.sent
        console.print(
            f"[bold]{plane}[/]: {one.inputs:,} inputs, {a:,} messages as it was, {b:,} otherwise, "
            f"{one.same:,} the same"
        )
        if one.first is None:
            console.print("  the runs do not differ")
            continue
        table = Table("what", "as it was", "otherwise", "", box=None)
        for kind, counts in sorted(one.kinds.items()):
            table.add_row(kind, *map(str, counts), f"{counts[1] - counts[0]:+}")
        console.print(table)
        for label, row in zip(("as it was", "otherwise", "differs"), _picture(one), strict=True):
            console.print(f"  {label:10}{row}", markup=False)
        console.print("  first difference", style="bold")
        for label, saying in zip(("as it was", "otherwise"), one.first, strict=True):
            console.print(f"  {label:10}{_line(saying)}", markup=False)


def _plain(one: Divergence) -> dict[str, Any]:
    return {
        "inputs": one.inputs,
        "sent": one.sent,
        "same": one.same,
        "kinds": one.kinds,
        "first": one.first and [saying and asdict(saying) for saying in one.first],
        "seconds_that_differ": sum(second.differs for second in one.seconds.values()),
        "seconds": len(one.seconds),
    }


def _picture(one: Divergence) -> list[str]:
    """Three rows over the range: how much each run sent, and where they differ."""
    first, last = min(one.seconds), max(one.seconds)
    columns = min(_COLUMNS, last - first + 1)
    counts = [[0, 0] for _ in range(columns)]
    differs = [False] * columns
    for at, second in one.seconds.items():
        column = (at - first) * columns // (last - first + 1)
        differs[column] |= second.differs
        for side in (0, 1):
            counts[column][side] += second.counts[side]
    most = max(max(pair) for pair in counts)
    rows = [
        "".join(_BLOCKS[-(-pair[side] * (len(_BLOCKS) - 1) // most)] for pair in counts)
        for side in (0, 1)
    ]
    return [*rows, "".join("▲" if here else " " for here in differs)]


def _line(saying: Saying | None) -> str:
    if saying is None:
        return "nothing more"
    at = datetime.fromtimestamp(saying.at_ms / 1000).astimezone()
    text = f"{at:%H:%M:%S}.{saying.at_ms % 1000:03d} {saying.topic} {saying.payload}"
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"
