"""Runs children under `Supervision`: the shell around the pure core."""

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from nervus.errors import UsageError
from nervus.runtime.child import Child, Process
from nervus.runtime.files import write_private
from nervus.runtime.supervision import (
    EXIT_MISUSE,
    ChildState,
    Effect,
    Event,
    Exited,
    Finished,
    Kill,
    Ready,
    Spawn,
    Stop,
    Supervision,
    Terminate,
    Timing,
)

_LOG: Final = logging.getLogger(__name__)
_CHILD_LOG: Final = "nervus.child"
_ERROR_LINES: Final = 3
"""What, where, what to do."""


class AlreadyRunningError(UsageError):
    """Another `nervus up` runs on this state folder."""


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """What `nervus status` tells of a child; `since` is in unix seconds.

    `trouble` is what it says it suffers from, or how it ended before it served again; "" if well.
    """

    name: str
    pid: int | None
    state: str
    restarts: int
    recoveries: int
    since: float
    last_exit: int | None
    trouble: str


@dataclass(slots=True)
class _Running:
    child: Child
    process: Process | None = None
    since: float = 0.0
    recoveries: int = 0
    last_exit: int | None = None
    told: str = ""
    missed: str = ""
    ended: str = ""
    last_words: Sequence[str] = ()
    last_line: str = ""
    repeats: int = 0


class Supervisor:
    """Starts children, keeps them running, stops them.

    Args:
        children: What to run; names are unique.
        status_file: Where their state is kept for others to read.
        timing: Pauses and deadlines.
        on_ready: Called each time all children have become ready.
    """

    def __init__(
        self,
        children: Iterable[Child],
        status_file: Path,
        timing: Timing | None = None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._running = {child.name: _Running(child) for child in children}
        self._status_file = status_file
        self._on_ready = on_ready
        stages: dict[int, list[str]] = {}
        for name, running in self._running.items():
            stages.setdefault(running.child.stage, []).append(name)
        self._core = Supervision([stages[stage] for stage in sorted(stages)], timing or Timing())
        self._finished = asyncio.Event()
        self._failed: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._was_ready = False
        self._untold = False

    async def run(self, stop: asyncio.Event) -> int:
        """Run until `stop` is set and every child has ended.

        Returns:
            0, or 2 when a child refused its settings; then all others were stopped.
        """
        try:
            self._handle(self._core.tick(_now_ms()))
            waiting = [
                asyncio.create_task(stop.wait(), name="supervisor stop"),
                asyncio.create_task(self._finished.wait(), name="supervisor finished"),
            ]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
            if not self._finished.is_set():
                self._take(Stop())
            await self._finished.wait()
        finally:
            self._end()
        if self._failed is not None:
            # Once more: others have ended since then, and had something to say, too.
            said = "\n".join(self._running[self._failed].last_words)
            _LOG.error("%s refused its settings:\n%s", self._failed, said)
            return EXIT_MISUSE
        return 0

    def status(self) -> list[ChildStatus]:
        """Return the state of every child."""
        return [
            ChildStatus(
                name=name,
                pid=running.process.pid if running.process else None,
                state=self._core.state(name).value,
                restarts=self._core.restarts(name),
                recoveries=running.recoveries,
                since=running.since,
                last_exit=running.last_exit,
                trouble=running.told or running.ended,
            )
            for name, running in self._running.items()
        ]

    def _take(self, event: Event) -> None:
        self._handle(self._core.step(event, _now_ms()))

    def _tick(self) -> None:
        self._handle(self._core.tick(_now_ms()))

    def _handle(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Spawn(name):
                    self._spawn(self._running[name])
                case Terminate(name):
                    self._signal(name, Process.terminate)
                case Kill(name, after_ms):
                    self._kill(self._running[name], after_ms)
                case Finished(failed):
                    self._failed = failed
                    self._finished.set()
        self._announce()
        self._arm()

    def _spawn(self, running: _Running) -> None:
        name = running.child.name
        running.since = time.time()
        running.told = running.missed = ""
        try:
            running.process = Process(
                running.child,
                on_line=lambda line: self._line(running, line),
                on_ready=lambda: self._ready(running),
                on_status=lambda text: self._status(running, text),
                on_exit=lambda code: self._exited(running, code),
            )
        except OSError as error:
            running.ended = f"cannot be started: {error.strerror}"
            _LOG.error("%s cannot be started: %s", name, error)
            loop = asyncio.get_running_loop()
            loop.call_soon(self._take, Exited(name, 1))

    def _kill(self, running: _Running, after_ms: int) -> None:
        name = running.child.name
        stopping = self._core.state(name) is ChildState.STOPPING
        missed = f"not {'ended' if stopping else 'ready'} after {after_ms / 1000:g} s"
        _LOG.warning("%s: %s, killed", name, missed)
        running.missed = missed
        self._signal(name, Process.kill)

    def _signal(self, name: str, send: Callable[[Process], None]) -> None:
        process = self._running[name].process
        if process is not None:
            send(process)

    def _status(self, running: _Running, text: str) -> None:
        running.told = text
        self._announce()

    def _ready(self, running: _Running) -> None:
        running.since = time.time()
        running.ended = ""
        self._take(Ready(running.child.name))

    def _exited(self, running: _Running, code: int) -> None:
        name = running.child.name
        process, running.process = running.process, None
        running.since = time.time()
        running.last_exit = code
        self._flush_repeats(running)
        state = self._core.state(name)
        running.told = ""
        running.last_words = _last_words(list(process.last_lines)) if process else ()
        if state is not ChildState.STOPPING:
            how = running.missed or _describe(code)
            _LOG.warning("%s ended (%s)", name, how)
            last = running.last_words[:1]
            running.ended = ": ".join((f"ended ({how})", *last))
        recover = running.child.recover
        if recover is not None and state is ChildState.STARTING and process is not None:
            done = recover(code, tuple(process.last_lines))
            if done is not None:
                running.recoveries += 1
                _LOG.critical("%s: %s", name, done)
        self._take(Exited(name, code))

    def _line(self, running: _Running, line: str) -> None:
        # A corrupt database makes mosquitto write one line thousands of times.
        if line == running.last_line:
            running.repeats += 1
            return
        self._flush_repeats(running)
        running.last_line = line
        logging.getLogger(f"{_CHILD_LOG}.{running.child.name}").info("%s", line)

    def _flush_repeats(self, running: _Running) -> None:
        if running.repeats:
            log = logging.getLogger(f"{_CHILD_LOG}.{running.child.name}")
            log.info("(its last line %d more times)", running.repeats)
        running.repeats = 0
        running.last_line = ""

    def _announce(self) -> None:
        content = {"pid": os.getpid(), "children": [asdict(child) for child in self.status()]}
        try:
            write_private(self._status_file, json.dumps(content, indent=1) + "\n", durable=False)
        except OSError as error:
            # A full disk keeps nobody from being started again: only what `nervus status` tells.
            if not self._untold:
                _LOG.error("%s: what runs cannot be told: %s", self._status_file, error.strerror)
            self._untold = True
        else:
            self._untold = False
        ready = self._core.all_ready
        if ready and not self._was_ready:
            self._on_ready()
        self._was_ready = ready

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._core.next_ms()
        if due is not None and not self._finished.is_set():
            delay = max(0, due - _now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for running in self._running.values():
            if running.process is not None:
                running.process.destroy()
                running.process = None
        self._status_file.unlink(missing_ok=True)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _last_words(lines: Sequence[str]) -> Sequence[str]:
    """What a child said at its end: an expected error whole, else its last line."""
    lines = [line for line in lines if line]
    begun = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    return lines[begun[-1] :] if begun and len(lines) - begun[-1] <= _ERROR_LINES else lines[-1:]


def _describe(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
