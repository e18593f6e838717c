"""`nervus topics`: every topic there is, and what a topic or dotted name is in the other form."""

import json
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nervus.errors import UsageError
from nervus.wire.dotted import dotted, undotted
from nervus.wire.plain import plain
from nervus.wire.topic_parser import is_legacy, parse
from nervus.wire.topics import TOPICS


def topics(
    name: Annotated[
        str,
        typer.Argument(
            show_default=False, help="A topic or dotted name, or a row's, for its other form."
        ),
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
        fields = [
            {"topic": s.template, "dotted": s.dotted, "contract": s.contract, "brokers": s.brokers}
            for s in TOPICS
        ]
        typer.echo(json.dumps(fields))
        return
    _show([(s.template, s.dotted, s.contract, ", ".join(s.brokers)) for s in TOPICS])


def _show(rows: Sequence[tuple[str, ...]]) -> None:
    # With a blank on either side of each column.
    width = sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        # For a program a row is a line.
        console.width = width
    if console.width < width:
        # A name that is cut off is none, and one in pieces is hard to read.
        for template, *others in rows:
            console.print(template, markup=False)
            console.print("   ", *others, style="dim", markup=False)
        return
    table = Table("topic", "dotted name", "contract", "on", box=None)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def _other_form(name: str) -> str:
    address = parse(name) if name.startswith("/") else undotted(name)
    if address is not None:
        return dotted(address) if name.startswith("/") else address.topic
    hint = "nervus topics lists what there is"
    for spec in TOPICS:
        # As they are listed, or with the names of the levels that have to follow.
        whole = ".".join((spec.dotted, *(f"{{{each}}}" for each in spec.variables)))
        if name == spec.template:
            return whole
        if name in (spec.dotted, whole):
            return spec.template
        if name.startswith(f"{spec.dotted}."):
            hint = f"this one is {whole}"
    if is_legacy(name):
        hint = "after the first two levels comes event or state, as nervus topics lists them"
    raise UsageError(f"{plain(name)!r} is no topic", hint=hint)
