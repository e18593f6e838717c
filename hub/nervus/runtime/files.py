"""Writing files that hold secrets or state: private, whole or not at all, on the disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


class LockedError(Exception):
    """Another process holds the lock."""


def make_private_folder(path: Path) -> None:
    """Create a folder and its parents; the folder itself is readable by its owner alone."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    path.chmod(PRIVATE_FOLDER)


def write_private(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Replace a file atomically with mode 0600.

    Args:
        path: The file.
        content: All of its new content; text is written as UTF-8.
        durable: Whether it is to survive a power cut, then holding the old content or the new,
            never a part.

    Raises:
        OSError: Names the file; the old content stays.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        # A full disk is told without a name, and the temporary one says nothing to anybody.
        raise OSError(error.errno, error.strerror, str(path)) from error
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring a folder's entries (renames in it) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an advisory lock on `path` (created when missing).

    Args:
        path: The lock file; its content does not matter.
        wait: Whether to wait for another holder; the holders here work for milliseconds.

    Raises:
        LockedError: `wait` is false and another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        try:
            flock(descriptor, LOCK_EX if wait else LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(path) from error
        try:
            yield
        finally:
            flock(descriptor, LOCK_UN)
    finally:
        os.close(descriptor)
