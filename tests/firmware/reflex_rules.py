"""Rules, an engine for them, and what it does: for the tests of the reflex engine."""

from typing import Any

from spinal.actuators import Actuators
from spinal.reflex import Engine, Firing
from spinal.ticks import MASK, later

ACTUATORS = [
    {"id": "heater", "type": "bool", "boot": False},
    {"id": "lamp", "type": "number", "boot": 0, "min": 0, "max": 1},
]
LIMITS = {"sensors": ["temperature", "motion", "light"], "actuators": Actuators(ACTUATORS)}
ON = [{"actuator": "heater", "set": True}]
OFF = [{"actuator": "heater", "set": False}]
ENDS, ENDS_MS = "2026-11-20T20:00:00.000Z", 1_795_204_800_000
COLD = {"sensor": "temperature", "op": "lt", "value": 18}


def rule(when: Any = COLD, **fields: Any) -> dict[str, Any]:
    return {
        "reflex_id": "cold",
        "version": 1,
        "enabled": True,
        "mode": "active",
        "when": when,
        "then": ON,
        **fields,
    }


def engine(*rules: dict[str, Any], **limits: Any) -> Engine:
    made = Engine({**LIMITS, **limits})
    for each in rules:
        assert made.configure(each, 0) == ("applied", None)
    return made


def causes(
    made: Engine, values: list[Any], step_ms: int = 100, start: int = MASK - 250
) -> list[Any]:
    """What one rule on the temperature does with each value in turn."""
    told = []
    for number, value in enumerate(values):
        fired = made.evaluate({"temperature": value}, later(start, number * step_ms))
        told.append(fired[0].cause if fired else None)
    return told


def one(firings: list[Firing]) -> Firing:
    assert len(firings) == 1
    return firings[0]
