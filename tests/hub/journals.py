"""Journals written for tests, and machines small enough to see through."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervus.bus import Granted, Journal, JournalRun, JournalSettings, Machine, Start
from nervus.wire import Accepted, Guard, Mint, RejectLane, topics
from nervus.wire.contracts import RelayBundle

START = Start(
    plane="relay", version="1", code="c0de", settings={}, seed=5, boot=1_790_000_000, house="home"
)


@dataclass(frozen=True)
class Offered:
    """An event beside packets, of values that a journal can hold."""

    number: int
    names: tuple[str, ...] = ()


class Echo:
    """Says what it was given: each bundle again, each other event as its own effect."""

    due_ms = 0

    def __init__(self, mint: Mint) -> None:
        self._mint = mint
        self.events: list[Any] = []

    def step(self, event: Any, now_ms: int) -> Sequence[Any]:
        self.events.append(event)
        if not isinstance(event, Accepted):
            return [event]
        address = topics.gated_relay("room", "kitchen", "somatic")
        return [
            self._mint.full(
                RelayBundle, address, event.message.payload, now_ms, cause=event.message
            )
        ]

    def tick(self, now_ms: int) -> Sequence[Any]:
        del now_ms
        return ()


def echo(granted: Granted) -> Machine:
    """A machine around Echo, with the seed of START."""
    mint = Mint("relay", "thalamus", seed=START.seed, boot=START.boot)
    guard = Guard([topics.RELAY_BUNDLE, topics.AFFERENT], granted=granted)
    return Machine(Echo(mint), guard, RejectLane(mint, START.house), (Offered,))


def journal(folder: Path, start: Start = START, **settings: Any) -> Journal:
    """A journal that knows Offered."""
    return Journal(folder, start, JournalSettings(enabled=True, **settings), (Offered,))


def only_run(folder: Path) -> JournalRun:
    """The one run of a folder."""
    (run,) = JournalRun.all_of(folder)
    return run


def of(kind: type, records: Iterable[Any]) -> list[Any]:
    """The records of one kind."""
    return [record for record in records if isinstance(record, kind)]
