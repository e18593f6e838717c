"""Why a gate stands as it does: proposals and modes, combined by a stated policy. Pure."""

from dataclasses import dataclass, field
from math import fsum
from typing import Final

from nervus.thalamus.gate import Mode
from nervus.thalamus.settings import ModeRule
from nervus.wire.times import NEVER

POLICY: Final = "additive"
"""GateState.policy_id: inhibition = clamp(base + sum of suppress - sum of boost), set overrides."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A boost (negative weight) or suppression (positive) that fades to nothing at its end."""

    weight: float
    start_ms: int
    end_ms: int

    def weight_at(self, now_ms: int) -> float:
        """What is left of it: linear from its start to its end."""
        left_ms = max(0, self.end_ms - now_ms)
        return self.weight * min(1.0, left_ms / (self.end_ms - self.start_ms))


@dataclass(frozen=True, slots=True)
class Override:
    """A set_inhibition; the newest stands until its end."""

    inhibition: float
    end_ms: int


@dataclass(slots=True)
class Reasons:
    """Everything that speaks for and against one selector.

    Args:
        base: Inhibition while nobody says anything.
        mode: How channels compete, likewise.
        standing: Whether the gate is kept without any other reason.
        proposals: The newest of each source and intent: repeating oneself is not shouting.
        override: The newest set_inhibition.
        rules: What the scope's mode asks.
        rules_end_ms: Until when.
    """

    base: float = 0.0
    mode: Mode = "multi"
    standing: bool = False
    proposals: dict[tuple[str, str], Proposal] = field(default_factory=dict)
    override: Override | None = None
    rules: tuple[ModeRule, ...] = ()
    rules_end_ms: int = NEVER

    def forget(self, now_ms: int) -> None:
        """Drop what has ended."""
        for key in [k for k, one in self.proposals.items() if one.end_ms <= now_ms]:
            del self.proposals[key]
        if self.override is not None and self.override.end_ms <= now_ms:
            self.override = None
        if self.rules_end_ms <= now_ms:
            self.rules = ()

    @property
    def alive(self) -> bool:
        """Whether anything speaks for a gate."""
        return bool(self.standing or self.proposals or self.override or self.rules)

    @property
    def fades(self) -> bool:
        """Whether the inhibition changes by time alone."""
        return self.override is None and bool(self.proposals)

    @property
    def ends_ms(self) -> int:
        """When the last reason for the present inhibition ends; call `forget` before."""
        if self.override is not None:
            return self.override.end_ms
        if self.standing:
            return NEVER
        ends = [one.end_ms for one in self.proposals.values()]
        return max([*ends, self.rules_end_ms] if self.rules else ends, default=0)

    @property
    def changes_ms(self) -> int:
        """When the first reason ends; call `forget` before."""
        ends = [one.end_ms for one in self.proposals.values()]
        ends += [self.override.end_ms] if self.override is not None else []
        ends += [self.rules_end_ms] if self.rules else []
        return min(ends, default=NEVER)

    def inhibition(self, now_ms: int) -> float:
        """The policy: clamp(base + Σ suppress - Σ boost); the newest set_inhibition overrides.

        A mode's own set_inhibition takes the place of the base. The sum does not depend on the
        order of what is summed.
        """
        if self.override is not None:
            return self.override.inhibition
        base, weights = self.base, []
        for rule in self.rules:
            if rule.inhibition is not None:
                base = rule.inhibition
            else:
                strength = rule.strength or 0.0
                weights.append(strength if rule.intent == "suppress" else -strength)
        weights += [one.weight_at(now_ms) for one in self.proposals.values()]
        return min(1.0, max(0.0, fsum([base, *weights])))

    @property
    def gate_mode(self) -> Mode:
        """How channels compete: as the mode asks, else as the gate stands."""
        asked = [rule.gate_mode for rule in self.rules if rule.gate_mode is not None]
        return asked[-1] if asked else self.mode
