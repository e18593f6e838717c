"""One plane's process in the simulation: a machine, a shell's order of things, and its death."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nervus.bus import Machine, Origin
from nervus.bus.journal_file import Happened, Input, Record, Start, Ticked, Took
from nervus.wire import Accepted, Connected, Packet, Publish, Rejected, Removed
from nervus.wire.topic import TopicSpec

Build = Callable[[Origin], Machine]


@dataclass(frozen=True, slots=True)
class Step:
    """What happened in one step: the input, the guard's verdict if it was a packet, what came."""

    process: "Process"
    now_ms: int
    verdict: Accepted | Removed | Rejected | None
    refused: tuple[Rejected, ...]
    sent: tuple[Publish, ...]


class Process:
    """Runs a machine as the shell does, one incarnation after the other; keeps its journal.

    Args:
        name: Its plane.
        takes: What it subscribes to on each broker.
        build: Makes the machine of a start.
        keep: Whether to keep the inputs of the present incarnation.
    """

    def __init__(
        self,
        name: str,
        takes: Mapping[str, Sequence[TopicSpec]],
        build: Build,
        *,
        keep: bool = True,
    ) -> None:
        self.name = name
        self.takes = frozenset(
            (broker, spec.name) for broker, specs in takes.items() for spec in specs
        )
        self.alive = False
        self.incarnation = 0
        self.now_ms = 0
        self.journal: list[Record] = []
        self.log: list[Publish] = []
        self._keep = keep
        self._build = build
        self._tick_due_ms = 0
        self.machine: Machine
        self.origin: Origin

    def start(self, seed: int, clock_ms: int) -> None:
        """A new incarnation that knows nothing."""
        self.incarnation += 1
        self.alive = True
        self.now_ms, self._tick_due_ms = clock_ms, 0
        self.origin = Origin(seed, clock_ms // 1000, "home")
        self.machine = self._build(self.origin)
        self.journal, self.log = [], []

    def kill(self) -> None:
        """Lose whatever it knew."""
        self.alive = False

    def connected(self, broker: Any, clock_ms: int) -> Step:
        """Its session is up."""
        now_ms = self._time(clock_ms)
        self._record(Happened(len(self.journal), now_ms, "Connected", {"broker": broker}))
        return self._step(None, self.machine.core.step(Connected(broker), now_ms))

    def take(self, packet: Packet, clock_ms: int) -> Step:
        """A packet came."""
        now_ms = self._time(clock_ms)
        self._record(Took(len(self.journal), now_ms, packet))
        verdict = self.machine.guard.judge(packet, now_ms)
        if isinstance(verdict, Rejected):
            return self._step(verdict, [verdict])
        return self._step(verdict, self.machine.core.step(verdict, now_ms))

    def tick(self, clock_ms: int) -> Step | None:
        """Time passed; None while no tick is due."""
        now_ms = self._time(clock_ms)
        if now_ms < self._tick_due_ms:
            return None
        self._tick_due_ms = now_ms + 50
        self._record(Ticked(len(self.journal), now_ms))
        effects = self.machine.core.tick(now_ms)
        return self._step(None, effects, self.machine.lane.tick(now_ms))

    def start_record(self, settings: dict[str, Any]) -> Start:
        """What a journal of this incarnation begins with."""
        seed, boot, house = self.origin.seed, self.origin.boot, self.origin.house
        return Start(self.name, "", "", settings, seed, boot, house)

    def _time(self, clock_ms: int) -> int:
        # As the shell: the core's time never runs backwards.
        self.now_ms = max(self.now_ms, clock_ms)
        return self.now_ms

    def _step(
        self,
        verdict: Accepted | Removed | Rejected | None,
        effects: Sequence[Any],
        more: Sequence[Publish] = (),
    ) -> Step:
        sent: list[Publish] = []
        refused = []
        for effect in effects:
            if isinstance(effect, Rejected):
                refused.append(effect)
                sent += self.machine.lane.step(effect, self.now_ms)
            else:
                sent.append(effect)
        sent += more
        if self._keep:
            self.log += sent
        return Step(self, self.now_ms, verdict, tuple(refused), tuple(sent))

    def _record(self, record: Input) -> None:
        if self._keep:
            self.journal.append(record)
