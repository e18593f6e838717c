"""Actuators, orders to them, and what a ledger makes of these."""

import copy
import json
from typing import Any

from contract.vectors import VALID
from nervus.wire.contracts import CONTRACTS
from spinal.efferent import Decision, Ledger
from spinal.ticks import MASK

NOW = 1_790_000_000_000
START = MASK - 400
HEATER = {"id": "heater", "type": "bool", "boot": False, "max_on_ms": 5000}
LAMP = {"id": "lamp", "type": "number", "boot": 0.25, "min": 0, "max": 1}
BELL = {"id": "bell", "type": "bool", "boot": False, "on_loss": {"off_after_ms": 700}}
ACTUATORS = [HEATER, LAMP, BELL]


def meta(action_id: str = "A1", **fields: Any) -> dict[str, Any]:
    return {"action_id": action_id, "t_ms": NOW, "clk": "hub", "deadline_ms": 1000, **fields}


def order(actuator: str = "heater", **step: Any) -> dict[str, Any]:
    return {"actuator": actuator, **(step or {"set": True})}


def ask(
    ledger: Ledger,
    payload: dict[str, Any] | None = None,
    *,
    action_id: str = "A1",
    retained: bool = False,
    synced: bool = True,
    now_ms: int | None = NOW,
    **fields: Any,
) -> Decision:
    decision = ledger.command(
        meta(action_id, **fields), payload or order(), retained, synced, now_ms, START
    )
    valid_report(decision.report)
    return decision


def valid_report(payload: dict[str, Any]) -> None:
    message = copy.deepcopy(VALID["EfferentReport"][1])
    message["payload"] = payload
    CONTRACTS["EfferentReport"].model_validate(message)


def rebooted(ledger: Ledger, **more: Any) -> Ledger:
    return Ledger(ACTUATORS, json.loads(json.dumps(ledger.stored())), **more)


def outputs(effects: list[Any]) -> list[tuple[Any, ...]]:
    return [effect[1:] for effect in effects if effect[0] == "output"]


def reports(effects: list[Any]) -> list[tuple[str, str, str]]:
    found = []
    for effect in effects:
        if effect[0] == "report":
            valid_report(effect[3])
            found.append((effect[1], effect[2], effect[3]["status"]))
    return found
