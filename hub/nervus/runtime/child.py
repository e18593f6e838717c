"""One child process: its own process group, its output line by line, no orphan left behind."""

import asyncio
import ctypes
import os
import signal
import subprocess
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from nervus.runtime.listening import listens
from nervus.runtime.notify import READY, READY_DESCRIPTOR_VARIABLE, STATUS

Recover = Callable[[int, Sequence[str]], str | None]

MAX_LINE_BYTES: Final = 8_192
KEPT_LINES: Final = 50
_READ_BYTES: Final = 65_536
_PROBE_PAUSE_S: Final = 0.025
_PR_SET_PDEATHSIG: Final = 1
_ASIDE: Final = 5
"""By how much what gives way is nicer: where one other wants a whole core, a quarter is left."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Child:
    """What to run, and how to know that it serves.

    Args:
        name: Names it in the log and the status.
        command: Program and arguments.
        stage: Children of a stage start once all of the stages before it were ready.
        port: The TCP port it listens on when it serves; None if it tells itself, through
            `nervus.runtime.notify`.
        orphan_signal: What it receives when its supervisor dies. SIGTERM only for a program that
            always obeys it and has something to save.
        recover: Asked when it ended before it was ready; may repair something and says what.
        environment: Variables added to the supervisor's own.
        aside: Whether it gives way to all others once it serves.
    """

    name: str
    command: tuple[str, ...]
    stage: int = 1
    port: int | None = None
    orphan_signal: Literal[signal.Signals.SIGKILL, signal.Signals.SIGTERM] = signal.SIGKILL
    recover: Recover | None = None
    environment: dict[str, str] = field(default_factory=dict)
    aside: bool = False


class Process:
    """A started child; calls back in the event loop, never after `on_exit`.

    Without asyncio's own subprocesses: those start a thread for each child on Python 3.11, and
    the parent-death signal follows the thread that forked, not the process.

    Args:
        child: What to run.
        on_line: Takes each line of its output.
        on_ready: Called once when it serves.
        on_status: Takes what it suffers from, "" from nothing.
        on_exit: Takes its exit code, negative for a signal.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(
        self,
        child: Child,
        on_line: Callable[[str], None],
        on_ready: Callable[[], None],
        on_status: Callable[[str], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self._child = child
        self._on_line = on_line
        self._on_ready: Callable[[], None] | None = on_ready
        self._on_status = on_status
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._pending = b""
        self._notices = b""
        self._told = False
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._ready_descriptor, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._popen = self._start(write_end)
        except OSError:
            os.close(self._ready_descriptor)
            raise
        finally:
            os.close(write_end)
        self._output = self._popen.stdout.fileno() if self._popen.stdout else -1
        os.set_blocking(self._output, False)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._loop.add_reader(self._output, self._read_output)
        self._loop.add_reader(self._pidfd, self._exited)
        self._loop.add_reader(self._ready_descriptor, self._read_notices)
        self._probe: asyncio.Task[None] | None = None
        if child.port is not None:
            self._probe = asyncio.create_task(
                self._probe_until_listening(child.port), name=f"probe {child.name}"
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def terminate(self) -> None:
        """Ask it to stop."""
        self._popen.terminate()

    def kill(self) -> None:
        """End it and everything it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _start(self, write_end: int) -> subprocess.Popen[bytes]:
        environment = os.environ | self._child.environment
        # A socket of the process manager that started us is ours alone.
        environment.pop("NOTIFY_SOCKET", None)
        environment[READY_DESCRIPTOR_VARIABLE] = str(write_end)
        with warnings.catch_warnings():
            # Python ≥ 3.12 warns of `preexec_fn` beside other threads, whose locks a forked child
            # might wait for: ours takes none.
            warnings.simplefilter("ignore", DeprecationWarning)
            return subprocess.Popen(  # noqa: S603  the commands are our own
                self._child.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(write_end,),
                process_group=0,
                umask=0o077,
                preexec_fn=_prepared(os.getpid(), self._child.orphan_signal),  # noqa: PLW1509  it makes two system calls and takes no lock
            )

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            # A long line that was told already ends here: there is nothing more to tell.
            if line or not self._told:
                self._emit(line)
            self._told = False
        if len(self._pending) > MAX_LINE_BYTES:
            self._emit(self._pending)
            self._pending = b""
            self._told = True

    def _emit(self, line: bytes) -> None:
        text = line[:MAX_LINE_BYTES].decode(errors="backslashreplace").rstrip()
        self.last_lines.append(text)
        self._on_line(text)

    def _read_notices(self) -> None:
        try:
            data = os.read(self._ready_descriptor, MAX_LINE_BYTES)
        except BlockingIOError:
            return
        *lines, self._notices = (self._notices + data).split(b"\n")
        if not data or len(self._notices) > MAX_LINE_BYTES:
            self._loop.remove_reader(self._ready_descriptor)
        for line in lines:
            if line == READY.strip():
                self._tell_ready()
            elif line.startswith(STATUS):
                self._on_status(line.removeprefix(STATUS).decode(errors="backslashreplace"))

    def _tell_ready(self) -> None:
        on_ready, self._on_ready = self._on_ready, None
        if on_ready is not None:
            if self._child.aside:
                _put_aside(self.pid)
            on_ready()

    async def _probe_until_listening(self, port: int) -> None:
        while not listens(self.pid, port):  # noqa: ASYNC110  another process sets no event
            await asyncio.sleep(_PROBE_PAUSE_S)
        self._tell_ready()

    def destroy(self) -> None:
        """End it now and wait for that, without calling back."""
        self.kill()
        self._reap()

    def _exited(self) -> None:
        self._on_exit(self._reap())

    def _reap(self) -> int:
        if self._probe is not None:
            self._probe.cancel()
        # Until it is waited for, its process group cannot be anybody else's.
        self.kill()
        code = self._popen.wait()
        self._drain()
        for descriptor in (self._output, self._pidfd, self._ready_descriptor):
            self._loop.remove_reader(descriptor)
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        os.close(self._pidfd)
        os.close(self._ready_descriptor)
        return code

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._output, _READ_BYTES):
                self._pending += data
        for line in self._pending.split(b"\n"):
            if line:
                self._emit(line)
        self._pending = b""


def _prepared(
    parent: int, orphan_signal: Literal[signal.Signals.SIGKILL, signal.Signals.SIGTERM]
) -> Callable[[], None]:
    """What a child does before its program: it dies with its parent."""

    def prepare() -> None:
        if _LIBC.prctl(_PR_SET_PDEATHSIG, orphan_signal, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        # The parent may have died before the call took effect.
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _put_aside(pid: int) -> None:
    """Let a process give way to all others: each of its threads, and those they start."""
    # It may have ended meanwhile, or the thread.
    with suppress(ProcessLookupError, FileNotFoundError):
        for task in map(int, os.listdir(f"/proc/{pid}/task")):  # noqa: PTH208  names, no paths
            nicer = min(19, os.getpriority(os.PRIO_PROCESS, task) + _ASIDE)
            os.setpriority(os.PRIO_PROCESS, task, nicer)
            # Of an idle one, which gives way still more, that would be a promotion: only root may.
            with suppress(PermissionError):
                os.sched_setscheduler(task, os.SCHED_BATCH, os.sched_param(0))
