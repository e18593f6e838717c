"""The command tree, and how an expected error reaches the person at the terminal.

A command's module is imported when it is called: what one command needs, another need not wait for.
"""

import errno
import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from typer.core import TyperGroup

from nervus.about import NAME, TAGLINE, VERSION
from nervus.errors import NervusError

COMMANDS: Final = {
    "up": (
        "nervus.cli.system:up",
        "Start brokers and services, and keep them running until Ctrl-C.",
    ),
    "run": (
        "nervus.cli.system:run",
        "Run services in the foreground, beside brokers that are up.",
    ),
    "status": (
        "nervus.cli.status:status",
        "Show brokers and services: how long they run, how often they restarted, what ails them.",
    ),
    "rejects": (
        "nervus.cli.rejects:rejects",
        "Show what was refused: how often for each reason, and the last ones in full.",
    ),
    "clean": (
        "nervus.cli.clean:clean",
        "Show what the brokers retain that nobody stands for, or erase it.",
    ),
    "history": (
        "nervus.cli.history:history",
        "Show what went over the core plane, in the order it was recorded.",
    ),
    "replay": (
        "nervus.cli.replay:replay",
        "Run what was recorded again, as it was or with other settings, and show the difference.",
    ),
    "topics": (
        "nervus.cli.topics:topics",
        "List every topic with its dotted name and contract, or turn one name into the other.",
    ),
    "doctor": (
        "nervus.cli.doctor:doctor",
        "Check programs, settings, ports, certificates, permissions, disk, clock and brokers.",
    ),
    "demo": (
        "nervus.demo:command",
        "Watch a simulated house: real firmware, real brokers, live view.",
    ),
    "identity issue": (
        "nervus.cli.identity:issue",
        "Let a part or board join: a certificate, and rights on both brokers at once.",
    ),
    "identity revoke": (
        "nervus.cli.identity:revoke",
        "Shut a part or board out, at once and for good; brokers that run restart for it.",
    ),
    "identity list": (
        "nervus.cli.identities:list_identities",
        "List who takes part, in which role, and until when, and who was revoked.",
    ),
    "update key": (
        "nervus.cli.update:key",
        "Create the key that signs updates, and print what boards have to know of it.",
    ),
    "update pack": (
        "nervus.cli.update:pack",
        "Compile the firmware, and sign it as one file for `nervus update send`.",
    ),
    "update send": (
        "nervus.cli.update:send",
        "Bring a pack to boards and watch until each runs it, or says why not.",
    ),
    "update status": (
        "nervus.cli.update_status:status",
        "Show what every board runs, and how far each roll-out is.",
    ),
    "update stop": (
        "nervus.cli.update:stop",
        "Stop a roll-out: who fetches gets no more, what is on trial ends its trial.",
    ),
}
"""Where each command is, and the first line of its own help."""

GROUPS: Final = {
    "identity": "Issue and revoke certificates, list who takes part.",
    "update": (
        "Bring a version of the firmware to boards: signed, a few first, taken back by itself."
    ),
}
"""Of commands with two words, what the first is about."""


_OF_THE_MACHINE: Final = {
    errno.EACCES: "run this as the user whom it belongs to",
    errno.EPERM: "run this as the user whom it belongs to",
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room: this user's share of the disk is used up",
    errno.EROFS: "its disk may only be read: was it full of errors? `dmesg` tells",
    errno.EIO: "its disk fails: copy the state folder away, `dmesg` tells more",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
}
"""What no program can mend by itself, and what to do."""


class _Commands(TyperGroup):
    """Knows of each command no more than its line of help, until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        words = f"{self.name} {name}" if self.name in GROUPS else name
        return name, _loaded(words) if words in COMMANDS else command, rest


def _group(help_: str, epilog: str | None = None) -> typer.Typer:
    return typer.Typer(
        cls=_Commands,
        help=help_,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app: Final = _group(
    f"{NAME}: {TAGLINE}",
    "First steps: nervus doctor, then nervus up, then nervus status in another terminal.",
)


def _not_loaded() -> None:
    raise AssertionError("the command itself is called")


_groups: Final = {name: _group(about) for name, about in GROUPS.items()}
for _words, (_, _line) in COMMANDS.items():
    _first, _, _name = _words.rpartition(" ")
    _groups.get(_first, app).command(_name, help=_line)(_not_loaded)
for _first, _commands in _groups.items():
    app.add_typer(_commands, name=_first)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"{NAME} {VERSION}")


def _version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Nothing but `--version` is for all commands."""


def main() -> None:
    """Run the command line; expected errors become one message and an exit code."""
    try:
        app()
    except NervusError as error:
        _explain(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        what = (error.strerror or "").lower()
        where = str(error.filename or "")
        _explain(NervusError(what, where=where, hint=_OF_THE_MACHINE[error.errno]))
        sys.exit(NervusError.exit_code)


def _loaded(words: str) -> Any:
    """Return a command itself."""
    module, _, attribute = COMMANDS[words][0].partition(":")
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(words.rsplit(maxsplit=1)[-1])(getattr(import_module(module), attribute))
    return typer.main.get_command(alone)


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
