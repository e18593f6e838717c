"""Whether a process listens on a TCP port, by the kernel's own list: nobody is connected to."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_LISTENS: Final = "0A"
_ADDRESS, _STATE, _INODE = 1, 3, 9
"""Columns of /proc/PID/net/tcp."""


def listens(pid: int, port: int) -> bool:
    """Say whether a process accepts connections on a port, of whatever address.

    To connect and leave would tell as much, and make a broker that speaks TLS log an error.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(pid, port)}
    if not sockets:
        return False
    try:
        return any(_target(each) in sockets for each in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        # Another user's, or one that may more than its user, such as listen below 1024.
        return True
    except FileNotFoundError:
        return False


def _listening(pid: int, port: int) -> Iterator[str]:
    """Inodes of the listening sockets on a port, of all that share that process's network."""
    for family in ("tcp", "tcp6"):
        # Without IPv6 there is no list of it; the process may have ended.
        with suppress(FileNotFoundError, ProcessLookupError):
            rows = Path(f"/proc/{pid}/net/{family}").read_text(encoding="ascii").splitlines()[1:]
            for columns in map(str.split, rows):
                number = int(columns[_ADDRESS].rpartition(":")[2], 16)
                if columns[_STATE] == _LISTENS and number == port:
                    yield columns[_INODE]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        # Closed meanwhile.
        return ""
