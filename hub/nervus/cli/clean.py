"""`nervus clean`: retained messages that nobody stands for."""

import asyncio
import json
import logging
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from nervus.cli.log import sessions_at
from nervus.cli.options import AsJson, State
from nervus.runtime.clean import Found
from nervus.runtime.clean import clean as clean_brokers
from nervus.runtime.identity import Authority
from nervus.runtime.orphans import Orphan
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder
from nervus.wire.plain import plain

IDENTITY: Final = "clean"
"""As whom the command connects; the hub itself cleans as `cleaner`."""


def clean(
    state: State,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Erase them; else they are shown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the brokers retain that nobody stands for, or erase it.

    That is what identities left that were revoked or are unknown, states that expired, events that
    were retained, and what an older version wrote. The brokers have to run. Without --yes nothing
    is changed.

    [bold]Examples[/bold]

      nervus clean

      nervus clean --yes
    """
    folder = StateFolder.open(state)
    settings = Settings.load(folder.settings_file)
    authority = Authority.create(folder)
    # While rights are lent and taken back, the broker denies what is tried too early.
    with sessions_at(logging.ERROR):
        found = asyncio.run(clean_brokers(folder, settings, authority, IDENTITY, erase=yes))
    if as_json:
        lines = [_fields(one) for one in found.orphans]
        typer.echo(json.dumps({"retained": found.retained, "orphans": lines, "erased": yes}))
        return
    _tell(found, erased=yes)


def _tell(found: Found, *, erased: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not found.orphans:
        console.print(f"[bold green]Clean.[/] {found.retained} retained messages, each in order.")
        return
    table = Table("broker", "topic", "because", "", box=None, pad_edge=False)
    for one in found.orphans:
        fields = _fields(one)
        table.add_row(*(plain(fields[name]) for name in ("broker", "topic", "code", "reason")))
    console.print(table, markup=False)
    number = len(found.orphans)
    if erased:
        console.print(f"[bold green]Erased[/] {number} of {found.retained} retained messages.")
    else:
        console.print(
            f"{number} of {found.retained} retained messages; erase them: nervus clean --yes"
        )


def _fields(one: Orphan) -> dict[str, str]:
    return {
        "broker": one.packet.broker,
        "topic": one.packet.topic,
        "code": one.reason_code,
        "reason": one.reason,
    }
