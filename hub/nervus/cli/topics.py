"""`nervus topics`: every topic there is, and what a topic or dotted name is in the other form."""

import json
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from nervus.errors import UsageError
from nervus.wire.dotted import dotted, undotted
from nervus.wire.topic_parser import parse
from nervus.wire.topics import TOPICS

_PIPE_WIDTH: Final = 240
"""Columns for a program that reads it: a row is a line."""


def topics(
    name: Annotated[
        str, typer.Argument(show_default=False, help="A topic or dotted name, for its other form.")
    ] = "",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List every topic with its dotted name and contract, or turn one name into the other.

    [bold]Examples[/bold]

      nervus topics

      nervus topics /E/outcome/event/room/kitchen/action/01M7X8PQG0FP793DTR98H6BCFN
    """
    if name:
        typer.echo(_other_form(name))
        return
    if as_json:
        rows = [
            {"topic": s.template, "dotted": s.dotted, "contract": s.contract, "brokers": s.brokers}
            for s in TOPICS
        ]
        typer.echo(json.dumps(rows))
        return
    table = Table(box=None)
    for title in ("topic", "dotted name", "contract", "on"):
        # A name that is cut off is none.
        table.add_column(title, overflow="fold")
    for spec in TOPICS:
        table.add_row(spec.template, spec.dotted, spec.contract, ", ".join(spec.brokers))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(table)


def _other_form(name: str) -> str:
    address = parse(name) if name.startswith("/") else undotted(name)
    if address is None:
        raise UsageError(f"{name!r} is no topic", hint="nervus topics lists what there is")
    return dotted(address) if name.startswith("/") else address.topic
