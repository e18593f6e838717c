"""The command tree, and how an expected error reaches the person at the terminal."""

import sys
from typing import Final

import typer
from rich.console import Console

from nervus.about import NAME, TAGLINE, VERSION
from nervus.cli import clean, doctor, history, identity, rejects, replay, status, system, topics
from nervus.errors import NervusError

app: Final = typer.Typer(
    help=f"{NAME}: {TAGLINE}",
    epilog="First steps: nervus doctor, then nervus up, then nervus status in another terminal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(system.up)
app.command("run")(system.run)
app.command("status")(status.status)
app.command("rejects")(rejects.rejects)
app.command("clean")(clean.clean)
app.command("history")(history.history)
app.command("replay")(replay.replay)
app.command("topics")(topics.topics)
app.command("doctor")(doctor.doctor)
app.add_typer(identity.app, name="identity")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"{NAME} {VERSION}")


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Watch a simulated house: real firmware, real brokers, live view."""
    from nervus.demo import command  # noqa: PLC0415  heavy, and no other command needs it

    commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    commands.command()(command)
    commands(context.args, prog_name="nervus demo")


def main() -> None:
    """Run the command line; expected errors become one message and an exit code."""
    try:
        app()
    except NervusError as error:
        _explain(error)
        sys.exit(error.exit_code)


def _explain(error: NervusError) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/]", end=" ")
    console.print(error.what, markup=False)
    if error.where:
        console.print("[bold]where:[/]", end=" ")
        console.print(error.where, markup=False)
    if error.hint:
        console.print("[bold]to do:[/]", end=" ")
        console.print(error.hint, markup=False)
