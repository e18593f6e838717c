"""The messages of the reliable plane, built from its records."""

from collections.abc import Sequence
from typing import Literal

from nervus.reliable.action import Action, Request, Status
from nervus.reliable.reflexes import Key
from nervus.wire import Mint, Publish, topics
from nervus.wire.contracts import (
    ActionProgress,
    ActionProgressPayload,
    EfferentCommand,
    ErrorDetail,
    ErrorEvent,
    ErrorEventPayload,
    Outcome,
    OutcomePayload,
    Ping,
    Pong,
    PongPayload,
    ReflexConfigure,
    ReflexConfigurePayload,
    Scalar,
    Timings,
)
from nervus.wire.mint import expiry_ms


class Messages:
    """Builds messages with one mint; the record says trace, principal and address."""

    def __init__(self, mint: Mint) -> None:
        self._mint = mint

    def progress(self, action: Action, now_ms: int) -> Publish:
        """The stage an open action has reached."""
        stage: Literal["accepted", "dispatched", "acknowledged"]
        stage = "accepted" if action.stage == "finished" else action.stage
        return self._mint.full(
            ActionProgress,
            topics.action_progress(action.scope_level, action.scope, action.action_id),
            ActionProgressPayload(stage=stage),
            now_ms,
            **action.lineage,
        )

    def outcome(
        self,
        action: Action,
        status: Status,
        errors: Sequence[ErrorDetail],
        result: Scalar | None,
        now_ms: int,
    ) -> Outcome:
        """The one outcome of an action that ends at `now_ms`."""
        timings = Timings(
            requested_ms=action.requested_ms,
            accepted_ms=action.accepted_ms,
            dispatched_ms=action.dispatched_ms,
            acknowledged_ms=action.acknowledged_ms,
            finished_ms=now_ms,
        )
        publish = self._mint.full(
            Outcome,
            topics.outcome(action.scope_level, action.scope, action.action_id),
            OutcomePayload(status=status, timings=timings, result=result),
            now_ms,
            **action.lineage,
        )
        return Outcome(
            meta=publish.message.meta,
            payload=publish.message.payload,
            errors=list(errors) or None,
        )

    def finished(self, action: Action, outcome: Outcome, now_ms: int) -> Publish:
        """The stored outcome, with what is left of its life."""
        address = topics.outcome(action.scope_level, action.scope, action.action_id)
        return Publish(address, outcome, expiry_ms(outcome.meta, now_ms))

    def efferent(self, action: Action, grant: tuple[str, str], now_ms: int) -> Publish:
        """The command to the device, alive until the action's deadline."""
        assert action.order is not None  # noqa: S101 - only orders are dispatched
        left_ms = action.deadline_at_ms - now_ms
        address = topics.efferent_command(
            *grant, action.actuator, action.device_id, action.action_id
        )
        priority = None if action.priority == "normal" else action.priority
        return self._mint.compact(
            EfferentCommand,
            address,
            action.order,
            now_ms,
            action_id=action.action_id,
            deadline_ms=left_ms,
            ttl_ms=left_ms,
            priority=priority,
        )

    def error(self, action: Action, error: ErrorDetail, now_ms: int) -> Publish:
        """Detail of an error of a recorded action."""
        return self._mint.full(
            ErrorEvent,
            topics.error_event(action.scope_level, action.scope, action.action_id),
            ErrorEventPayload(error=error),
            now_ms,
            **action.lineage,
        )

    def refused(self, request: Request, error: ErrorDetail, now_ms: int) -> Publish:
        """Why a request became no action of its own."""
        levels = request.address.levels
        return self._mint.full(
            ErrorEvent,
            topics.error_event(levels["scope_level"], levels["scope"], request.action_id),
            ErrorEventPayload(error=error),
            now_ms,
            cause=request.message,
            action_id=request.action_id,
            principal=request.principal,
        )

    def configure(
        self, key: Key, rule: ReflexConfigurePayload, action_id: str, now_ms: int
    ) -> Publish:
        """A desired reflex, or the removal of one, to its board."""
        address = topics.reflex_configure(*key)
        return self._mint.compact(ReflexConfigure, address, rule, now_ms, action_id=action_id)

    def pong(self, device_id: str, ping: Ping, grant: tuple[str, str], now_ms: int) -> Publish:
        """The answer to a ping: the hub's time and the granted scope."""
        payload = PongPayload(
            nonce=ping.payload.nonce,
            t0=ping.payload.t0,
            unix_ms=now_ms,
            scope_level=grant[0],  # type: ignore[arg-type] # the guard of grants: a scope level
            scope=grant[1],
        )
        return self._mint.compact(Pong, topics.pong(device_id), payload, now_ms)
