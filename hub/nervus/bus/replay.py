"""Runs a machine again from its journal, and says where what comes of it is not what came then."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nervus.bus.journal import output_line
from nervus.bus.journal_file import (
    Answered,
    Happened,
    Input,
    JournalError,
    Lost,
    Record,
    Refused,
    Sent,
    Start,
    Ticked,
    Took,
    Torn,
    Turn,
)
from nervus.bus.machine import TICK_MS, Granted, Machine
from nervus.wire import Connected, Publish, Rejected

Effects = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one input; `agrees` with what came then, None where the journal does not say."""

    input: Input
    effects: Effects
    agrees: bool | None

    def lines(self) -> bytes:
        """Its part of the output log: the number of the input, then the output, for each."""
        head = f"{self.input.number} ".encode()
        return b"".join(head + output_line(effect) for effect in self.effects)


class Replay:
    """A machine run by recorded inputs, as the shell ran it.

    Args:
        build: Makes the machine from the function that says what a device is granted.
    """

    def __init__(self, build: Callable[[Granted], Machine]) -> None:
        self._answers: dict[str, str | None] = {}
        self.machine = build(self._answers.get)
        self._events: dict[str, TypeAdapter[Any]] = {
            kind.__name__: TypeAdapter(kind) for kind in (Connected, *self.machine.events)
        }
        self._turn, self._member = "", self.machine
        self._ticked_ms: dict[str, int] = {}
        self._now_ms = 0
        self._handed: dict[tuple[str, str], deque[Any]] = {}
        self.exact = True
        """Whether every input since the start was there."""

    def run(self, records: Iterable[Record], *, timely: bool = False) -> Iterator[Replayed]:
        """Yield what comes of each recorded input.

        Args:
            records: A start and what followed.
            timely: Tick it also when no tick was recorded and something is due: with other
                settings that is at other times. Such a tick has the number -1.

        Raises:
            JournalError: An event is of a kind that this machine does not know.
        """
        waiting: tuple[Input, Effects] | None = None
        known = True
        for record in self._timely(records) if timely else records:
            match record:
                case Start():
                    pass
                case Turn(member):
                    self._turn, self._member = member, self.machine.members[member]
                case Answered(device_id, scope):
                    self._answers[device_id] = scope
                case Lost() | Torn():
                    self.exact = False
                    known = known and isinstance(record, Torn)
                case Sent(number, count, digest):
                    if waiting is not None and waiting[0].number == number:
                        agrees = (count, digest) == _digest(waiting[1]) if known else None
                        yield Replayed(*waiting, agrees)
                        waiting, known = None, True
                case _:
                    if waiting is not None:
                        # Nothing was recorded to have come of it.
                        yield Replayed(*waiting, not waiting[1] if known else None)
                        known = True
                    waiting = record, self.take(record)
        if waiting is not None:
            yield Replayed(*waiting, agrees=None)

    def take(self, event: Input) -> Effects:
        """Give the machine one input; returns its effects, rejects as what the lane sends."""
        machine, now_ms = self._member, event.now_ms
        match event:
            case Took():
                verdict = machine.guard.judge(event.packet, now_ms)
                if isinstance(verdict, Rejected):
                    return tuple(machine.lane.step(verdict, now_ms))
                return self._applied(machine.core.step(verdict, now_ms), now_ms)
            case Ticked():
                effects = self._applied(machine.core.tick(now_ms), now_ms)
                return (*effects, *machine.lane.tick(now_ms))
            case Happened():
                return self._applied(machine.core.step(self._event(event), now_ms), now_ms)
            case Refused():
                return tuple(machine.lane.step(event.rejected, now_ms))

    def _missed(self, event: Input) -> Iterator[Record]:
        """The ticks before an input that a shell would not have left out."""
        taking = self._turn
        for name, member in (self.machine.members or {"": self.machine}).items():
            ticked_ms = self._ticked_ms.get(name, event.now_ms)
            while True:
                due_ms = min(member.core.due_ms, member.lane.due_ms)
                due_ms = max(due_ms, ticked_ms + TICK_MS, self._now_ms)
                if due_ms + TICK_MS > event.now_ms:
                    break
                ticked_ms = due_ms
                if self._turn != name:
                    yield Turn(name)
                yield Ticked(-1, due_ms)
            ticks = name == taking and isinstance(event, Ticked)
            self._ticked_ms[name] = event.now_ms if ticks else ticked_ms
        if self._turn != taking:
            yield Turn(taking)
        self._now_ms = event.now_ms

    def _timely(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if isinstance(record, Input):
                yield from self._missed(record)
            yield record

    def _applied(self, effects: Sequence[Any], now_ms: int) -> Effects:
        applied: list[Any] = []
        for effect in effects:
            if isinstance(effect, Rejected):
                applied += self._member.lane.step(effect, now_ms)
                continue
            applied.append(effect)
            if isinstance(effect, self.machine.handed):
                key = (type(effect).__name__, effect.key)
                self._handed.setdefault(key, deque()).append(effect)
        return tuple(applied)

    def _event(self, event: Happened) -> Any:
        if event.name in {kind.__name__ for kind in self.machine.handed}:
            return self._made(event)
        adapter = self._events.get(event.name)
        if adapter is None:
            raise JournalError(
                f"the event {event.name} cannot be replayed",
                where=f"input {event.number}",
                hint="the plane's machine has to name it among its events",
            )
        try:
            return adapter.validate_python(event.data)
        except ValidationError as error:
            raise JournalError(
                f"the event {event.name} does not fit this program",
                where=f"input {event.number}",
                hint="replay it with the version that recorded it",
            ) from error

    def _made(self, event: Happened) -> Any:
        """What the replay itself made, and now hands on."""
        waiting = self._handed.get((event.name, str(event.data)))
        if not waiting:
            raise JournalError(
                f"the {event.name} that was handed on was not made in the replay",
                where=f"input {event.number}",
                hint="the journal lacks inputs before it, or another program recorded it",
            )
        return waiting.popleft()


def publishes(replayed: Iterable[Replayed]) -> Iterator[tuple[int, Publish]]:
    """Yield what was sent, with the time of its input."""
    for one in replayed:
        for effect in one.effects:
            if isinstance(effect, Publish):
                yield one.input.now_ms, effect


def _digest(effects: Effects) -> tuple[int, str]:
    digest = blake2b(digest_size=8)
    for effect in effects:
        digest.update(output_line(effect))
    return len(effects), digest.hexdigest()
