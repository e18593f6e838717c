"""One plane's process in the simulation: a machine, a shell's order of things, and its death."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from nervus.bus import Machine, Origin, numbered
from nervus.bus.journal_file import Happened, Input, Record, Start, Ticked, Took
from nervus.bus.machine import TICK_MS
from nervus.thalamus import Claim, Leases
from nervus.wire import Accepted, Connected, Hold, Packet, Publish, Rejected, Release, Removed
from nervus.wire.topic import TopicSpec

Build = Callable[[Origin], Machine]

_PLAIN = {kind: TypeAdapter(kind) for kind in (Connected, Leases)}


class Step(NamedTuple):
    """What happened in one step: the input, the guard's verdict if it was a packet, what came.

    `event` is what was offered beside packets; `sent` waits for `claims`, which the store answers;
    `held` are packets that are not to be acknowledged yet, and those that are from now on.
    """

    process: "Process"
    now_ms: int
    verdict: Accepted | Removed | Rejected | None
    event: Connected | Leases | None
    refused: Sequence[Rejected]
    sent: Sequence[Publish]
    claims: Sequence[Claim]
    held: Sequence[Hold | Release] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What a process is: its plane, which of several of its kind, what it takes, how it is built.

    Args:
        plane: As its journal and topics.json name it.
        takes: What it subscribes to on each broker.
        build: Makes the machine of a start.
        number: Which of several of the plane; 0 is the first.
    """

    plane: str
    takes: Mapping[str, Sequence[TopicSpec]]
    build: Build
    number: int = 0


class Process:
    """Runs a machine as the shell does, one incarnation after the other; keeps its journal.

    Args:
        part: What it is.
        keep: Whether to keep the inputs and outputs of the present incarnation.
    """

    def __init__(self, part: Part, *, keep: bool = True) -> None:
        self.plane = part.plane
        self.name = numbered(part.plane, part.number)
        self.takes = frozenset(
            (broker, spec.name) for broker, specs in part.takes.items() for spec in specs
        )
        self.alive = False
        self.incarnation = 0
        self.now_ms = 0
        self.committed_ms = 0
        """When its store has answered all it was asked; until then nothing is published."""
        self.journal: list[Record] = []
        self.log: list[Publish | Hold | Release | Claim] = []
        self.machine: Machine
        self.origin: Origin
        self._part = part
        self._keep = keep
        self._ticked_ms = 0

    @property
    def due_ms(self) -> int:
        """When it is ticked next, by its own clock."""
        machine = self.machine
        return max(min(machine.core.due_ms, machine.lane.due_ms), self._ticked_ms + TICK_MS)

    def start(self, seed: int, clock_ms: int) -> None:
        """A new incarnation that knows nothing."""
        self.incarnation += 1
        self.alive = True
        self.now_ms, self._ticked_ms, self.committed_ms = clock_ms, 0, 0
        self.origin = Origin(seed, clock_ms // 1000, "home", self._part.number)
        self.machine = self._part.build(self.origin)
        self.journal, self.log = [], []

    def kill(self) -> None:
        """Lose whatever it knew."""
        self.alive = False

    def offer(self, event: Connected | Leases, clock_ms: int) -> Step:
        """Something happened that is no packet: its session is up, its store has answered."""
        now_ms = self._time(clock_ms)
        if self._keep:
            kind = type(event)
            data = _PLAIN[kind].dump_python(event, mode="json")
            self._record(Happened(len(self.journal), now_ms, kind.__name__, data))
        return self._step(None, event, self.machine.core.step(event, now_ms))

    def take(self, packet: Packet, clock_ms: int) -> Step:
        """A packet came."""
        now_ms = self._time(clock_ms)
        if self._keep:
            self._record(Took(len(self.journal), now_ms, packet))
        verdict = self.machine.guard.judge(packet, now_ms)
        if type(verdict) is Rejected:
            return self._step(verdict, None, (verdict,))
        return self._step(verdict, None, self.machine.core.step(verdict, now_ms))

    def tick(self, clock_ms: int) -> Step | None:
        """Time passed; None while no tick is due, and where nothing comes of it."""
        now_ms = self._time(clock_ms)
        if now_ms < self.due_ms:
            return None
        self._ticked_ms = now_ms
        if self._keep:
            self._record(Ticked(len(self.journal), now_ms))
        effects = self.machine.core.tick(now_ms)
        told = self.machine.lane.tick(now_ms)
        return self._step(None, None, effects, told) if effects or told else None

    def start_record(self, settings: dict[str, Any]) -> Start:
        """What a journal of this incarnation begins with."""
        seed, boot, house = self.origin.seed, self.origin.boot, self.origin.house
        return Start(self.plane, "", "", settings, seed, boot, house, copy=self._part.number)

    def _time(self, clock_ms: int) -> int:
        # As the shell: the core's time never runs backwards.
        self.now_ms = max(self.now_ms, clock_ms)
        return self.now_ms

    def _step(
        self,
        verdict: Accepted | Removed | Rejected | None,
        event: Connected | Leases | None,
        effects: Sequence[Any],
        more: Sequence[Publish] = (),
    ) -> Step:
        if not effects and not more:
            return Step(self, self.now_ms, verdict, event, (), (), ())
        sent: list[Publish] = []
        said: list[Publish | Hold | Release] = []
        refused: list[Rejected] = []
        claims: list[Claim] = []
        for effect in effects:
            if type(effect) is Publish:
                sent.append(effect)
                said.append(effect)
            elif isinstance(effect, Rejected):
                refused.append(effect)
                told = self.machine.lane.step(effect, self.now_ms)
                sent += told
                said += told
            elif isinstance(effect, Hold | Release):
                said.append(effect)
            else:
                claims.append(effect)
        if self._keep:
            # What a core asks of the store comes last of what it does.
            self.log += [*said, *claims, *more]
        sent += more
        held = [effect for effect in said if type(effect) is not Publish]
        return Step(self, self.now_ms, verdict, event, refused, sent, claims, held)

    def _record(self, record: Input) -> None:
        self.journal.append(record)
