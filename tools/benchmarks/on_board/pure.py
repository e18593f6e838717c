"""Runs on the virtual board's MicroPython: what rules and messages cost, as one JSON object.

Started as `micropython pure.py REPEATS`. What else runs on the machine swings times by 40 % and
lasts for many rounds, so rounds are short, and the quickest one says what the work itself takes:
nothing makes it quicker than it is.
"""

import gc
import json
import sys
import time
from array import array

from spinal.clock import Clock
from spinal.envelope import Envelope
from spinal.ids import MessageIds
from spinal.reflex import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LOOPS = 20
_A_SECOND_MS = 1009  # so most digits of a message's time change
_HEAP_LOOPS = 50
_VALUES = {"temperature": 20.5}
_COLD = {"sensor": "temperature", "op": "lt", "value": 18}

ticks_us = time.ticks_us
ticks_diff = time.ticks_diff
mem_alloc = gc.mem_alloc


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1])
    clock = Clock()
    clock.pong(dict(clock.ping(0), unix_ms=1790000000000), 0)
    envelope = Envelope("porch-1", 12, MessageIds(bytes(range(10))), clock)
    binary = Envelope("porch-1", 12, MessageIds(bytes(range(10))), clock, "cbor")

    def afferent(number: int) -> object:
        return envelope.afferent("temperature", 21.37, "Cel", _A_SECOND_MS * number, 10000)

    def compact(number: int) -> object:
        return binary.afferent("temperature", 21.37, "Cel", _A_SECOND_MS * number, 10000)

    def switched(number: int) -> object:
        return envelope.afferent("door", number & 1 > 0, None, _A_SECOND_MS * number, 10000)

    def fire() -> bytes:
        payload = {
            "version": 1,
            "inputs": {"door": True},
            "actions": ["lamp=true"],
            "dry_run": False,
        }
        return envelope.build("ReflexFire", payload, 160, 86400000, "0" * 26, None, "critical")

    calls = {
        "afferent": afferent,
        "afferent switch": switched,
        "afferent CBOR": compact,
        "nothing": lambda number: number,
        "rule of 8": _evaluation(1, _largest()),
    }
    for rules in (0, 1, 32):
        calls[f"rules {rules}"] = _evaluation(rules, _COLD)
    sizes = {
        "AfferentSignal": len(bytes(afferent(1))),
        "ReflexFire": len(fire()),
        "CBOR": len(bytes(compact(1))),
    }
    print(json.dumps({"costs": _costs(calls, repeats), "sizes": sizes}))


def _largest() -> "dict[str, Any]":
    """A condition as large as the contract takes: 8 comparisons, three deep, all of them busy."""
    leaf = {"sensor": "temperature", "op": "gt", "value": 18, "hysteresis": 2, "for_ms": 1}
    between = {"sensor": "temperature", "op": "between", "values": [3, 30], "for_ms": 1000}
    parts = [{"not": leaf}, {"not": between}, leaf, {"not": leaf}]
    return {"any": [{"all": parts}, {"all": parts}]}


def _evaluation(rules: int, when: "dict[str, Any]") -> "Callable[[int], Any]":
    engine = Engine()
    for number in range(rules):
        rule = {
            "reflex_id": f"r{number}",
            "version": 1,
            "enabled": True,
            "mode": "active",
            "when": when,
            "then": [{"actuator": "heater", "set": True}],
        }
        status, problem = engine.configure(rule, 0)
        if status != "applied":
            raise ValueError(f"rule {number}: {problem}")
    return lambda number: engine.evaluate(_VALUES, number)


def _costs(calls: "dict[str, Callable[[int], Any]]", repeats: int) -> "dict[str, dict[str, float]]":
    """Median and least µs, and bytes of heap, of one call of each; they take turns."""
    times = {name: array("H") for name in calls}
    for _ in range(repeats):
        gc.collect()
        for name, call in calls.items():
            began = ticks_us()
            for number in range(_LOOPS):
                call(number)
            times[name].append(ticks_diff(ticks_us(), began))
    costs = {}
    for name, call in calls.items():
        took = sorted(times.pop(name))
        costs[name] = {
            "median": took[len(took) // 2] / _LOOPS,
            "least": took[0] / _LOOPS,
            "bytes": _heap_used(call),
        }
    return costs


def _heap_used(call: "Callable[[int], Any]") -> float:
    gc.collect()
    gc.disable()
    before = mem_alloc()
    for number in range(_HEAP_LOOPS):
        call(number)
    used = mem_alloc() - before
    gc.enable()
    return used / _HEAP_LOOPS


main()
