"""Telling the process manager that a service serves (systemd's protocol, or a pipe)."""

import os
import socket
from contextlib import suppress
from typing import Final

READY_DESCRIPTOR_VARIABLE: Final = "NERVUS_READY_FD"
READY: Final = b"READY=1\n"
STOPPING: Final = b"STOPPING=1\n"
STATUS: Final = b"STATUS="
STATUS_BYTES: Final = 1_000
"""Of a status at most; the log has all of it."""


def notify(state: bytes) -> None:
    """Send a state to whoever started this process; nothing happens if nobody asked for it.

    Args:
        state: `READY` or `STOPPING`.

    Raises:
        OSError: The named socket or descriptor cannot be written.
    """
    if address := os.environ.get("NOTIFY_SOCKET"):
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state, address)
    elif descriptor := os.environ.get(READY_DESCRIPTOR_VARIABLE):
        os.write(int(descriptor), state)


def notify_status(text: str) -> None:
    """Send one line about how it goes; nothing happens if nobody asked for it, or listens."""
    line = " ".join(text.split()).encode()[:STATUS_BYTES]
    # Who started us may have closed its end once we served. What is told here is in the log, too.
    with suppress(BrokenPipeError, BlockingIOError, ConnectionRefusedError):
        notify(STATUS + line + b"\n")
