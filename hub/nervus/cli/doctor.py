"""`nervus doctor`: what is wrong with this machine, and what to do."""

import logging
from typing import Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nervus.cli.log import sessions_at
from nervus.cli.options import State
from nervus.runtime.doctor import examine
from nervus.runtime.finding import Finding, Verdict

_STYLES: Final = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILURE: "bold red"}


def doctor(state: State) -> None:
    """Check programs, settings, ports, certificates, permissions, disk, clock and brokers.

    The exit code is 1 when something must be put right, else 0.

    [bold]Examples[/bold]

      nervus doctor

      nervus doctor --state /tmp/house
    """
    # What the brokers answer becomes findings; the log would say it a second time.
    with sessions_at(logging.CRITICAL):
        findings = examine(state)
    Console().print(_table(findings))
    failed = any(finding.verdict is Verdict.FAILURE for finding in findings)
    raise typer.Exit(1 if failed else 0)


def _table(findings: list[Finding]) -> Table:
    table = Table("", "what", box=None, pad_edge=False)
    for title in ("found", "to do"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        style = _STYLES[finding.verdict]
        told = (Text(each) for each in (finding.what, finding.found, finding.hint))
        table.add_row(Text(finding.verdict.value, style), *told)
    return table
