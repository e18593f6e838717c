"""A process that is many boards: afferents at an even pace, MQTT frames written by hand.

Started as `python -m benchmarks.flood PLAN`, PLAN being JSON: host, port, boards {device id: its
granted scope and the folder of its identity, null for plain TCP}, rate (messages a second),
seconds, qos, urgent. Prints {"sent": …, "seconds": …}; of urgent ones, whose values are their
numbers, also "sent_ns": when each was sent, in unix nanoseconds.

By hand, since a client library would be slower than what is to be measured.
"""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any, Final

from nervus.wire import topics

_TICK_S: Final = 0.005
_URGENT: Final = ',"priority":"critical"'
_SEVEN_BITS: Final = 0x7F
_CONNECT, _CONNACK, _PUBLISH = 0x10, 0x20, 0x30
_CLEAN_SESSION: Final = 2
_KEEPALIVE_S: Final = 60
_TIMEOUT_S: Final = 10.0
_PACKET_IDS: Final = 65_535
_UNREAD: Final = 256
_TEMPLATE: Final = (
    '{"meta":{"message_id":"%%026d","schema_version":"v1","contract":"AfferentSignal",'
    '"message_type":"AfferentSignal","source":"device:%s","boot":1,"seq":%%d,"ttl_ms":10000,'
    '"t_ms":%%d,"clk":"hub"%s},"payload":{"sensor_type":"temperature","value":%%.1f,"unit":"Cel"}}'
)


class Board:
    """One connection of one board."""

    def __init__(self, device_id: str, plan: dict[str, Any]) -> None:
        scope, identity = plan["boards"][device_id]
        self._socket = socket.create_connection((plan["host"], plan["port"]), _TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if identity is not None:
            folder = Path(identity)
            context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            self._socket = context.wrap_socket(self._socket, server_hostname=plan["host"])
        level, name = scope.split("/")
        topic = topics.afferent(level, name, "temperature", device_id).topic
        self._topic = _text(topic)
        self._urgent = plan["urgent"]
        self._template = (_TEMPLATE % (device_id, _URGENT if self._urgent else "")).encode()
        self.sent_ns: list[int] = []
        self._qos = plan["qos"]
        self._sequence = itertools.count()
        self._unread = 0
        self._connect(device_id)

    def send(self, count: int, ids: itertools.count[int]) -> None:
        """Write so many messages at once; waits while the broker does not read."""
        frames = b"".join(self._frame(next(ids)) for _ in range(count))
        self._socket.settimeout(_TIMEOUT_S)
        if self._urgent:
            self.sent_ns += [time.time_ns()] * count
        self._socket.sendall(frames)
        self._unread += count
        if self._qos and self._unread >= _UNREAD:
            self._unread = 0
            self._discard_acknowledgements()

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _frame(self, number: int) -> bytes:
        sequence = next(self._sequence)
        now_ms = time.time_ns() // 1_000_000
        value = sequence if self._urgent else 20 + sequence % 70 / 10
        body = self._topic
        if self._qos:
            body += (sequence % _PACKET_IDS + 1).to_bytes(2)
        body += self._template % (number, sequence, now_ms, value)
        return bytes([_PUBLISH | self._qos << 1]) + _length(len(body)) + body

    def _connect(self, client_id: str) -> None:
        head = _text("MQTT") + bytes([4, _CLEAN_SESSION]) + _KEEPALIVE_S.to_bytes(2)
        body = head + _text(client_id)
        self._socket.sendall(bytes([_CONNECT]) + _length(len(body)) + body)
        answer = self._socket.recv(4)
        if len(answer) != 4 or answer[0] != _CONNACK or answer[3] != 0:  # noqa: PLR2004 - a CONNACK's length
            raise ConnectionError(f"the broker refused {client_id}: {answer!r}")

    def _discard_acknowledgements(self) -> None:
        self._socket.settimeout(0)
        while True:
            try:
                if not self._socket.recv(65_536):
                    raise ConnectionError("the broker closed the connection")
            except (BlockingIOError, ssl.SSLWantReadError):
                return


def main() -> None:
    """Carry out the plan of the command line."""
    plan = json.loads(sys.argv[1])
    boards = [Board(name, plan) for name in plan["boards"]]
    # Another flood of the same boards is no repetition of this one.
    ids, turn = itertools.count(time.time_ns()), itertools.cycle(boards)
    sent, wanted = 0, int(plan["rate"] * plan["seconds"])
    began = time.perf_counter()
    while sent < wanted:
        due = min(wanted, int((time.perf_counter() - began) * plan["rate"]) + 1) - sent
        share, rest = divmod(due, len(boards))
        for number in range(len(boards) if share else rest):
            next(turn).send(share + (number < rest), ids)
        sent += due
        # Urgent ones come one by one; a board that looked in between would take time from the hub.
        next_s = began + sent / plan["rate"] - time.perf_counter() if plan["urgent"] else _TICK_S
        time.sleep(max(0.0, next_s))
    seconds = time.perf_counter() - began
    told: dict[str, Any] = {"sent": sent, "seconds": seconds}
    if plan["urgent"]:
        told["sent_ns"] = boards[0].sent_ns
    print(json.dumps(told), flush=True)
    # What a closing socket has not written yet would be lost, and counted as the receiver's.
    time.sleep(_TIMEOUT_S / 10)
    for board in boards:
        board.close()


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2) + data


def _length(size: int) -> bytes:
    if size <= _SEVEN_BITS:
        return bytes([size])
    return bytes([size & _SEVEN_BITS | 0x80, size >> 7])


if __name__ == "__main__":
    main()
