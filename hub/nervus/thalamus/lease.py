"""The lease on a scope: one gatekeeper at a time, each with a higher epoch than the one before.

What the gatekeeper asks of the store, and what the store answers; `lease_store` is the store.
"""

from dataclasses import dataclass

Scope = tuple[str, str]
"""scope_level and scope."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Asks the store for leases, or to renew them.

    Args:
        scopes: On what.
        holder: The gatekeeper's identity.
        start: Tells its starts apart.
        now_ms: When it asks, unix milliseconds.
        until_ms: Until when it wants them.
    """

    scopes: tuple[Scope, ...]
    holder: str
    start: str
    now_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The store's answer for one scope; `epoch` is None when another holds it."""

    scope: Scope
    epoch: int | None
    until_ms: int


@dataclass(frozen=True, slots=True)
class Leases:
    """The store's answer to a claim."""

    leases: tuple[Lease, ...]
