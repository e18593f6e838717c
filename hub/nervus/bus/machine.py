"""The pure part of a plane: what a shell runs live and a replay runs again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from nervus.bus.shard import Shard
from nervus.wire import Guard, RejectLane

Granted = Callable[[str], str | None]
"""From a device id to its granted `scope_level/scope`, None when there is no such device."""

TICK_MS: Final = 50
"""Least time between two ticks of a core, whatever is due."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a start of a plane differs by from any other start with the same settings.

    Args:
        seed: What its ids are drawn from, 64 bits.
        boot: When it started, unix seconds.
        house: Scope of what concerns the whole house.
        number: Which of several of its kind; 0 is the first.
        scopes: What each shard after the first owns, as level/name.
    """

    seed: int
    boot: int
    house: str
    number: int = 0
    scopes: tuple[frozenset[str], ...] = ()

    @property
    def shard(self) -> Shard:
        """Which scopes are its own, where several of its kind share the work."""
        return Shard(self.number, self.scopes)


class Core(Protocol):
    """A pure state machine.

    An event is an `Accepted`, a `Removed`, a `Connected`, or what was offered. Effects are
    `Publish`, `Rejected`, `Hold`, `Release`, and whatever the plane's own `commit` understands.
    """

    @property
    def due_ms(self) -> int:
        """When it is to be ticked next, unix milliseconds; 0 for as soon as may be.

        A tick before does nothing, so that it need not be called. Asked after each step and tick.
        """
        ...

    def step(self, event: Any, now_ms: int, /) -> Sequence[Any]:
        """Take one event at `now_ms`, unix milliseconds that never run backwards."""
        ...

    def tick(self, now_ms: int, /) -> Sequence[Any]:
        """Let time pass; called once something is due, `TICK_MS` after the last at least."""
        ...


class Handed(Protocol):
    """An effect of one member of a machine that another is offered as an event."""

    @property
    def key(self) -> str:
        """What tells it from others; those of one key say the same."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """Guard, core and reject lane of one start: the same inputs give the same outputs.

    Args:
        core: Steps and ticks; see `Core`.
        guard: Judges every packet.
        lane: Turns rejects into events; it shares the core's mint.
        events: Types of what is offered to the core besides packets: dataclasses of plain values,
            so that a journal can hold them.
        members: Of a machine that is several, each in a shell of its own beside the others: by
            name. One journal holds their inputs in the order in which they were taken.
        handed: Types of effects of one member that another is offered as events. They have a `key`,
            by which a replay finds again what it made itself.
    """

    core: Any
    guard: Guard
    lane: RejectLane
    events: tuple[type, ...] = ()
    members: Mapping[str, "Machine"] = field(default_factory=dict)
    handed: tuple[type[Handed], ...] = ()
