"""When to start, restart, stop and kill children: the supervisor's pure core.

Children start stage by stage, each stage once the one before it was ready, and stop in the
opposite order. A child that ends without being told to is started again after a pause that doubles
up to a cap and falls back once the child stayed up for a while.

A child that is not ready in time is killed and started again, with twice the time: what hangs is
not left hanging, and what merely starves on a busy machine comes up, instead of starving again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

EXIT_MISUSE: Final = 2


class ChildState(StrEnum):
    """Where a child stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Timing:
    """Pauses and deadlines, all in milliseconds.

    `ready_ms` doubles with each start that takes longer, up to `longest_ready_ms`.
    """

    first_pause_ms: int = 100
    longest_pause_ms: int = 10_000
    healthy_ms: int = 30_000
    ready_ms: int = 30_000
    longest_ready_ms: int = 480_000
    stop_ms: int = 8_000


@dataclass(frozen=True, slots=True)
class Ready:
    """A child said that it serves."""

    name: str


@dataclass(frozen=True, slots=True)
class Exited:
    """A child ended, or could not be started; `code` is negative for a signal."""

    name: str
    code: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The system is to stop."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a child."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask a child to stop."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a child that missed its deadline to be ready or to stop, so many milliseconds."""

    name: str
    after_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """No child is left; `failed` names one that refused its settings."""

    failed: str | None = None


Event = Ready | Exited | Stop
Effect = Spawn | Terminate | Kill | Finished


@dataclass(slots=True)
class _Child:
    stage: int
    ready_ms: int
    state: ChildState = ChildState.WAITING
    since_ms: int = 0
    pause_ms: int = 0
    restarts: int = 0
    was_ready: bool = False


_RUNNING: Final = frozenset({ChildState.STARTING, ChildState.READY, ChildState.STOPPING})


class Supervision:
    """Decides; `step` and `tick` return what the shell has to do.

    Args:
        stages: Names of the children, stage by stage.
        timing: Pauses and deadlines.
    """

    def __init__(self, stages: Iterable[Iterable[str]], timing: Timing) -> None:
        self._timing = timing
        self._children = {
            name: _Child(stage, timing.ready_ms)
            for stage, names in enumerate(stages)
            for name in names
        }
        self._stopping = False
        self._finished = False
        self._failed: str | None = None

    def state(self, name: str) -> ChildState:
        """Return where a child stands."""
        return self._children[name].state

    def restarts(self, name: str) -> int:
        """Return how often a child was started again."""
        return self._children[name].restarts

    @property
    def all_ready(self) -> bool:
        """Whether every child serves."""
        return all(child.state is ChildState.READY for child in self._children.values())

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Take an event.

        Args:
            event: What happened.
            now_ms: A monotonic clock.
        """
        match event:
            case Ready(name):
                child = self._children[name]
                if child.state is ChildState.STARTING:
                    child.was_ready = True
                    child.ready_ms = self._timing.ready_ms
                    self._enter(child, ChildState.READY, now_ms)
            case Exited(name, code):
                self._exited(name, code, now_ms)
            case Stop():
                self._stopping = True
        return self.tick(now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Do what is due."""
        if self._stopping:
            return self._stop_due(now_ms)
        effects: list[Effect] = []
        stage = self._open_stage()
        for name, child in self._children.items():
            age_ms = now_ms - child.since_ms
            match child.state:
                case ChildState.WAITING if child.stage <= stage:
                    self._enter(child, ChildState.STARTING, now_ms)
                    effects.append(Spawn(name))
                case ChildState.PAUSED if age_ms >= child.pause_ms:
                    child.restarts += 1
                    self._enter(child, ChildState.STARTING, now_ms)
                    effects.append(Spawn(name))
                case ChildState.STARTING if age_ms >= child.ready_ms:
                    child.since_ms = now_ms
                    effects.append(Kill(name, child.ready_ms))
                    child.ready_ms = min(child.ready_ms * 2, self._timing.longest_ready_ms)
                case _:
                    pass
        return effects

    def next_ms(self) -> int | None:
        """Return when `tick` has something to do next, unless an event comes first."""
        timed = (
            {ChildState.STOPPING} if self._stopping else {ChildState.STARTING, ChildState.PAUSED}
        )
        due = [
            child.since_ms + self._limit_ms(child)
            for child in self._children.values()
            if child.state in timed
        ]
        return min(due, default=None)

    def _limit_ms(self, child: _Child) -> int:
        match child.state:
            case ChildState.STARTING:
                return child.ready_ms
            case ChildState.STOPPING:
                return self._timing.stop_ms
            case _:
                return child.pause_ms

    def _exited(self, name: str, code: int, now_ms: int) -> None:
        child = self._children[name]
        if self._stopping:
            self._enter(child, ChildState.STOPPED, now_ms)
            return
        if code == EXIT_MISUSE and not child.was_ready:
            # Its settings are wrong: trying again cannot help.
            self._enter(child, ChildState.STOPPED, now_ms)
            self._stopping = True
            self._failed = name
            return
        healthy = (
            child.state is ChildState.READY and now_ms - child.since_ms >= self._timing.healthy_ms
        )
        if healthy or child.pause_ms == 0:
            child.pause_ms = self._timing.first_pause_ms
        else:
            child.pause_ms = min(child.pause_ms * 2, self._timing.longest_pause_ms)
        self._enter(child, ChildState.PAUSED, now_ms)

    def _open_stage(self) -> int:
        """Return the highest stage that may start: all stages below were ready once."""
        unready = [child.stage for child in self._children.values() if not child.was_ready]
        return min(unready, default=len(self._children))

    def _stop_due(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        for child in self._children.values():
            if child.state in {ChildState.WAITING, ChildState.PAUSED}:
                self._enter(child, ChildState.STOPPED, now_ms)
        running = {name: c for name, c in self._children.items() if c.state in _RUNNING}
        if not running:
            if not self._finished:
                self._finished = True
                effects.append(Finished(self._failed))
            return effects
        top = max(child.stage for child in running.values())
        for name, child in running.items():
            if child.stage < top:
                continue
            if child.state is not ChildState.STOPPING:
                self._enter(child, ChildState.STOPPING, now_ms)
                effects.append(Terminate(name))
            elif now_ms - child.since_ms >= self._timing.stop_ms:
                child.since_ms = now_ms
                effects.append(Kill(name, self._timing.stop_ms))
        return effects

    @staticmethod
    def _enter(child: _Child, state: ChildState, now_ms: int) -> None:
        child.state = state
        child.since_ms = now_ms
