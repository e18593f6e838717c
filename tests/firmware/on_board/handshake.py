"""Runs on the virtual board's MicroPython: what a TLS handshake leaves of the loop's turns.

Started as `micropython handshake.py PORT CERT KEY CA`, with a control channel. In each turn of the
loop a door moves as the first record of the handshake passes, under mbedTLS so to speak, and a
reflex lets a lamp follow. Prints as JSON, for each turn with a record: the records in their order,
"in" or "out", and how often the lamp had moved since the one before.
"""

import json
import sys

from control import channel

from spinal import compat, link, node
from spinal.runtime import Runtime

_DOOR, _LAMP = 4, 2
_RULE = {
    "reflex_id": "r1",
    "version": 1,
    "enabled": True,
    "mode": "active",
    "when": {"sensor": "door", "op": "eq", "value": True},
    "then": [{"actuator": "lamp", "set": True}],
    "else": [{"actuator": "lamp", "set": False}],
}


class Records:
    """Cuts one direction of a stream into TLS records."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0

    def pass_on(self, data: object) -> int:
        """How many records begin in these bytes."""
        begun = 0
        for byte in data:
            if self._left:
                self._left -= 1
                continue
            self._head.append(byte)
            if len(self._head) == 5:
                begun += 1
                self._left = self._head[3] << 8 | self._head[4]
                self._head = bytearray()
        return begun


class Watched:
    """The socket under TLS, which notes the records and moves the door at each."""

    def __init__(self, sock: object, turns: list) -> None:
        self._sock = sock
        self._turns = turns
        self._in, self._out = Records(), Records()

    def readinto(self, buffer: bytearray) -> int | None:
        """As the socket's."""
        size = self._sock.readinto(buffer)
        if size:
            self._note("in", self._in.pass_on(memoryview(buffer)[:size]))
        return size

    def write(self, data: bytes) -> int | None:
        """As the socket's."""
        size = self._sock.write(data)
        if size:
            self._note("out", self._out.pass_on(memoryview(data)[:size]))
        return size

    def _note(self, way: str, records: int) -> None:
        if records and not self._turns[-1]:
            channel.pins[_DOOR] = 1 - channel.pins[_DOOR]
        self._turns[-1] += [way] * records


def main() -> None:
    """Connect once."""
    port, cert, key, ca = sys.argv[1:]
    lamp = []
    channel.output = lambda *record: lamp.append(record)
    board = Runtime(
        node.check(
            {
                "device_id": "m1",
                "scope_level": "room",
                "scope": "kitchen",
                "broker": {"host": "127.0.0.1", "port": int(port), "server_name": "localhost"},
                "identity": {"cert": cert, "key": key, "ca": ca},
                "sensors": [{"id": "door", "driver": "digital", "pin": _DOOR}],
                "actuators": [{"id": "lamp", "driver": "digital", "pin": _LAMP, "boot": 0}],
            }
        )
    )
    board.engine.configure(_RULE, board.ticks_ms)
    turns = []
    wrapped = compat.Transport._wrapped

    def watched(transport: object, dialler: object) -> object:
        stream = wrapped(transport, dialler)
        transport.records._sock = Watched(transport.sock, turns)
        return stream

    compat.Transport._wrapped = watched
    told = []
    lamp.clear()
    board.upkeep.start()
    while board.link.state != link.SUBSCRIBING:
        turns.append([])
        shaken = board.link.state == link.CONNECTING and board.link.transport.records is None
        board.step()
        if turns[-1] and not shaken:
            told.append([turns[-1], len(lamp)])
            lamp.clear()
        if board.link.last_error is not None:
            raise OSError(board.link.last_error)
        if not board.link.busy:
            board.board.wait(50, board.link.sock, wants_write=board.link.wants_write)
    print(json.dumps(told))


main()
