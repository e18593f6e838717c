"""Runs on the virtual board's MicroPython: messages of a board whose heap is in small pieces.

Started as `micropython pieces.py`, with a control channel. The outbox of a board without a network
is full, the rest of the heap is taken but for holes of 64 bytes; prints as JSON what was said then
and still waits, and the largest block that was left.
"""

import gc
import json

from control import channel

from spinal import node
from spinal.runtime import Runtime
from spinal.upkeep import _largest_block

_HOLE = 64


def main() -> None:
    """Fill, scatter, speak."""
    channel.wifi = False
    channel.output = lambda *_record: None
    board = Runtime(
        node.check(
            {
                "device_id": "m1",
                "scope_level": "room",
                "scope": "kitchen",
                "broker": {"host": "127.0.0.1", "port": 1883},
                "sensors": [{"id": "door", "driver": "digital", "pin": 4}],
                "actuators": [{"id": "lamp", "driver": "digital", "pin": 2, "boot": 0}],
            }
        )
    )
    board.upkeep.start()
    while not board.outbox.dropped:
        board.outgoing.afferent("door", 21.5, board.ticks_ms)
    kept = _scattered()
    largest = _largest_block()
    said = []
    for number in range(40):
        board.outgoing.reflex_fire(
            f"{number:026d}", "r1", {"version": 1, "inputs": {}, "actions": [], "dry_run": False}, 0
        )
        said.append(board.outbox.waiting["critical"][-1].topic.split("/")[-1])
        board.outgoing.about_board("DeviceHealth", {"uptime": number, "drops": [{}] * 20}, 0)
    kept.clear()
    print(json.dumps({"said": said, "largest": largest}))


def _scattered() -> list:
    """Take all that is free, then give back every other of the smallest pieces."""
    gc.collect()
    gc.disable()
    kept: list = [None] * 1024
    place = 0
    size = 1 << 16
    while size >= _HOLE:
        try:
            kept[place] = bytearray(size)
            place += 1
        except MemoryError:
            size >>= 1
    for at in range(0, place, 2):
        if len(kept[at]) <= _HOLE:
            kept[at] = None
    gc.enable()
    gc.collect()
    return kept


main()
