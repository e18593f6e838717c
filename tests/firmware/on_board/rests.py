"""Runs on the virtual board's MicroPython: when the board collects its garbage.

Started as `micropython rests.py`, with a control channel. Prints as JSON how often the interpreter
and how often the board collected during a flood of answers to a ping, how many lines of the flood
the console was given in a second and after it, and what the board did, in order, once it was time
to collect and an input moved in that very moment.
"""

import gc
import json

import spinal.runtime
from control import channel

from spinal import compat, node
from spinal.runtime import Runtime

_DOOR, _LAMP = 4, 2
_FLOOD = 24
_LEAST_COLLECTED = 1024
_META = {
    "schema_version": "v1",
    "contract": "Pong",
    "message_type": "Pong",
    "source": "reliable",
    "boot": 1,
    "t_ms": 1790000000000,
    "clk": "hub",
    "ttl_ms": 10000,
}
_PAYLOAD = {"nonce": 0, "t0": 0, "unix_ms": 1, "scope_level": "room", "scope": "kitchen"}
_FOLLOW = {
    "reflex_id": "r1",
    "version": 1,
    "enabled": True,
    "mode": "active",
    "when": {"sensor": "door", "op": "changed"},
    "then": [{"actuator": "lamp", "set": True}],
}
_NODE = {
    "device_id": "m1",
    "scope_level": "room",
    "scope": "kitchen",
    "broker": {"host": "127.0.0.1", "port": 1883},
    "watchdog_ms": 60000,
    "sensors": [{"id": "door", "driver": "digital", "pin": _DOOR}],
    "actuators": [{"id": "lamp", "driver": "digital", "pin": _LAMP, "boot": 0}],
}


class Collector:
    """Stands in for the module gc inside the runtime: notes what it does as well."""

    def __init__(self, events: list) -> None:
        self._events = events

    def collect(self) -> None:
        """Collect, and note it."""
        self._events.append("collected")
        gc.collect()

    def __getattr__(self, name: str) -> object:
        """Everything else as it is."""
        return getattr(gc, name)


def main() -> None:
    """Take a burst, then make some messages."""
    channel.wifi = False
    # Time stands still: what the board does each second is not what this is about.
    now = 0
    compat.ticks = lambda: now
    events: list = []
    channel.output = lambda *_record: events.append("driven")
    board = Runtime(node.check(_NODE))
    board.engine.configure(_FOLLOW, board.ticks_ms)
    board.upkeep.start()
    board.turn()
    spinal.runtime.gc = Collector(events)
    lines: list = []
    spinal.runtime.print = lines.append
    by_interpreter = _flood(board, events)
    by_board = events.count("collected")
    now = 1000
    board.step()
    now = 0

    # Each makes two messages: the measurement and the report of the reflex.
    for level in (1, 0, 1):
        channel.pins[_DOOR] = level
        board.step()
    step = board.step

    def last_step() -> None:
        step()
        # The board is about to collect, and the lamp is switched off by hand.
        board.step = step
        channel._apply({"pin": _DOOR, "value": 0})
        board.board.actuators["lamp"].set(False)
        events.clear()

    board.step = last_step
    for _ in range(3):
        board.turn()
    print(json.dumps([by_interpreter, by_board, lines, events]))


def _flood(board: Runtime, events: list) -> int:
    """Take message after message, a turn for each piece; how often the interpreter collected."""
    collected = 0
    before = gc.mem_alloc()
    for number in range(_FLOOD):
        meta = dict(_META, seq=number, message_id=f"01KQ00000000000000000000{number:02d}")
        data = json.dumps({"meta": meta, "payload": _PAYLOAD}).encode()
        board.link.counters["received"] += 1
        for _ in board.link_message(b"/sc/dev/event/device/m1/pong", data, retained=False):
            by_board = len(events)
            board.turn()
            used = gc.mem_alloc()
            if len(events) == by_board and used < before - _LEAST_COLLECTED:
                collected += 1
            before = used
    return collected


main()
