"""One action: the durable record of a command from its acceptance to its outcome."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Literal

from nervus.wire import Address, encode, unix_ms
from nervus.wire.contracts import (
    CommandRequest,
    EfferentCommandPayload,
    Outcome,
)

Stage = Literal["accepted", "dispatched", "acknowledged", "finished"]
Status = Literal["succeeded", "failed", "rejected", "expired", "cancelled"]


@dataclass(frozen=True, slots=True)
class Request:
    """A command request with the identity that its topic proves."""

    address: Address
    message: CommandRequest
    principal: str

    @property
    def action_id(self) -> str:
        """The idempotency key."""
        return self.address.levels["action_id"]

    @property
    def digest(self) -> str:
        """SHA-256 of who asks for what: equal for a repeat, whenever it was made."""
        payload = self.message.payload.model_dump(by_alias=True, exclude_none=True)
        levels = [self.address.levels["scope_level"], self.address.levels["scope"]]
        content = json.dumps([self.principal, levels, payload], sort_keys=True)
        return sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Action:
    """A row of the actions table; times are unix milliseconds, None where not reached.

    `order` is what the device is to do, None for a request that was refused. `published` says that
    the broker has acknowledged the outcome. `late_status` is what the device reported, otherwise
    than the outcome, after it.
    """

    action_id: str
    digest: str
    principal: str
    scope_level: str
    scope: str
    priority: str
    trace_id: str
    request_id: str
    request_span_id: str
    device_id: str
    actuator: str
    order: EfferentCommandPayload | None
    offline: Literal["wait", "refuse"]
    deadline_at_ms: int
    requested_ms: int
    accepted_ms: int
    stage: Stage = "accepted"
    dispatched_ms: int | None = None
    acknowledged_ms: int | None = None
    finished_ms: int | None = None
    outcome: Outcome | None = None
    published: bool = False
    late_status: str | None = None
    late_ms: int | None = None

    @property
    def open(self) -> bool:
        """Whether it has no outcome yet."""
        return self.stage != "finished"

    @property
    def lineage(self) -> dict[str, Any]:
        """The metadata that every message about this action carries on."""
        return {
            "action_id": self.action_id,
            "principal": self.principal,
            "priority": self.priority,
            "trace_id": self.trace_id,
            "parent_id": self.request_id,
            "parent_span_id": self.request_span_id,
        }


def to_row(action: Action) -> dict[str, Any]:
    """An action as plain values; the messages in it as JSON."""
    row = {field.name: getattr(action, field.name) for field in fields(action)}
    order, outcome = row.pop("order"), row["outcome"]
    row["command"] = (
        None if order is None else order.model_dump_json(by_alias=True, exclude_none=True)
    )
    row["outcome"] = None if outcome is None else encode(outcome).decode()
    return row


def of_row(row: Mapping[str, Any]) -> Action:
    """The action of what `to_row` gave."""
    values = dict(row)
    command, outcome = values.pop("command"), values["outcome"]
    values["order"] = (
        None if command is None else EfferentCommandPayload.model_validate_json(command)
    )
    values["outcome"] = None if outcome is None else Outcome.model_validate_json(outcome)
    values["published"] = bool(values["published"])
    return Action(**values)


def accepted(request: Request, order: EfferentCommandPayload | None, now_ms: int) -> Action:
    """The record of a new action, accepted at `now_ms`; `order` is None where it is refused.

    `deadline_ms` counts from the request's production.
    """
    meta, payload = request.message.meta, request.message.payload
    requested_ms = unix_ms(meta.produced_at)
    return Action(
        action_id=request.action_id,
        digest=request.digest,
        principal=request.principal,
        scope_level=request.address.levels["scope_level"],
        scope=request.address.levels["scope"],
        priority=meta.priority,
        trace_id=meta.trace_id,
        request_id=meta.message_id,
        request_span_id=meta.span_id,
        device_id=payload.target.device_id,
        actuator=payload.target.actuator,
        order=order,
        offline=payload.offline or "wait",
        deadline_at_ms=requested_ms + (meta.deadline_ms or 0),
        requested_ms=requested_ms,
        accepted_ms=now_ms,
    )
