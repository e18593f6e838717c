"""Runs on the virtual board's MicroPython: what the board's loop leaves on the heap.

Started as `micropython drift.py CYCLES`, with a control channel; prints the heap in use after each
tenth of the cycles as a JSON list: collected, without what waits for the link. An input moves in
every eighth cycle, its rule fires, messages are built, and there is no network. A cycle is 40 ms of
the board's time, however long it takes, and a minute comes before the first count: until then a
rule's list of its fires of the last minute grows.
"""

import gc
import json
import sys

from control import channel

from spinal import compat, node
from spinal.runtime import Runtime
from spinal.ticks import MASK

_SENSORS, _ACTUATORS, _PIN = 8, 4, 10
_PARTS = 10
_MOVE_EVERY = 8
_WAITING = 16384
_CYCLE_MS = 40
_WARM_UP = 2000


def main() -> None:
    """Measure and print."""
    cycles = int(sys.argv[1])
    channel.wifi = False
    # Nobody reads the outputs of this board.
    channel.output = lambda *_record: None
    turn = 0
    compat.ticks = lambda: turn * _CYCLE_MS & MASK
    board = Runtime(_node())
    for number in range(_SENSORS):
        status, problem = board.engine.configure(_rule(number), board.ticks_ms)
        if status != "applied":
            raise ValueError(f"rule {number}: {problem}")
    board.upkeep.start()
    # Of its full length from the start: a list that grows is on the heap that is measured.
    used = [0] * (1 + _PARTS)
    for count in range(1 + _PARTS):
        for _ in range(cycles // _PARTS if count else _WARM_UP):
            turn += 1
            if not turn % _MOVE_EVERY:
                move = turn // _MOVE_EVERY
                channel.pins[_PIN + move % _SENSORS] = move // _SENSORS & 1
            board.step()
        # What waits differs in number and length from time to time: it is no drift.
        while board.outbox.shrink():
            pass
        board.outbox.allow(_WAITING)
        gc.collect()
        used[count] = gc.mem_alloc()
    print(json.dumps(used[1:]))


def _node() -> dict:
    return node.check(
        {
            "device_id": "m1",
            "scope_level": "room",
            "scope": "kitchen",
            "broker": {"host": "127.0.0.1", "port": 1883},
            "sensors": [
                {"id": f"door-{n}", "driver": "digital", "pin": _PIN + n} for n in range(_SENSORS)
            ],
            "actuators": [
                {"id": f"lamp-{n}", "driver": "digital", "pin": 30 + n, "boot": 0}
                for n in range(_ACTUATORS)
            ],
        }
    )


def _rule(number: int) -> dict:
    lamp = f"lamp-{number % _ACTUATORS}"
    return {
        "reflex_id": f"r{number}",
        "version": 1,
        "enabled": True,
        "mode": "active",
        "when": {"sensor": f"door-{number}", "op": "eq", "value": True},
        "then": [{"actuator": lamp, "set": True}],
        "else": [{"actuator": lamp, "set": False}],
    }


main()
