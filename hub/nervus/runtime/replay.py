"""What was recorded, run again: as it was, or with other parameters."""

import copy
import heapq
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from nervus import brainstem, history, policy, reflect, thalamus
from nervus.bus import (
    Granted,
    JournalError,
    JournalRun,
    Machine,
    Origin,
    Replay,
    Replayed,
    Start,
    code_fingerprint,
    publishes,
)
from nervus.bus.journal_file import Record, Sent, Took
from nervus.errors import UsageError, first_refusal
from nervus.runtime.divergence import Divergence, compare
from nervus.runtime.state import StateFolder
from nervus.wire import Packet, Publish, encode, topics
from nervus.wire.topic_parser import parse

Build = Callable[[Any, Origin, Granted], Machine]


class ReplayError(UsageError):
    """What is asked for cannot be replayed: names the key, the rule or the range."""


@dataclass(frozen=True, slots=True)
class Plane:
    """A plane that can be run again: its journal's name, its table of nervus.toml, its machine."""

    name: str
    table: str
    settings: type[BaseModel]
    build: Build


PLANES: Final[dict[str, Plane]] = {
    plane.name: plane
    for plane in (
        Plane("brainstem", "brainstem", brainstem.BrainstemSettings, brainstem.build),
        Plane("relay", "thalamus", thalamus.ThalamusSettings, thalamus.build),
        Plane("raw", "thalamus", thalamus.RawSettings, thalamus.build_raw),
        Plane("reflect", "reflect", reflect.ReflectSettings, reflect.build),
        Plane("history", "history", history.HistorySettings, history.build),
        Plane("command", "command", policy.CommandSettings, policy.build),
        Plane("gatekeeper", "thalamus", thalamus.ThalamusSettings, thalamus.build_gatekeeper),
    )
}


def runs(state: StateFolder, plane: str, from_ms: int, to_ms: int) -> list[JournalRun]:
    """Return what a plane journalled in [from_ms, to_ms), unix milliseconds, oldest first.

    A run begins with its start, which may lie before: what the machine knew at `from_ms` is
    known only by running it from there.
    """
    folders = sorted((state.data / "journal").glob(f"{plane}*"))
    # Further ones of a kind are numbered: gatekeeper, gatekeeper-1.
    named = [one for one in folders if one.name.rstrip("0123456789").rstrip("-") == plane]
    found = [run for folder in named for run in JournalRun.all_of(folder)]
    return [run for run in found if run.boot * 1000 < to_ms and run.changed_ms >= from_ms]


def replay_of(start: Start, changes: Mapping[str, Any] | None = None) -> Replay:
    """Return a replay of the machine that a start describes, some settings changed.

    Raises:
        ReplayError: There is no such setting, or its value breaks a rule.
        JournalError: The plane cannot be replayed, or its recorded settings do not fit.
    """
    plane = PLANES.get(start.plane)
    if plane is None:
        raise JournalError(
            f"the plane {start.plane!r} cannot be replayed", hint=f"one of {', '.join(PLANES)}"
        )
    settings = _settings(plane, start.settings, changes or {})
    scopes = tuple(frozenset(scopes) for scopes in start.scopes)
    origin = Origin(start.seed, start.boot, start.house, start.copy, scopes)
    return Replay(lambda granted: plane.build(settings, origin, granted))


def replayed(run: JournalRun, changes: Mapping[str, Any] | None = None) -> Iterator[Replayed]:
    """Yield what comes of each input of a run; see `replay_of`."""
    return replay_of(run.start(), changes).run(run.records(), timely=bool(changes))


def _settings(plane: Plane, recorded: dict[str, Any], changes: Mapping[str, Any]) -> BaseModel:
    wanted = copy.deepcopy(recorded)
    for key, value in changes.items():
        *path, name = key.split(".")
        table = wanted
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ReplayError(f"{plane.table}.{key}: there is no such setting")
        table[name] = value
    try:
        return plane.settings.model_validate(wanted)
    except ValidationError as error:
        keys, rule = first_refusal(error)
        where = ".".join((plane.table, *keys))
        if changes:
            hint = f"the plane's README explains [{plane.table}]"
            raise ReplayError(f"{where}: {rule}", hint=hint) from error
        raise JournalError(
            f"recorded settings do not fit this program: {where}: {rule}",
            where=plane.name,
            hint="replay it with the version of the program that recorded it",
        ) from error


def change(text: str) -> tuple[str, str, Any]:
    """Read `thalamus.aggregate_ms=500` as table, dotted key and TOML value.

    Raises:
        ReplayError: It is not of that form, or no plane that can be replayed has such a table.
    """
    name, equals, written = text.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise ReplayError(f"{text!r} changes nothing", hint="write thalamus.aggregate_ms=500")
    tables = sorted({plane.table for plane in PLANES.values()})
    if table not in tables:
        raise ReplayError(
            f"{name}: [{table}] cannot be changed in a replay", hint=f"one of {', '.join(tables)}"
        )
    try:
        value = tomllib.loads(f"value = {written.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = written.strip()
    return table, key, value


@dataclass(slots=True)
class Verified:
    """What a plane's journal replays to, as it was.

    Args:
        inputs: Replayed in the range.
        outputs: What came of them.
        agreed: Inputs of which the same came as then.
        differed: Inputs of which something else came; `first` is the number of the first.
        unsaid: Inputs of which the journal does not say what came.
        exact: Whether every input since each start was there.
        other_code: Whether another program or registry recorded it.
    """

    plane: str
    inputs: int = 0
    outputs: int = 0
    agreed: int = 0
    differed: int = 0
    unsaid: int = 0
    first: int | None = None
    exact: bool = True
    other_code: bool = False


def verify(plane: str, found: Sequence[JournalRun], from_ms: int, to_ms: int) -> Verified:
    """Replay a plane as it was and count where the same came of its inputs."""
    result = Verified(plane)
    for run in found:
        start = run.start()
        replay = replay_of(start)
        result.other_code |= start.code != code_fingerprint()
        for one in within(replay.run(run.records()), from_ms, to_ms):
            result.inputs += 1
            result.outputs += len(one.effects)
            result.agreed += one.agrees is True
            result.unsaid += one.agrees is None
            result.differed += one.agrees is False
            if one.agrees is False and result.first is None:
                result.first = one.input.number
        result.exact &= replay.exact and run.complete
    return result


def within(replayed: Iterable[Replayed], from_ms: int, to_ms: int) -> Iterator[Replayed]:
    """Yield what lies in [from_ms, to_ms); nothing later is taken at all."""
    for one in replayed:
        if one.input.now_ms >= to_ms:
            return
        if one.input.now_ms >= from_ms:
            yield one


def diverge(
    found: Mapping[str, Sequence[JournalRun]],
    from_ms: int,
    to_ms: int,
    changes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Divergence]:
    """Replay planes twice, as they were and with changed settings, and compare.

    Where brainstem is changed, the relay is too: each time it gets the bundles of that replay in
    place of the recorded ones, at the moment they were made.

    Args:
        found: Runs of each plane.
        from_ms: What came of inputs from here on is compared, unix milliseconds …
        to_ms: … and before here.
        changes: By table of nervus.toml, dotted key to value.

    Raises:
        ReplayError: A change names no setting, or its value breaks a rule.
        JournalError: A journal cannot be replayed.
    """
    result = {}
    for plane, journals in found.items():
        changed = changes.get(PLANES[plane].table, {})
        rewired = plane == "relay" and "brainstem" in found and "brainstem" in changes
        if not changed and not rewired:
            continue
        drivers = (found["brainstem"], changes["brainstem"]) if rewired else None
        was = _Sent(journals, {}, drivers and (drivers[0], {}))
        other = _Sent(journals, changed, drivers)
        result[plane] = compare(was.between(from_ms, to_ms), other.between(from_ms, to_ms))
        result[plane].inputs = was.inputs
    if not result:
        raise ReplayError(
            f"no plane of [{next(iter(changes))}] journalled anything in this range",
            hint=f"there are journals of {', '.join(found)}",
        )
    return result


class _Sent:
    """What a plane sends in a replay; counts its inputs."""

    def __init__(
        self,
        journals: Sequence[JournalRun],
        changes: Mapping[str, Any],
        drivers: tuple[Sequence[JournalRun], Mapping[str, Any]] | None,
    ) -> None:
        self.inputs = 0
        self._journals = journals
        self._changes = changes
        self._drivers = drivers

    def between(self, from_ms: int, to_ms: int) -> Iterator[tuple[int, Publish]]:
        for run in self._journals:
            replay = replay_of(run.start(), self._changes)
            changed = bool(self._changes or (self._drivers and self._drivers[1]))
            for one in within(replay.run(self._records(run), timely=changed), from_ms, to_ms):
                self.inputs += 1
                yield from publishes([one])

    def _records(self, run: JournalRun) -> Iterator[Record]:
        if self._drivers is None:
            yield from run.records()
            return
        since_ms, until_ms = run.boot * 1000, run.changed_ms
        bundles = (
            (at_ms, _taken(at_ms, publish))
            for driver in self._drivers[0]
            for at_ms, publish in publishes(replayed(driver, self._drivers[1]))
            if publish.address.spec is topics.RELAY_BUNDLE and since_ms <= at_ms <= until_ms
        )
        for _, record in heapq.merge(_others(run), bundles, key=itemgetter(0)):
            yield record


def _others(run: JournalRun) -> Iterator[tuple[int, Record]]:
    """What a run took beside driver messages; what came of it then is no longer of interest."""
    at_ms = 0
    for record in run.records():
        at_ms = getattr(record, "now_ms", at_ms)
        driver = isinstance(record, Took) and _is_driver(record.packet)
        if not driver and not isinstance(record, Sent):
            yield at_ms, record


def _is_driver(packet: Packet) -> bool:
    """Whether a packet is a driver message, well formed or not."""
    address = parse(packet.topic)
    return address is not None and address.spec is topics.RELAY_BUNDLE


def _taken(at_ms: int, publish: Publish) -> Took:
    return Took(-1, at_ms, Packet("core", publish.address.topic, encode(publish.message)))
