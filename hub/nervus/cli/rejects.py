"""`nervus rejects`: what was refused, and why."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nervus.cli.options import State
from nervus.reflect import Quarantine, Reject
from nervus.runtime.state import StateFolder


def rejects(
    state: State,
    *,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what was refused: how often for each reason, and the last ones in full.

    [bold]Examples[/bold]

      nervus rejects

      nervus rejects --last 100 --json
    """
    folder = StateFolder.open(state)
    with Quarantine.open(folder.data / "reflect.db") as quarantine:
        counts, latest = quarantine.counts(), quarantine.latest(last)
    if as_json:
        typer.echo(json.dumps({"counts": counts, "latest": [asdict(one) for one in latest]}))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(_counts(counts))
    for one in latest:
        console.print(_lines(one), no_wrap=True, overflow="ellipsis", soft_wrap=False)


def _counts(counts: dict[str, int]) -> Table:
    table = Table("refused", "because", "", box=None)
    worst = max(counts.values(), default=1)
    for reason, count in counts.items():
        table.add_row(str(count), reason, "▇" * max(1, round(20 * count / worst)))
    return table


def _lines(one: Reject) -> Text:
    at = time.strftime("%H:%M:%S", time.localtime(one.received_ms / 1000))
    folded = f", {one.count} times" if one.count > 1 else ""
    return Text.assemble(
        (f"{at} ", "dim"),
        (one.reason_code, "bold red"),
        f"{folded}: {one.reason or 'no further reason'}\n",
        (f"         {one.source or 'somebody'} on {one.source_topic or '?'}\n", "dim"),
        (f"         refused by {one.reporter}, it began {one.sample or ''!r}", "dim"),
    )
