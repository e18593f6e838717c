"""What the policy core asks to be made durable of one decision."""

from dataclasses import dataclass
from typing import Literal

from nervus.wire import Publish


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """What was decided, about what, for whom.

    `kind` is invocation, regime when the rules themselves changed, or raw when measurements may
    rise, or may no longer; then what belongs to a request is None. `channel` is the surface through
    which the actor came.
    """

    recorded_ms: int
    kind: Literal["invocation", "regime", "raw"]
    source: str
    actor: str
    channel: str
    policy_decision_id: str
    policy_regime_id: str
    allowed: bool
    reason_codes: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    envelope_id: str | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    invocation_id: str | None = None
    parent_invocation_id: str | None = None
    capability_id: str | None = None
    capability_version: str | None = None
    target: str | None = None
    request_digest: str | None = None


@dataclass(frozen=True, slots=True)
class AppendAudit:
    """Effect: append a record, in the transaction of what it decides."""

    record: AuditRecord


@dataclass(frozen=True, slots=True)
class Announce:
    """Effect: keep this message, in the transaction of the decision, until the broker has it."""

    publish: Publish
