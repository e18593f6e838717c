"""The reliable core: each accepted action ends in exactly one outcome. No I/O, no clock."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from nervus.reliable.action import Action, Request, Status, accepted, of_row, to_row
from nervus.reliable.effects import Durable, ForgetAction, InsertAction, UpdateAction
from nervus.reliable.messages import Messages
from nervus.reliable.reflexes import Key, ReflexDesk, Rules
from nervus.reliable.registry import Registry
from nervus.reliable.settings import ReliableSettings
from nervus.wire import Accepted, Connected, Mint, Publish, Rejected, Removed, refuse
from nervus.wire.contracts import (
    EfferentCommandPayload,
    EfferentReportPayload,
    ErrorDetail,
    Scalar,
)
from nervus.wire.times import NEVER

Standing = Literal["new", "repeat", "conflict", "overloaded"]
Effect = Durable | Publish | Rejected


@dataclass(frozen=True, slots=True)
class Restored:
    """Event: what is stored of a run before this one, oldest first; see `to_row`."""

    rows: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, actions: Iterable[Action]) -> "Restored":
        """Return the event that tells of actions."""
        return cls(tuple(to_row(action) for action in actions))


@dataclass(frozen=True, slots=True)
class Grants:
    """Event: the scope of each known device, `device_id → (scope_level, scope)`."""

    scopes: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Desired:
    """Event: all desired reflexes."""

    reflexes: Rules
    governed: frozenset[str] = frozenset()
    """Boards whose rules are all told here: what else they keep is removed …"""
    spared: frozenset[Key] = frozenset()
    """… but for these: their files are there and wrong."""


@dataclass(frozen=True, slots=True)
class Published:
    """Event: the broker has acknowledged a message."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Committed:
    """Event: `publishes` may go out, for what they say is durable.

    `action_id` is that of the accepted action, None when there is none.
    """

    action_id: str | None
    publishes: tuple[Publish, ...]

    @property
    def key(self) -> str:
        """What tells it from others; equal ones say the same."""
        ids = [publish.message.meta.message_id for publish in self.publishes]
        return " ".join([self.action_id or "-", *ids])


Event = Accepted | Removed | Connected | Restored | Grants | Desired | Published | Committed


@dataclass(slots=True)
class _Sending:
    """When an action's command is sent again."""

    next_ms: int
    pause_ms: int
    error: ErrorDetail | None = None


class Reliable:
    """The state machine of all actions, the device registry and the desired reflexes.

    Its shell makes the durable effects of a call durable together before it publishes any message
    of the same call. What `accept` returns belongs to policy's transaction: until `Committed` says
    that this is durable, nothing else is published about the action.
    """

    def __init__(self, settings: ReliableSettings, mint: Mint) -> None:
        self._settings = settings
        self._mint = mint
        self._messages = Messages(mint)
        self._registry = Registry()
        self._desk = ReflexDesk(settings.first_retry_ms, settings.last_retry_ms, settings.settle_ms)
        self._grants: dict[str, tuple[str, str]] = {}
        self._actions: dict[str, Action] = {}
        self._sending: dict[str, _Sending] = {}
        self._unpublished: dict[str, _Sending] = {}
        self._outcomes: dict[str, str] = {}
        self._uncommitted: set[str] = set()
        self._kept: dict[str, int] = {}
        self._settled_ms = 0
        self.counters: Counter[str] = Counter()
        """Events by name, since the start."""

    @property
    def due_ms(self) -> int:
        """When something is due next, unix milliseconds; 0 while anything is under way."""
        there = (self._registry.availability(key[0]) == "online" for key in self._desk.pending())
        full = len(self._kept) > self._settings.kept_limit
        if self._sending or self._unpublished or full or any(there):
            return 0
        return next(iter(self._kept.values()), NEVER) + self._settings.kept_ms

    def restore(self, actions: Iterable[Action], now_ms: int) -> list[Effect]:
        """Take up stored actions, oldest first; call once, before anything else.

        Outcomes nobody acknowledged are published, open actions go on.
        """
        self._settled_ms = now_ms + self._settings.settle_ms
        effects: list[Effect] = []
        for action in actions:
            self._actions[action.action_id] = action
            if action.open:
                self._sending[action.action_id] = self._at_once(now_ms)
            elif action.published:
                self._kept[action.action_id] = action.finished_ms or 0
            else:
                effects += self._announce(action, now_ms)
        return effects

    def step(self, event: Event, now_ms: int) -> Sequence[Effect]:
        """Take one event."""
        match event:
            case Accepted():
                return self._taken(event, now_ms)
            case Removed():
                self._removed(event, now_ms)
            case Restored(rows):
                return self.restore([of_row(row) for row in rows], now_ms)
            case Grants(scopes):
                self._grants = dict(scopes)
            case Desired(reflexes, governed, spared):
                self._desk.want(reflexes, governed, spared, now_ms)
            case Published(message_id):
                return self._published(message_id)
            case Committed(action_id, publishes):
                if action_id is not None:
                    self._uncommitted.remove(action_id)
                return publishes
        return []

    def tick(self, now_ms: int) -> list[Effect]:
        """What time demands: dispatch, send again, expire, publish again, forget."""
        effects: list[Effect] = []
        for action_id in self._committed(self._sending):
            effects += self._advance(self._actions[action_id], now_ms)
        for action_id in self._committed(self._unpublished):
            if now_ms >= self._unpublished[action_id].next_ms:
                effects += self._announce(self._actions[action_id], now_ms)
        for key in self._desk.pending():
            effects += self._configure(key, now_ms)
        return effects + self._forget(now_ms)

    def standing(self, request: Request) -> Standing:
        """How a request stands to what is known.

        A repeat is to be given to `answer`, a conflict or overload to `refuse`, a new one to
        `accept`.
        """
        action = self._actions.get(request.action_id)
        if action is not None:
            return "repeat" if action.digest == request.digest else "conflict"
        busy = len(self._sending) + len(self._unpublished)
        return "overloaded" if busy >= self._settings.open_limit else "new"

    def answer(self, request: Request, now_ms: int) -> list[Effect]:
        """Answer a repeat: the stage reached, or the same outcome again."""
        self.counters["repeated"] += 1
        if request.action_id in self._uncommitted:
            # The first answer is on its way.
            return []
        action = self._actions[request.action_id]
        if action.outcome is None:
            return [self._messages.progress(action, now_ms)]
        publish = self._messages.finished(action, action.outcome, now_ms)
        return [publish] if _lives(publish) else []

    def accept(
        self,
        request: Request,
        verdict: EfferentCommandPayload | Sequence[ErrorDetail],
        now_ms: int,
    ) -> list[Effect]:
        """Take a new request: an order where policy allowed it, else its errors.

        An order is accepted and, if its device is there, dispatched; a refusal is an action that
        has ended.
        """
        self._uncommitted.add(request.action_id)
        if not isinstance(verdict, EfferentCommandPayload):
            action = accepted(request, None, now_ms)
            self._actions[action.action_id] = action
            ended, announcement = self._end(action, "rejected", now_ms, verdict)
            return [InsertAction(ended), *announcement]
        self.counters["accepted"] += 1
        action = accepted(request, verdict, now_ms)
        self._actions[action.action_id] = action
        self._sending[action.action_id] = self._at_once(now_ms)
        return [
            InsertAction(action),
            self._messages.progress(action, now_ms),
            *self._advance(action, now_ms),
        ]

    def refuse(self, request: Request, error: ErrorDetail, now_ms: int) -> list[Effect]:
        """Tell the requester why its request became no action; nothing is stored."""
        self.counters["refused"] += 1
        return [self._messages.refused(request, error, now_ms)]

    def _taken(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        message: Any = event.message
        levels = event.address.levels
        device_id = levels["device_id"]
        if device_id not in self._grants:
            self.counters["ungranted"] += 1
            return [refuse(event, "unknown_device", "apply", f"{device_id} has no granted scope")]
        self.counters[event.address.spec.name] += 1
        match event.address.spec.name:
            case "efferent_report":
                return self._reported(event, levels["action_id"], now_ms)
            case "device_status":
                born = self._registry.status(device_id, message)
                return self._born(device_id, now_ms) if born else []
            case "device_info":
                self._registry.info(device_id, message)
            case "ping":
                return self._pinged(device_id, message, now_ms)
            case "reflex_state":
                self._desk.state((device_id, levels["reflex_id"]), message, now_ms)
            case "reflex_report":
                key = (device_id, levels["reflex_id"])
                refusal = self._desk.report(key, message)
                self.counters["reflex_refused"] += refusal is not None
        # A reflex that fired is counted above: brainstem makes something of it.
        return []

    def _removed(self, event: Removed, now_ms: int) -> None:
        device_id = event.address.levels["device_id"]
        if event.address.spec.name == "device_status":
            self._registry.remove_status(device_id)
        elif event.address.spec.name == "device_info":
            self._registry.remove_info(device_id)
        else:  # the third retained state that it takes: reflex_state
            self._desk.state_removed((device_id, event.address.levels["reflex_id"]), now_ms)

    def _born(self, device_id: str, now_ms: int) -> list[Effect]:
        self._desk.born(device_id, now_ms)
        effects: list[Effect] = []
        for action_id in self._committed(self._sending):
            action = self._actions[action_id]
            if action.device_id == device_id:
                # A clean session has lost what was on its way.
                self._sending[action_id] = self._at_once(now_ms)
                effects += self._advance(action, now_ms)
        return effects

    def _pinged(self, device_id: str, message: Any, now_ms: int) -> list[Effect]:
        pong = self._messages.pong(device_id, message, self._grants[device_id], now_ms)
        if self._registry.alive(device_id, message.meta.boot, message.meta.seq):
            return [pong, *self._born(device_id, now_ms)]
        return [pong]

    def _advance(self, action: Action, now_ms: int) -> list[Effect]:
        """Dispatch, send again or end an open action, whichever is due."""
        if action.stage == "accepted":
            return self._dispatch(action, now_ms)
        sending = self._sending[action.action_id]
        if now_ms >= action.deadline_at_ms + self._settings.grace_ms:
            return self._finish(action, "expired", now_ms, [sending.error or _NO_REPORT])
        online = self._registry.availability(action.device_id) == "online"
        if now_ms < sending.next_ms or now_ms >= action.deadline_at_ms or not online:
            return []
        return self._send(action, now_ms)

    def _dispatch(self, action: Action, now_ms: int) -> list[Effect]:
        if now_ms >= action.deadline_at_ms:
            return self._finish(action, "expired", now_ms, [_NOT_SENT])
        if action.device_id not in self._grants:
            return self._finish(action, "rejected", now_ms, [_unknown("device", action.device_id)])
        if self._registry.has_actuator(action.device_id, action.actuator) is False:
            error = _unknown("actuator", f"{action.device_id}/{action.actuator}")
            return self._finish(action, "rejected", now_ms, [error])
        availability = self._registry.availability(action.device_id)
        if availability == "online":
            return self._send(action, now_ms)
        # After a start, retained states need a moment to arrive: no news is not bad news yet.
        heard = availability != "unknown" or now_ms >= self._settled_ms
        if action.offline == "refuse" and heard:
            return self._finish(action, "failed", now_ms, [_offline(action.device_id)])
        return []

    def _send(self, action: Action, now_ms: int) -> list[Effect]:
        grant = self._grants.get(action.device_id)
        if grant is None:
            return []
        sending = self._sending[action.action_id]
        sending.next_ms = now_ms + sending.pause_ms
        sending.pause_ms = min(2 * sending.pause_ms, self._settings.last_retry_ms)
        self.counters["sent"] += 1
        if action.stage != "accepted":
            return [self._messages.efferent(action, grant, now_ms)]
        action = replace(action, stage="dispatched", dispatched_ms=now_ms)
        self._actions[action.action_id] = action
        return [
            UpdateAction(action),
            self._messages.efferent(action, grant, now_ms),
            self._messages.progress(action, now_ms),
        ]

    def _reported(self, event: Accepted, action_id: str, now_ms: int) -> Sequence[Effect]:
        message: Any = event.message
        device_id = event.address.levels["device_id"]
        action = self._actions.get(action_id)
        if action is None:
            # Nothing to tell anybody: it was forgotten, or it is another hub's.
            self.counters["unknown_report"] += 1
            return []
        if action.device_id != device_id or action.order is None:
            self.counters["foreign_report"] += 1
            reason = f"action {action_id} is not for {device_id}"
            return [refuse(event, "identity_mismatch", "apply", reason)]
        if not action.open:
            return self._late(action, message.payload.status, now_ms)
        return self._heard(action, message.payload, now_ms)

    def _heard(self, action: Action, report: EfferentReportPayload, now_ms: int) -> list[Effect]:
        if report.status == "rejected" and report.error and report.error.kind == "retriable":
            # It did not act and may yet, such as a board that waits for the time.
            self.counters["retriable_reject"] += 1
            self._sending[action.action_id].error = report.error
            return []
        if report.status != "acknowledged":
            errors = [report.error] if report.error else []
            return self._finish(action, report.status, now_ms, errors, report.result)
        if action.stage == "acknowledged":
            return []
        action = replace(action, stage="acknowledged", acknowledged_ms=now_ms)
        self._actions[action.action_id] = action
        return [UpdateAction(action), self._messages.progress(action, now_ms)]

    def _late(self, action: Action, status: str, now_ms: int) -> list[Effect]:
        assert action.outcome is not None  # noqa: S101 - it has ended
        ended = action.outcome.payload.status
        if status in ("acknowledged", ended) or action.late_status is not None:
            return []
        self.counters["late_report"] += 1
        action = replace(action, late_status=status, late_ms=now_ms)
        self._actions[action.action_id] = action
        error = _late_report(status, ended)
        return [UpdateAction(action), self._messages.error(action, error, now_ms)]

    def _finish(
        self,
        action: Action,
        status: Status,
        now_ms: int,
        errors: Sequence[ErrorDetail],
        result: Scalar | None = None,
    ) -> list[Effect]:
        ended, announcement = self._end(action, status, now_ms, errors, result)
        return [UpdateAction(ended), *announcement]

    def _end(
        self,
        action: Action,
        status: Status,
        now_ms: int,
        errors: Sequence[ErrorDetail],
        result: Scalar | None = None,
    ) -> tuple[Action, list[Effect]]:
        self.counters[status] += 1
        outcome = self._messages.outcome(action, status, errors, result, now_ms)
        ended = replace(action, stage="finished", finished_ms=now_ms, outcome=outcome)
        self._actions[action.action_id] = ended
        self._sending.pop(action.action_id, None)
        return ended, self._announce(ended, now_ms)

    def _announce(self, action: Action, now_ms: int) -> list[Effect]:
        assert action.outcome is not None  # noqa: S101 - it has ended
        publish = self._messages.finished(action, action.outcome, now_ms)
        message_id = action.outcome.meta.message_id
        self._outcomes[message_id] = action.action_id
        if not _lives(publish):
            self.counters["outcome_outlived"] += 1
            return self._published(message_id)
        sending = self._unpublished.setdefault(action.action_id, self._at_once(now_ms))
        sending.next_ms = now_ms + sending.pause_ms
        sending.pause_ms = min(2 * sending.pause_ms, self._settings.last_retry_ms)
        return [publish]

    def _published(self, message_id: str) -> list[Effect]:
        action_id = self._outcomes.pop(message_id, None)
        if action_id is None:
            return []
        self._unpublished.pop(action_id, None)
        action = replace(self._actions[action_id], published=True)
        self._actions[action_id] = action
        self._kept[action_id] = action.finished_ms or 0
        return [UpdateAction(action)]

    def _configure(self, key: Key, now_ms: int) -> list[Effect]:
        if self._registry.availability(key[0]) != "online":
            return []
        rule = self._desk.due(key, self._registry.boot(key[0]), now_ms)
        if rule is None:
            return []
        self.counters["reflex_sent" if rule.removed is None else "reflex_removal_sent"] += 1
        publish = self._messages.configure(key, rule, self._mint.id(now_ms), now_ms)
        self._desk.sent(key, publish.message.meta.action_id)
        return [publish]

    def _committed(self, action_ids: Iterable[str]) -> list[str]:
        return [action_id for action_id in action_ids if action_id not in self._uncommitted]

    def _at_once(self, now_ms: int) -> _Sending:
        return _Sending(now_ms, self._settings.first_retry_ms)

    def _forget(self, now_ms: int) -> list[Effect]:
        """Forget the oldest finished actions: those too old, and those beyond the limit."""
        forgotten: list[Effect] = []
        while self._kept:
            action_id = next(iter(self._kept))
            too_old = now_ms >= self._kept[action_id] + self._settings.kept_ms
            if not too_old and len(self._kept) <= self._settings.kept_limit:
                break
            del self._kept[action_id], self._actions[action_id]
            forgotten.append(ForgetAction(action_id))
        return forgotten


def _lives(publish: Publish) -> bool:
    return publish.expiry_ms is None or publish.expiry_ms > 0


def _unknown(kind: str, name: str) -> ErrorDetail:
    return ErrorDetail(
        code=f"{kind}_unknown",
        message=f"there is no {kind} {name}",
        kind="terminal",
        category="not_found",
    )


def _offline(device_id: str) -> ErrorDetail:
    return ErrorDetail(
        code="device_offline",
        message=f"{device_id} is not reachable and the request does not wait",
        kind="retriable",
        category="dependency",
    )


def _late_report(status: str, outcome: str) -> ErrorDetail:
    return ErrorDetail(
        code="late_report",
        message=f"the device reported {status} after the outcome {outcome}",
        kind="terminal",
        category="conflict",
    )


_NOT_SENT: Final = ErrorDetail(
    code="deadline_passed",
    message="the device was not reachable before the deadline; nothing was sent",
    kind="retriable",
    category="dependency",
)
_NO_REPORT: Final = ErrorDetail(
    code="deadline_passed",
    message="the device was sent the command and did not report before the deadline",
    kind="retriable",
    category="dependency",
)
