"""Runs on the virtual board's MicroPython: 30 days of a board without a network, an hour a turn.

The ticks wrap every 12.4 days; whatever compares them has to let go before. Prints as JSON what was
seen: fires of the door's reflex, the uptimes told, and whether a warning got through each week.
"""

import json

import bare
from control import channel

from spinal import compat
from spinal.ticks import MASK

_DOOR, _LAMP = 4, 2
_HOUR_MS = 3600000
_HOURS = 30 * 24
_FOLLOW = {
    "reflex_id": "r1",
    "version": 1,
    "enabled": True,
    "mode": "active",
    "when": {"sensor": "door", "op": "eq", "value": True, "for_ms": 60000},
    "then": [{"actuator": "lamp", "set": True}],
    "else": [{"actuator": "lamp", "set": False}],
    "cooldown_ms": 1000,
}


def main() -> None:
    """Let the months go by."""
    channel.wifi = False
    driven: list = []
    channel.output = lambda _kind, _number, value: driven.append(value)
    board = bare.board(
        health_s=3600,
        sensors=[{"id": "door", "driver": "digital", "pin": _DOOR}],
        actuators=[{"id": "lamp", "driver": "digital", "pin": _LAMP, "boot": 0}],
    )
    told: list = []
    board.outgoing.about_board = lambda contract, payload, _ticks: told.append((contract, payload))
    board.engine.configure(_FOLLOW, board.ticks_ms)
    board.upkeep.start()
    del driven[:]
    now = board.ticks_ms
    wrong = []
    uptimes: list = []
    silent = []
    compat.ticks = lambda: now
    for hour in range(_HOURS):
        now = (now + _HOUR_MS) & MASK
        # A door that stands open for hours at night, and for weeks in between.
        is_open = hour % 24 >= 20 or 400 <= hour < 800
        channel.pins[_DOOR] = 1 if is_open else 0
        board.step()
        if is_open and (not driven or not driven[-1]):
            now = (now + 60000) & MASK
            board.step()
        if bool(driven and driven[-1]) != is_open:
            wrong.append(hour)
        uptimes.extend([payload["uptime"] for name, payload in told if name == "DeviceHealth"])
        del told[:]
        if hour % 168 == 0:
            for _ in range(12):
                board.log("weekly", "warning")
            if len([name for name, _ in told if name == "DeviceLog"]) != 10:
                silent.append(hour)
    falling = [late for early, late in zip(uptimes, uptimes[1:]) if late <= early]  # noqa: B905, RUF007 - MicroPython
    print(
        json.dumps(
            {
                "wrong": wrong[:5],
                "fires": len(driven),
                "told": len(uptimes),
                "uptime": uptimes[-1],
                "falling": falling[:5],
                "silent": silent[:5],
            }
        )
    )


main()
