"""`nervus identity list`: who takes part."""

from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from nervus.cli.options import State
from nervus.runtime.identity import Authority
from nervus.runtime.state import StateFolder


def list_identities(state: State) -> None:
    """List who takes part, in which role, and until when, and who was revoked.

    [bold]Examples[/bold]

      nervus identity list

      nervus identity list --state /tmp/house
    """
    folder = StateFolder.open(state)
    authority = Authority.create(folder)
    table = Table("name", "role", "scope", "expires", "remark", box=None, pad_edge=False)
    for identity in authority.identities():
        days = (identity.not_after - datetime.now(UTC)).days
        table.add_row(
            identity.name,
            identity.role or "(broker)",
            identity.scope or "",
            f"{identity.not_after:%Y-%m-%d} ({days} days)",
            authority.problem(identity) or "",
        )
    for gone in authority.revoked():
        table.add_row(
            gone.name,
            gone.role,
            gone.scope or "",
            f"{gone.not_after:%Y-%m-%d}",
            f"revoked on {gone.revoked_at:%Y-%m-%d}",
        )
    Console(soft_wrap=True).print(table)
