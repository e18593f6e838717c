"""`nervus rejects`: what was refused, and why."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nervus.cli.options import AsJson, State
from nervus.reflect import Quarantine, Reject
from nervus.runtime.state import StateFolder
from nervus.wire.plain import plain


def rejects(
    state: State,
    *,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many to show.")] = 10,
    as_json: AsJson = False,
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
    if not latest:
        console.print("Nothing was refused yet.")
        return
    console.print(_counts(counts))
    today = datetime.now().astimezone()
    for one in latest:
        console.print(_lines(one, today), no_wrap=True, overflow="ellipsis", soft_wrap=False)


def _counts(counts: dict[str, int]) -> Table:
    table = Table("refused", "because", "", box=None)
    worst = max(counts.values(), default=1)
    for reason, count in counts.items():
        table.add_row(str(count), reason, "▇" * max(1, round(20 * count / worst)))
    return table


def _lines(one: Reject, today: datetime) -> Text:
    at = datetime.fromtimestamp(one.received_ms / 1000).astimezone()
    when = f"{at:%H:%M:%S}" if at.date() == today.date() else f"{at:%Y-%m-%d %H:%M:%S}"
    folded = f", {one.count} times" if one.count > 1 else ""
    who, topic = plain(one.source or "somebody"), plain(one.source_topic or "?")
    indent = " " * 9
    return Text.assemble(
        (f"{when} ", "dim"),
        (one.reason_code, "bold red"),
        f"{folded}: {plain(one.reason or 'no further reason')}\n",
        (f"{indent}{who} on {topic}\n", "dim"),
        (f"{indent}refused by {plain(one.reporter)}, it began {one.sample or ''!r}", "dim"),
    )
