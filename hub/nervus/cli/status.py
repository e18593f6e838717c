"""`nervus status`: what runs."""

import json
import time

import typer
from rich.console import Console
from rich.table import Table

from nervus.cli.options import AsJson, State
from nervus.errors import NervusError
from nervus.runtime.state import StateFolder
from nervus.runtime.status import read_status
from nervus.wire.plain import plain


class NotRunningError(NervusError):
    """No supervisor runs on this state folder."""


def status(
    state: State,
    *,
    as_json: AsJson = False,
) -> None:
    """Show brokers and services: how long they run, how often they restarted, what ails them.

    The exit code is 0 when all of them serve and none says that it suffers, else 1.

    [bold]Examples[/bold]

      nervus status

      nervus status --json
    """
    folder = StateFolder.open(state)
    current = read_status(folder)
    if current is None:
        raise NotRunningError("nothing runs here", where=str(folder.path), hint="start: nervus up")
    children = current["children"]
    if as_json:
        typer.echo(json.dumps(current))
    else:
        table = Table("name", "state", "pid", "for", "restarts", "recoveries", box=None)
        for child in children:
            seconds = max(0, int(time.time() - child["since"]))
            table.add_row(
                child["name"],
                child["state"],
                str(child["pid"] or ""),
                f"{seconds} s",
                str(child["restarts"]),
                str(child["recoveries"]),
            )
        console = Console(highlight=False, soft_wrap=True)
        console.print(table)
        for child in children:
            if child["trouble"]:
                console.print(f"{child['name']}: {plain(child['trouble'])}", markup=False)
    well = all(child["state"] == "ready" and not child["trouble"] for child in children)
    raise typer.Exit(0 if well else 1)
