"""`nervus update status`: what boards run, and how far roll-outs are."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from nervus.cli import update_view
from nervus.cli.options import AsJson, State
from nervus.runtime.state import StateFolder
from nervus.updates import read_record


def status(
    state: State,
    *,
    last: Annotated[int, typer.Option(min=1, max=100, help="How many roll-outs to show.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show what every board runs, and how far each roll-out is.

    [bold]Examples[/bold]

      nervus update status

      nervus update status --last 10 --json
    """
    folder = StateFolder.open(state)
    stored = read_record(folder.data)
    shown = [rollout.update_id for rollout in stored.rollouts[-last:]]
    if as_json:
        boards = {each.device_id: asdict(each) for each in stored.seen}
        rollouts = [update_view.fields(stored, update_id) for update_id in shown]
        typer.echo(json.dumps({"boards": boards, "rollouts": rollouts}))
        return
    console = Console(highlight=False, soft_wrap=True)
    update_view.show_boards(console, stored)
    for update_id in shown:
        update_view.show_rollout(console, stored, update_id)
