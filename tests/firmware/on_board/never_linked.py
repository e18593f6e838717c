"""Runs on the virtual board's MicroPython: a lamp that is on from boot, and no network at all.

Prints as JSON what the lamp did in the first second of the loop, each as [ms, level].
"""

import json

from control import channel

from spinal import compat, node
from spinal.runtime import Runtime
from spinal.ticks import MASK

_STEP_MS = 100
_LAMP = {"id": "lamp", "driver": "digital", "pin": 2, "boot": 1, "on_loss": {"off_after_ms": 300}}


class Over(Exception):  # noqa: N818 - not an error
    """The second has passed."""


def main() -> None:
    """Begin the loop and end it."""
    channel.wifi = False
    driven: list = []
    passed = 0
    channel.output = lambda _kind, _number, value: driven.append((passed, value))
    board = Runtime(
        node.check(
            {
                "device_id": "m1",
                "scope_level": "room",
                "scope": "kitchen",
                "broker": {"host": "127.0.0.1", "port": 1883},
                "actuators": [_LAMP],
            }
        )
    )
    began = board.ticks_ms
    compat.ticks = lambda: (began + passed) & MASK

    def turn() -> None:
        nonlocal passed
        passed += _STEP_MS
        board.step()
        if passed >= 10 * _STEP_MS:
            raise Over

    board.turn = turn
    try:
        board.run()
    except Over:
        print(json.dumps(driven))


main()
