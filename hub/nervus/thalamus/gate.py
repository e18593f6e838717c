"""The gate algebra: from the gates a message meets to what becomes of it. Pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Decision = Literal["pass", "attenuate", "aggregate", "drop"]
Priority = Literal["control", "critical", "normal", "background"]
Mode = Literal["multi", "winner_take_all", "passthrough"]

DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""From the most to the least that passes."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the algebra changes its mind, by inhibition 0..1.

    Args:
        attenuate: Below it everything passes.
        aggregate: Below it k messages of each window pass.
        drop: Below it messages are merged to one a second; from it on nothing passes.
    """

    attenuate: float = 0.3
    aggregate: float = 0.8
    drop: float = 1.0


@dataclass(frozen=True, slots=True)
class Gate:
    """A living gate: what the gatekeeper decided for one selector."""

    inhibition: float
    mode: Mode = "multi"


# A tuple, since one is made for each driver.
class Verdict(NamedTuple):
    """What becomes of a message, under which inhibition, and why; `contest`: winner takes all."""

    decision: Decision
    inhibition: float
    reasons: tuple[str, ...]
    contest: bool = False


def judge(
    priority: Priority,
    gates: Iterable[Gate],
    *,
    gatekeeper: bool,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """The verdict on a message that meets these living gates.

    The highest inhibition counts; a gate in mode passthrough inhibits nothing. Control and critical
    messages pass every gate. Without a living gate everything passes where there is no gatekeeper;
    where there is one, what it decided is unknown: the rest is aggregated, never suppressed.
    """
    met = tuple(gates)
    if not met:
        if priority in ("control", "critical"):
            return _BYPASS
        return _NO_GATE if gatekeeper else _NO_GATEKEEPER
    limits = thresholds or _DEFAULT
    inhibition = max(map(_inhibition, met))
    if priority in ("control", "critical"):
        return Verdict("pass", inhibition, ("critical_bypass",))
    decision = _decide(inhibition, limits)
    contest = any(gate.mode == "winner_take_all" for gate in met) and decision != "drop"
    return Verdict(decision, inhibition, ("gate",), contest)


_DEFAULT = Thresholds()
_BYPASS = Verdict("pass", 0.0, ("critical_bypass",))
_NO_GATE = Verdict("aggregate", 0.0, ("no_gate",))
_NO_GATEKEEPER = Verdict("pass", 0.0, ("no_gatekeeper",))


def _inhibition(gate: Gate) -> float:
    return 0.0 if gate.mode == "passthrough" else gate.inhibition


def _decide(inhibition: float, limits: Thresholds) -> Decision:
    if inhibition < limits.attenuate:
        return "pass"
    if inhibition < limits.aggregate:
        return "attenuate"
    if inhibition < limits.drop:
        return "aggregate"
    return "drop"
