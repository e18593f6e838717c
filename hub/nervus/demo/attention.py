"""What the demo has seen of attention: gates, what became of content there, alerts. No I/O."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class GateView:
    """A gate as it was last published."""

    inhibition: float
    mode: str
    until_s: float

    @property
    def shut(self) -> bool:
        """Whether nothing rises."""
        return self.inhibition >= 1


@dataclass(frozen=True, slots=True)
class LevelView:
    """An alert or arousal as it was last told."""

    state: str
    level: float
    half_life_ms: int | None
    at_s: float

    def at(self, now_s: float) -> float:
        """What is left of it: half after each half-life."""
        if self.half_life_ms is None:
            return self.level
        return float(self.level * 0.5 ** (1000 * max(0.0, now_s - self.at_s) / self.half_life_ms))


@dataclass(slots=True)
class Attention:
    """Gates by scope and target, levels by scope and name, and what was counted of both."""

    gates: dict[tuple[str, str], GateView] = field(default_factory=dict)
    levels: dict[str, LevelView] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    shut: int = 0
    expired: int = 0
    flowing_again: int = 0
    highest_alert: float = 0.0
    lowest_alert_after: float | None = None
    _awaited: set[tuple[str, str]] = field(default_factory=set)

    def gated(self, now_s: float, scope: str, target: str, gate: GateView) -> None:
        """Take a gate."""
        self.expire(now_s)
        before = self.gates.get((scope, target))
        if gate.shut and not (before and before.shut):
            self.shut += 1
        self.gates[scope, target] = gate
        self._awaited.discard((scope, target))

    def decided(self, now_s: float, decision: Any) -> None:
        """Take a RouteDecision's payload."""
        self.expire(now_s)
        self.decisions[decision.decision] += 1
        self.reasons.update(decision.reason_codes or ())
        *_, scope, _, channel = (decision.input_ref.source_topic or "").split("/")
        if decision.allowed and (scope, channel) in self._awaited:
            self._awaited.discard((scope, channel))
            self.flowing_again += 1

    def told(self, name: str, level: LevelView) -> None:
        """Take an alert or arousal."""
        self.levels[name] = level
        if name.endswith("alert"):
            if level.level >= self.highest_alert:
                self.highest_alert, self.lowest_alert_after = level.level, None
            else:
                after = self.lowest_alert_after
                self.lowest_alert_after = level.level if after is None else min(after, level.level)

    def expire(self, now_s: float) -> None:
        """Forget gates whose time ran out; those that inhibited are counted."""
        for key in [key for key, gate in self.gates.items() if gate.until_s <= now_s]:
            gate = self.gates.pop(key)
            self.expired += gate.inhibition > 0
            if gate.shut:
                self._awaited.add(key)

    def report(self) -> dict[str, Any]:
        """The part of the machine-readable summary."""
        return {
            "gates_shut": self.shut,
            "gates_expired": self.expired,
            "flowing_again_after_expiry": self.flowing_again,
            "contests_won": self.reasons["won"],
            "contests_lost": self.reasons["outcompeted"],
            "reasons": dict(self.reasons),
            "highest_alert": self.highest_alert,
            "lowest_alert_after": self.lowest_alert_after,
        }
