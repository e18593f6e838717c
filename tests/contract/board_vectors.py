"""Puts vectors to a board's ingress and prints what it says of each; runs on MicroPython.

Reads lines of JSON from the file that is named: {topic, data (base64), retain, now_ms, times}.
Prints one line for each: `taken`, or the reason code of the last time.
"""

import binascii
import json
import sys

from spinal.efferent import Ledger
from spinal.inbound import Inbound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LAMP = {"id": "lamp", "type": "bool", "boot": False}


class _Clock:
    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def unix_ms(self, _ticks_ms: int) -> int:
        return self._now_ms

    def awaits(self, _payload: "Any") -> bool:
        return False


class _Board:
    """What Inbound needs of a board to check a message; it notes the refusal."""

    ticks_ms = 0

    def __init__(self, now_ms: int) -> None:
        self.node = {"device_id": "b1", "scope_level": "room", "scope": "kitchen"}
        self.clock = _Clock(now_ms)
        self.ledger = Ledger([_LAMP])
        self.upkeep = self.updates = self
        self.said = ""

    def offer(self, _payload: "Any") -> None:
        self.said = "taken"

    chunk = offer

    def refuse(self, error: "Any", _topic: str | None, _data: bytes = b"") -> None:
        self.said = error.code


class _Ingress(Inbound):
    """Checks as the board does; what passes is noted, and a command put to the ledger."""

    def __init__(self, board: _Board, now_ms: int) -> None:
        super().__init__(board)
        self._notes = board
        self._now_ms = now_ms

    def _command(self, _fields: "Any", meta: "Any", payload: "Any", *, retained: bool) -> None:
        notes = self._notes
        decision = notes.ledger.command(meta, payload, retained, True, self._now_ms, 0)  # noqa: FBT003 - its signature
        # What the ledger thinks of the actuator and the value is not the wire's.
        notes.said = "taken"
        if decision.kind == "repeat":
            notes.said = "duplicate"
        elif decision.code in ("expired", "retained_command"):
            notes.said = decision.code

    def _configure(self, *_: "Any") -> tuple:
        self._notes.said = "taken"
        return ()

    def _trigger(self, *_: "Any") -> None:
        self._notes.said = "taken"

    def _pong(self, *_: "Any") -> None:
        self._notes.said = "taken"


def main(path: str) -> None:
    """Judge each line of a file."""
    with open(path) as lines:  # noqa: PTH123 - MicroPython has no pathlib
        for line in lines:
            case = json.loads(line)
            board = _Board(case["now_ms"])
            ingress = _Ingress(board, case["now_ms"])
            topic, data = case["topic"].encode(), binascii.a2b_base64(case["data"])
            for _ in range(case["times"]):
                for _ in ingress.take(topic, data, 0, retained=case["retain"]):
                    pass
            sys.stdout.write(board.said + "\n")


main(sys.argv[1])
