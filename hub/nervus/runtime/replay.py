"""What was recorded, run again: as it was, or with other parameters."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from nervus import brainstem, thalamus
from nervus.bus import (
    Granted,
    JournalError,
    JournalRun,
    Machine,
    Origin,
    Replay,
    Replayed,
    Start,
)
from nervus.errors import UsageError
from nervus.runtime.state import StateFolder

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
        Plane("gatekeeper", "thalamus", thalamus.ThalamusSettings, thalamus.build_gatekeeper),
    )
}


def runs(state: StateFolder, plane: str, from_ms: int, to_ms: int) -> list[JournalRun]:
    """Return what a plane journalled in [from_ms, to_ms), unix milliseconds, oldest first.

    A run begins with its start, which may lie before: what the machine knew at `from_ms` is
    known only by running it from there.
    """
    found = JournalRun.all_of(state.data / "journal" / plane)
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
    origin = Origin(start.seed, start.boot, start.house, start.copy)
    return Replay(lambda granted: plane.build(settings, origin, granted))


def replayed(run: JournalRun, changes: Mapping[str, Any] | None = None) -> Iterator[Replayed]:
    """Yield what comes of each input of a run; see `replay_of`."""
    return replay_of(run.start(), changes).run(run.records())


def _settings(plane: Plane, recorded: dict[str, Any], changes: Mapping[str, Any]) -> BaseModel:
    unknown = sorted(set(changes) - set(plane.settings.model_fields))
    if unknown:
        raise ReplayError(
            f"{plane.table}.{unknown[0]}: there is no such setting",
            hint=f"one of {', '.join(plane.settings.model_fields)}",
        )
    try:
        return plane.settings.model_validate(recorded | dict(changes))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        rule = first["msg"].removeprefix("Value error, ").lower()
        if changes:
            where = ".".join(filter(None, (plane.table, name)))
            raise ReplayError(f"{where}: {rule}", hint="give another value") from error
        raise JournalError(
            f"recorded settings do not fit this program: {name}: {rule}", where=plane.name
        ) from error
