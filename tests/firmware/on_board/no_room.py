"""Runs on the virtual board's MicroPython: a connection that finds no memory while much waits.

Prints as JSON how many messages wait before it, and after each of three attempts.
"""

import json

import bare
from control import channel


class Full:
    """Connects to nothing, for want of memory, as a TLS context does on a port."""

    def __call__(self, _host: str, _port: int) -> None:
        raise OSError(-0x7F00)


def main() -> None:
    """Let it try."""
    channel.wifi = True
    board = bare.board()
    board.upkeep.start()
    for number in range(32):
        board.outgoing.afferent("temperature", number, board.ticks_ms)
    waiting = [len(board.outbox)]
    board.link.dial = Full()
    attempts = 0
    while len(waiting) <= 3:
        board.step()
        if board.link.drops.get("no_memory", 0) > attempts:
            attempts += 1
            waiting.append(len(board.outbox))
    print(json.dumps(waiting))


main()
