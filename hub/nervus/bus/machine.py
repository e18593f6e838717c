"""The pure part of a plane: what a shell runs live and a replay runs again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nervus.bus.shard import Shard
from nervus.wire import Guard, RejectLane

Granted = Callable[[str], str | None]
"""From a device id to its granted `scope_level/scope`, None when there is no such device."""


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


@dataclass(frozen=True, slots=True)
class Machine:
    """Guard, core and reject lane of one start: the same inputs give the same outputs.

    Args:
        core: Steps and ticks; see `Core`.
        guard: Judges every packet.
        lane: Turns rejects into events; it shares the core's mint.
        events: Types of what is offered to the core besides packets: dataclasses of plain values,
            so that a journal can hold them.
    """

    core: Any
    guard: Guard
    lane: RejectLane
    events: tuple[type, ...] = ()
