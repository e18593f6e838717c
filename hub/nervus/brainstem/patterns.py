"""Fast patterned responses: when one is asked for, and what became of the request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nervus.brainstem.agenda import Agenda
from nervus.brainstem.broadcast import Broadcaster
from nervus.brainstem.scope import Scope
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.tuning import ScopeKey
from nervus.brainstem.window import Summary
from nervus.wire import Accepted, Mint, Publish, Rejected, refuse, topics, unix_ms
from nervus.wire.contracts import Feature, PatternRequest, PatternRequestPayload, Scalar
from nervus.wire.registries import patterns


@dataclass(frozen=True, slots=True)
class Condition:
    """One line of a pattern's `when`: what a feature of a closed window has to show."""

    pattern: str
    sensor_type: str
    field: str
    above: float | None = None
    below: float | None = None
    equals: Scalar | None = None
    critical: bool = False

    def holds(self, feature: Feature, salience: float, *, critical: bool) -> bool:
        """Whether it holds for a feature of its sensor type."""
        if self.critical and not critical:
            return False
        value = _field(self.field, feature, salience)
        if self.equals is not None:
            return type(value) is type(self.equals) and value == self.equals
        if value is None or isinstance(value, str):
            return False
        return value > self.above if self.above is not None else value < (self.below or 0)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One entry of the registry of patterns."""

    name: str
    recommendation: str
    deadline_ms: int
    cooldown_ms: int
    alert: float
    triggers: frozenset[str]


@dataclass(slots=True)
class PatternCounters:
    """What became of patterns."""

    requested: int = 0
    cooling: int = 0
    crowded: int = 0
    accepted: int = 0
    completed: int = 0
    refused: int = 0
    failed: int = 0
    recommended: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class _Why:
    """Why a pattern is asked for, how urgently, and by when an answer is wanted.

    Of a bundle just told the message is read only when it is asked for: most find the pattern
    cooling.
    """

    pattern: Pattern
    reason: str
    urgency: float
    deadline_ms: int
    cause: Accepted | Publish


Waiting = tuple[ScopeKey, str]


class Patterns:
    """Asks for a pattern and follows the answer; carries out nothing itself.

    A pattern is asked for when a feature of a live window meets a condition of the registry, with
    the signal's salience as urgency (1 when the window is critical), or when a trigger-source names
    one of its triggers; in each scope at most once in its cooldown. The alert of the scope rises to
    alert · urgency. The request carries the pattern's default recommendation, which stands if
    nobody answers in time; the first `completed`, `refused`, `failed` or recommendation of another
    thing to do ends it. Every end is counted.
    """

    def __init__(
        self, settings: BrainstemSettings, mint: Mint, agenda: Agenda, broadcaster: Broadcaster
    ) -> None:
        self.counters = PatternCounters()
        self._settings = settings
        self._mint = mint
        self._agenda = agenda
        self._broadcaster = broadcaster
        self._patterns: dict[str, Pattern] = {}
        self._conditions: dict[str, list[Condition]] = {}
        self._cooling: set[Waiting] = set()
        self._waiting: dict[str, Waiting] = {}
        for name, entry in patterns().items():
            self._declare(name, entry)

    def __len__(self) -> int:
        return len(self._waiting)

    def inspect(
        self, scope: Scope, summary: Summary, bundle: Publish, now_ms: int
    ) -> list[Publish]:
        """Look for patterns in what a scope has just told by `bundle`; one request for each."""
        effects: list[Publish] = []
        for feature, salience in zip(summary.features, summary.saliences, strict=True):
            for condition in self._conditions.get(feature.sensor_type, ()):
                if condition.holds(feature, salience, critical=summary.critical):
                    why = _Why(
                        self._patterns[condition.pattern],
                        f"{condition.sensor_type} {condition.field}",
                        1.0 if summary.critical else salience,
                        self._patterns[condition.pattern].deadline_ms,
                        bundle,
                    )
                    effects += self._ask(scope, why, now_ms)
        return effects

    def trigger(self, scope: Scope, event: Accepted, now_ms: int) -> Sequence[Publish | Rejected]:
        """Take a PatternTrigger: its publisher may trigger, which causes it may name is data."""
        meta, payload = event.message.meta, event.message.payload
        pattern = self._patterns[payload.pattern_type]
        if payload.trigger not in pattern.triggers:
            reason = f"{pattern.name} has no trigger {payload.trigger!r}: see registries/patterns"
            return [refuse(event, "unknown_name", "apply", reason)]
        left_ms = unix_ms(meta.produced_at) + meta.deadline_ms - now_ms
        if left_ms <= 0:
            return [refuse(event, "expired", "apply", f"its deadline was {-left_ms} ms ago")]
        deadline_ms = min(left_ms, pattern.deadline_ms)
        why = _Why(pattern, payload.trigger, payload.urgency, deadline_ms, event)
        return self._ask(scope, why, now_ms)

    def respond(self, event: Accepted) -> Sequence[Rejected]:
        """Take a PatternResponse."""
        levels, payload = event.address.levels, event.message.payload
        whose = (levels["scope_level"], levels["scope"]), payload.pattern_type
        if self._waiting.get(payload.request_id) != whose:
            reason = f"no request {payload.request_id} waits here: answered, late or never made"
            return [refuse(event, "expired", "apply", reason)]
        outcome = payload.status or "recommended"
        setattr(self.counters, outcome, getattr(self.counters, outcome) + 1)
        if outcome != "accepted":
            del self._waiting[payload.request_id]
        return []

    def _declare(self, name: str, entry: dict[str, Any]) -> None:
        triggers = frozenset(entry["triggers"]) | frozenset(self._settings.triggers.get(name, ()))
        self._patterns[name] = Pattern(
            name, entry["recommendation"], entry["deadline_ms"], entry["cooldown_ms"],
            entry["alert"], triggers,
        )  # fmt: skip
        for line in entry["when"]:
            condition = Condition(name, **line)
            self._conditions.setdefault(condition.sensor_type, []).append(condition)

    def _ask(self, scope: Scope, why: _Why, now_ms: int) -> list[Publish]:
        pattern = why.pattern
        whose = scope.key, pattern.name
        if whose in self._cooling:
            self.counters.cooling += 1
            return []
        if len(self._waiting) >= self._settings.request_limit:
            self.counters.crowded += 1
            return []
        self.counters.requested += 1
        request_id = self._mint.id(now_ms)
        self._cooling.add(whose)
        self._waiting[request_id] = whose
        self._agenda.put(now_ms + pattern.cooldown_ms, self._cool, whose)
        self._agenda.put(now_ms + why.deadline_ms, self._give_up, request_id)
        payload = PatternRequestPayload(
            request_id=request_id,
            pattern_type=pattern.name,
            recommendation=pattern.recommendation,
            urgency=why.urgency,
        )
        request = self._mint.full(
            PatternRequest,
            topics.pattern_request(*scope.key, pattern.name),
            payload,
            now_ms,
            cause=why.cause.message,
            deadline_ms=why.deadline_ms,
            priority="critical",
        )
        alert = self._broadcaster.raise_alert(
            scope,
            pattern.alert * why.urgency,
            f"{pattern.name}: {why.reason}",
            now_ms,
            request.message,
        )
        return [request, *alert]

    def _cool(self, whose: Waiting, now_ms: int) -> Sequence[Publish]:  # noqa: ARG002 - an action
        self._cooling.discard(whose)
        return []

    def _give_up(self, request_id: str, now_ms: int) -> Sequence[Publish]:  # noqa: ARG002 - as above
        if self._waiting.pop(request_id, None) is not None:
            self.counters.unanswered += 1
        return []


def _field(name: str, feature: Feature, salience: float) -> Scalar | None:
    if name == "salience":
        return salience
    if name == "drift":
        if feature.mean is None or feature.moving_average is None:
            return None
        return abs(feature.mean - feature.moving_average)
    value: Scalar | None = getattr(feature, name)
    return value
