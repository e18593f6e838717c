"""Runs on the virtual board's MicroPython: what a board does while it works on a message.

Started as `micropython turns.py`, with a control channel. After each piece of the work on an answer
to its ping, then on a rule, a door moves, and the loop has a turn; prints as JSON [what the lamp
that follows the door did, whether the message has been acted on] for each piece, for both messages.
"""

import json

import bare
from control import channel


_DOOR, _LAMP = 4, 2
_META = {
    "message_id": "01KQ0000000000000000000000",
    "schema_version": "v1",
    "contract": "Pong",
    "message_type": "Pong",
    "source": "reliable",
    "boot": 1,
    "seq": 1,
    "t_ms": 1790000000000,
    "clk": "hub",
    "ttl_ms": 10000,
}
_FOLLOW = {
    "reflex_id": "r1",
    "version": 1,
    "enabled": True,
    "mode": "active",
    "when": {"sensor": "door", "op": "eq", "value": True},
    "then": [{"actuator": "lamp", "set": True}],
    "else": [{"actuator": "lamp", "set": False}],
}


def main() -> None:
    """Take a message piece by piece."""
    channel.wifi = False
    driven: list = []
    channel.output = lambda _kind, _number, value: driven.append(value)
    board = bare.board(
        sensors=[{"id": "door", "driver": "digital", "pin": _DOOR}],
        actuators=[{"id": "lamp", "driver": "digital", "pin": _LAMP, "boot": 0}],
    )
    board.engine.configure(_FOLLOW, board.ticks_ms)
    board.upkeep.start()
    board.step()
    payload = dict(board.clock.ping(board.ticks_ms), unix_ms=1790000000000)
    payload.update(scope_level="room", scope="kitchen")
    pong = _pieces(
        board,
        driven,
        b"/sc/dev/event/device/m1/pong",
        {"meta": _META, "payload": payload},
        lambda: board.clock.synced,
    )
    meta = dict(_META, contract="ReflexConfigure", message_type="ReflexConfigure")
    meta.update(message_id="01KQ0000000000000000000001", action_id="01KQ0000000000000000000002")
    rule = dict(_FOLLOW, reflex_id="r2", mode="dry_run")
    topic = b"/sc/reflex/event/device/m1/rule/r2/configure"
    message = {"meta": meta, "payload": rule}
    print(
        json.dumps(
            [
                pong,
                _pieces(board, driven, topic, message, lambda: board.engine.hash("r2") is not None),
            ]
        )
    )


def _pieces(board: bare.Runtime, driven: list, topic: bytes, message: dict, done: object) -> list:
    """Take a message; a turn of the loop after each piece of the work on it."""
    seen = []
    driven.clear()
    for _ in board.link_message(topic, json.dumps(message).encode(), retained=False):
        channel.pins[_DOOR] = 1 - channel.pins[_DOOR]
        board.step()
        seen.append([list(driven), done()])
        driven.clear()
    seen.append([[], done()])
    return seen


main()
