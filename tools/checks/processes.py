"""Programs started so that nothing of them stays: also not what they started, and orphaned."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_CHILD_SUBREAPER = 36
TOO_LATE = 124
"""The status of a program that was ended because it took too long, as of timeout(1)."""

_LIMIT_S = 3600.0
_GRACE_S = 10.0
_SETTLE_S = 3.0


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan below it, so that none is out of reach.

    Raises:
        OSError: the kernel refused (Linux ≥ 3.4 does not).
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this process cannot adopt orphans")


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> int:
    """Runs a program in a process group of its own, without stdin; returns its exit status.

    One that has not ended after an hour is ended, with status 124. An exception in the waiting
    thread (Ctrl-C) ends the program and all it started first.
    """
    process = subprocess.Popen(  # noqa: S603 - the commands are written in this folder
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, process_group=0
    )
    try:
        return process.wait(_LIMIT_S)
    except subprocess.TimeoutExpired:
        _end(process)
        return TOO_LATE
    except BaseException:
        # A second Ctrl-C would leave behind what the first one is just ending.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end(process)
        end_leftovers()
        raise


def end_leftovers() -> list[str]:
    """Ends what still runs below this process, SIGTERM first, and returns its command lines.

    Waits up to 3 s for processes that are just ending by themselves; those are not leftovers.
    """
    deadline = time.monotonic() + _SETTLE_S
    while (left := _descendants()) and time.monotonic() < deadline:
        time.sleep(0.05)
    names = [_command_line(pid) for pid in left]
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _GRACE_S
        for pid in _descendants():
            _signal(pid, number)
        while _descendants() and time.monotonic() < deadline:
            time.sleep(0.05)
    return names


def _end(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process.pid, signal.SIGINT)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _descendants() -> list[int]:
    """Living processes below this one; the dead ones are reaped on the way."""
    _reap()
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name, in brackets, may hold blanks and brackets itself.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _command_line(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return f"process {pid}, gone meanwhile"
    return raw.replace(b"\0", b" ").decode(errors="replace").strip() or f"process {pid}"


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
