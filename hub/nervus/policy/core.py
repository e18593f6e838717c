"""The policy core: every request is decided, audited and handed on in one step. No I/O."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nervus.policy.capabilities import ArgumentError, Capability, capabilities, order
from nervus.policy.engine import BudgetExceededError, Engine, evaluate
from nervus.policy.raw import RawDesk
from nervus.policy.record import Announce, AppendAudit, AuditRecord
from nervus.policy.rules import Regime
from nervus.policy.settings import PolicySettings
from nervus.reliable import Committed, Reliable, Request, Standing
from nervus.wire import Accepted, Connected, Mint, Publish, topics, unix_ms
from nervus.wire.contracts import (
    Command,
    CommandPayload,
    CommandRequestPayload,
    EfferentCommandPayload,
    ErrorDetail,
)
from nervus.wire.mint import expiry_ms
from nervus.wire.topic_parser import parse

Kind = Literal["terminal", "retriable"]
Category = Literal["conflict", "dependency", "not_found", "policy", "validation"]
Effect = Any
"""AppendAudit, Announce, OpenRaw, the durable effects of reliable, Committed, Publish."""

ACTOR_CHANNEL: Final = "mqtt"
"""The surface through which requests come here, as the audit names it."""


@dataclass(frozen=True, slots=True)
class RegimeChanged:
    """Event: the policy file has been read; None when it is missing or wrong."""

    regime: Regime | None


@dataclass(frozen=True, slots=True)
class Unannounced:
    """Event: what a process before this one decided, stored, and may not have published."""

    messages: tuple[tuple[str, str], ...]
    """Topic and message as JSON, the same message_id."""

    @classmethod
    def of(cls, publishes: Iterable[Publish]) -> "Unannounced":
        """Return the event that tells of stored messages."""
        return cls(tuple((one.address.topic, one.data.decode()) for one in publishes))


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a request; `order` where it is allowed, `error` where not."""

    decision_id: str
    regime_id: str
    reason_code: str
    order: EfferentCommandPayload | None = None
    error: ErrorDetail | None = None
    capability: Capability | None = None
    rule_id: str | None = None

    @property
    def allowed(self) -> bool:
        """Whether it may be done."""
        return self.order is not None


class Policy:
    """Decides every request; deny by default, and whatever goes wrong denies.

    Args:
        settings: Bounds.
        mint: Makes the messages and the decision ids of the identity policy.
        reliable: Takes what was decided; its records and the audit are one transaction.
        engine: Evaluates the rules.
    """

    def __init__(
        self,
        settings: PolicySettings,
        mint: Mint,
        reliable: Reliable,
        engine: Engine = evaluate,
    ) -> None:
        self._settings = settings
        self._mint = mint
        self._reliable = reliable
        self._engine = engine
        self._regime: Regime | None = None
        self._raw = RawDesk(settings, mint)
        self.counters: Counter[str] = Counter()
        """Decisions by reason code, since the start."""

    @property
    def due_ms(self) -> int:
        """When what was allowed ends next, unix milliseconds."""
        return self._raw.due_ms

    def step(
        self, event: Accepted | RegimeChanged | Unannounced | Connected, now_ms: int
    ) -> list[Effect]:
        """Take one event."""
        match event:
            case Accepted():
                return self._requested(event, now_ms)
            case RegimeChanged(regime):
                self._regime = regime
                raw = self._raw.decide(regime.raw if regime else (), self._regime_id, now_ms)
                return [AppendAudit(self._regime_record(now_ms)), *raw]
            case Unannounced(messages):
                return [_again(topic, text, now_ms) for topic, text in messages]
        return []

    def tick(self, now_ms: int) -> list[Effect]:
        """End what was allowed until now; no decision waits."""
        return list(self._raw.tick(now_ms))

    def invoke(self, request: CommandRequestPayload, principal: str, now_ms: int) -> Decision:
        """Decide whether `principal`, as proven, may invoke what it requests. Never raises."""
        decision_id = self._mint.id(now_ms)
        try:
            return self._decide(decision_id, request, principal)
        except BudgetExceededError as error:
            return self._denied(decision_id, "policy_timeout", str(error))
        except Exception as error:  # noqa: BLE001 - fail closed: whatever breaks the engine denies
            return self._denied(decision_id, "engine_error", f"the engine failed: {error!r}")

    def _decide(self, decision_id: str, request: CommandRequestPayload, principal: str) -> Decision:
        if self._regime is None:
            return self._denied(decision_id, "policy_unavailable", "no valid policy is loaded")
        ruling = self._engine(self._regime, request, principal, self._settings.budget)
        if not ruling.allowed:
            return self._denied(
                decision_id, ruling.reason_code, ruling.message, rule_id=ruling.rule_id
            )
        capability = capabilities().get(request.capability)
        if capability is None:
            message = f"there is no capability {request.capability}"
            return self._denied(decision_id, "capability_unknown", message, category="not_found")
        try:
            command = order(capability, request)
        except ArgumentError as error:
            return self._denied(decision_id, "arguments_invalid", str(error), category="validation")
        return Decision(
            decision_id, self._regime.id, ruling.reason_code, command, None, capability,
            ruling.rule_id,
        )  # fmt: skip

    def _denied(
        self,
        decision_id: str,
        reason_code: str,
        message: str,
        *,
        category: Category = "policy",
        rule_id: str | None = None,
    ) -> Decision:
        # Trying again changes a decision about as little as asking louder; load is another matter.
        kind: Kind = "retriable" if category == "dependency" else "terminal"
        error = ErrorDetail(code=reason_code, message=message[:256], kind=kind, category=category)
        return Decision(decision_id, self._regime_id, reason_code, error=error, rule_id=rule_id)

    @property
    def _regime_id(self) -> str:
        return self._regime.id if self._regime else "none"

    def _requested(self, event: Accepted, now_ms: int) -> list[Effect]:
        message: Any = event.message
        request = Request(event.address, message, event.address.levels["identity"])
        standing = self._reliable.standing(request)
        if standing == "repeat":
            publishes = self._reliable.answer(request, now_ms)
            return [Committed(None, _publishes(publishes))] if publishes else []
        if standing == "new":
            decision = self.invoke(message.payload, request.principal, now_ms)
            taken = self._reliable.accept(request, decision.order or (_error(decision),), now_ms)
        else:
            decision = self._not_taken(standing, now_ms)
            taken = self._reliable.refuse(request, _error(decision), now_ms)
        self.counters[decision.reason_code] += 1
        committed = Committed(request.action_id if standing == "new" else None, _publishes(taken))
        durable = [effect for effect in taken if not isinstance(effect, Publish)]
        record = self._record(request, decision, now_ms)
        effects: list[Effect] = [AppendAudit(record), *durable, committed]
        if decision.allowed:
            command = self._command(request, decision, now_ms)
            effects += [Announce(command), command]
        return effects

    def _not_taken(self, standing: Standing, now_ms: int) -> Decision:
        decision_id = self._mint.id(now_ms)
        if standing == "conflict":
            message = "this action_id belongs to another request; draw a new one"
            return self._denied(decision_id, "action_id_conflict", message, category="conflict")
        message = "too many actions are open; repeat the request later"
        return self._denied(decision_id, "overloaded", message, category="dependency")

    def _command(self, request: Request, decision: Decision, now_ms: int) -> Publish:
        """What observers see of an allowed request: its principal is the proven one."""
        asked, meta = request.message.payload, request.message.meta
        levels = request.address.levels
        channel = decision.capability.channel if decision.capability else ""
        address = topics.command(levels["scope_level"], levels["scope"], channel, request.action_id)
        payload = CommandPayload(
            capability=asked.capability,
            target=asked.target,
            arguments=asked.arguments,
            decision_id=decision.decision_id,
            channel=channel,
            offline=asked.offline,
        )
        deadline_at_ms = unix_ms(meta.produced_at) + (meta.deadline_ms or 0)
        return self._mint.full(
            Command,
            address,
            payload,
            now_ms,
            cause=request.message,
            principal=request.principal,
            action_id=request.action_id,
            deadline_ms=max(0, deadline_at_ms - now_ms),
        )

    def _record(self, request: Request, decision: Decision, now_ms: int) -> AuditRecord:
        meta, asked = request.message.meta, request.message.payload
        return AuditRecord(
            recorded_ms=now_ms,
            kind="invocation",
            source=meta.source,
            actor=request.principal,
            channel=ACTOR_CHANNEL,
            policy_decision_id=decision.decision_id,
            policy_regime_id=decision.regime_id,
            allowed=decision.allowed,
            reason_codes=_reasons(decision),
            envelope_id=meta.message_id,
            trace_id=meta.trace_id,
            parent_id=meta.parent_id,
            invocation_id=request.action_id,
            capability_id=asked.capability,
            capability_version=decision.capability.version if decision.capability else None,
            target=f"{asked.target.device_id}/{asked.target.actuator}",
            request_digest=request.digest,
        )

    def _regime_record(self, now_ms: int) -> AuditRecord:
        return AuditRecord(
            recorded_ms=now_ms,
            kind="regime",
            source=self._mint.source,
            actor=self._mint.source,
            channel="file",
            policy_decision_id=self._mint.id(now_ms),
            policy_regime_id=self._regime_id,
            allowed=self._regime is not None,
            reason_codes=("regime_loaded" if self._regime else "policy_unavailable",),
        )


def _again(topic: str, text: str, now_ms: int) -> Publish:
    address, message = parse(topic), Command.model_validate_json(text)
    assert address is not None  # noqa: S101 - we have published it there before
    return Publish(address, message, expiry_ms(message.meta, now_ms))


def _publishes(effects: Sequence[Effect]) -> tuple[Publish, ...]:
    return tuple(effect for effect in effects if isinstance(effect, Publish))


def _error(decision: Decision) -> ErrorDetail:
    assert decision.error is not None  # noqa: S101 - whatever is not allowed says why
    return decision.error


def _reasons(decision: Decision) -> tuple[str, ...]:
    if decision.rule_id is None:
        return (decision.reason_code,)
    return (decision.reason_code, f"rule:{decision.rule_id}")
