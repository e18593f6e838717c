"""The journal of a machine's inputs: what it takes to run it again, byte for byte."""

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, Protocol, Self

from pydantic import BaseModel, TypeAdapter

from nervus import resources
from nervus.about import VERSION
from nervus.bus.context import Context
from nervus.bus.journal_file import (
    MAGIC,
    SUFFIX,
    Start,
    frame,
    line,
    packet_fields,
    refused_fields,
    segment_name,
    start_line,
)
from nervus.bus.journal_settings import JournalSettings
from nervus.bus.machine import Granted, Handed, Origin
from nervus.wire import Connected, Packet, Publish, Rejected

_LOG: Final = logging.getLogger(__name__)
_MIB: Final = 1 << 20
_ANSWERS: Final = 4_096
_Item = tuple[Any, ...]


@dataclass(slots=True)
class JournalCounters:
    """What a journal has done since it was opened."""

    inputs: int = 0
    lost: int = 0
    bytes: int = 0
    segments: int = 0
    deleted: int = 0


class Recorder(Protocol):
    """What a shell tells of its machine."""

    def packet(self, now_ms: int, packet: Packet) -> None:
        """Record a packet, before its outputs and after what the guard asked for it."""
        ...

    def tick(self, now_ms: int) -> None:
        """Record that time passed."""
        ...

    def event(self, now_ms: int, event: object) -> None:
        """Record an event that did not come by MQTT."""
        ...

    def refused(self, now_ms: int, rejected: Rejected) -> None:
        """Record a reject that the shell made itself."""
        ...

    def output(self, effect: object) -> None:
        """Add to the digest of what came of the last input."""
        ...


class Journal:
    """Records every input of a machine in order, and a digest of what came of each.

    A call appends to a bounded queue and returns; a thread of its own encodes, compresses and
    writes. When that thread is behind or the disk fails, records are dropped and counted, and the
    journal says where: replay is exact up to there. A killed process loses the last 200 ms.

    Args:
        folder: The plane's folder; created if missing.
        start: What the machine is built from.
        settings: Sizes.
        events: Types of what is offered to the core; others are recorded by name alone.
        handed: Types of what one member makes and another is offered: recorded by their `key`.
    """

    queue_limit: ClassVar[int] = 65_536
    """Records not yet written; beyond it they are dropped."""

    flush_s: ClassVar[float] = 0.2
    """How long a record waits to be written with others."""

    frame_records: ClassVar[int] = 4_096
    """Records in one frame at most."""

    def __init__(
        self,
        folder: Path,
        start: Start,
        settings: JournalSettings,
        events: tuple[type, ...] = (),
        handed: tuple[type[Handed], ...] = (),
    ) -> None:
        self.counters = JournalCounters()
        self._folder = folder
        self._start = start
        self._settings = settings
        self._events: dict[str, TypeAdapter[Any]] = {
            kind.__name__: TypeAdapter(kind) for kind in (Connected, *events)
        }
        self._handed = handed
        self._turn = ""
        self._pending: deque[_Item] = deque()
        self._number = 0
        self._unsaid = 0
        self._answers: dict[str, str | None] = {}
        self._broken = False
        self._ended = threading.Event()
        self._outputs = _Outputs()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._begin(start)
        self._writer = threading.Thread(
            target=self._write_all, name=f"journal {start.plane}", daemon=True
        )
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def member(self, name: str) -> Recorder:
        """Return what records the inputs of one member of a machine that is several."""
        return _Member(self, name)

    def packet(self, now_ms: int, packet: Packet, member: str = "") -> None:
        """Record a packet, before its outputs and after what the guard asked for it."""
        self._input("p", now_ms, packet, member)

    def tick(self, now_ms: int, member: str = "") -> None:
        """Record that time passed."""
        self._input("t", now_ms, None, member)

    def event(self, now_ms: int, event: object, member: str = "") -> None:
        """Record an event that did not come by MQTT."""
        self._input("e", now_ms, event, member)

    def refused(self, now_ms: int, rejected: Rejected, member: str = "") -> None:
        """Record a reject that the shell made itself."""
        self._input("r", now_ms, rejected, member)

    def output(self, effect: object) -> None:
        """Add to the digest of what came of the last input."""
        self._put(("o", effect))

    def granted(self, ask: Granted) -> Granted:
        """Return `ask` with its answers recorded wherever they change."""

        def answered(device_id: str) -> str | None:
            scope = ask(device_id)
            if device_id not in self._answers or self._answers[device_id] != scope:
                if len(self._answers) >= _ANSWERS:
                    self._answers.clear()
                self._answers[device_id] = scope
                self._put(("g", device_id, scope))
            return scope

        return answered

    def close(self) -> None:
        """Write what waits and end the thread. Closing twice is harmless."""
        self._ended.set()
        self._writer.join()

    def _input(self, kind: str, now_ms: int, value: object, member: str) -> None:
        number = self._number
        self._number += 1
        self.counters.inputs += 1
        self._put((kind, number, now_ms, value, member))

    def _put(self, item: _Item) -> None:
        if self._broken or len(self._pending) >= self.queue_limit:
            self.counters.lost += 1
            self._unsaid += 1
            return
        if self._unsaid:
            self._pending.append(("x", self._unsaid))
            self._unsaid = 0
        self._pending.append(item)

    def _write_all(self) -> None:
        try:
            while not self._ended.wait(self.flush_s):
                self._flush()
            self._flush()
            self._write(self._outputs.end())
            os.fdatasync(self._file.fileno())
        except Exception as error:  # noqa: BLE001  whatever it is: the queue would only fill
            log = _LOG.error if isinstance(error, OSError) else _LOG.exception
            log("%s: journal ended: %s", self._folder, error)
        finally:
            self._broken = True
            self.counters.lost += len(self._pending)
            self._pending.clear()
            self._file.close()

    def _flush(self) -> None:
        # What comes meanwhile waits for the next turn, so that closing ends.
        for _ in range(0, len(self._pending), self.frame_records):
            number = min(len(self._pending), self.frame_records)
            lines = []
            for _ in range(number):
                lines += self._lines(self._pending.popleft())
            self._write(lines)
            if self._file.tell() >= self._settings.segment_mib * _MIB:
                self._rotate()

    def _lines(self, item: _Item) -> list[bytes]:
        kind, *fields = item
        if kind == "o":
            self._outputs.add(fields[0])
            return []
        if kind in {"g", "x"}:
            return [line(kind, *fields)]
        number, now_ms, value, member = fields
        lines = self._outputs.begin(number)
        if member != self._turn:
            self._turn = member
            lines.append(line("m", member))
        match kind:
            case "p":
                lines.append(line(kind, number, now_ms, *packet_fields(value)))
            case "t":
                lines.append(line(kind, number, now_ms))
            case "r":
                lines.append(line(kind, number, now_ms, *refused_fields(value)))
            case _:
                name = type(value).__name__
                lines.append(line(kind, number, now_ms, name, self._data(name, value)))
        return lines

    def _data(self, name: str, value: Any) -> Any:
        if isinstance(value, self._handed):
            return value.key
        adapter = self._events.get(name)
        return None if adapter is None else adapter.dump_python(value, mode="json")

    def _write(self, lines: list[bytes]) -> None:
        if lines:
            self.counters.bytes += self._file.write(frame(lines))
            self._file.flush()

    def _begin(self, start: Start) -> BinaryIO:
        file = os.fdopen(
            os.open(
                self._folder / segment_name(start), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
            ),
            "wb",
        )
        file.write(MAGIC + frame([start_line(start)]))
        self._turn = ""
        file.flush()
        self.counters.segments += 1
        self._forget()
        return file

    def _rotate(self) -> None:
        os.fdatasync(self._file.fileno())
        self._file.close()
        number = self._outputs.number + 1
        self._start = replace(self._start, segment=self._start.segment + 1, number=number)
        self._file = self._begin(self._start)

    def _forget(self) -> None:
        """Delete the oldest segments beyond the limit, never the newest."""
        paths = sorted(self._folder.glob(f"*{SUFFIX}"))
        total = sum(path.stat().st_size for path in paths)
        for path in paths[:-1]:
            if total <= self._settings.limit_mib * _MIB:
                return
            total -= path.stat().st_size
            path.unlink()
            self.counters.deleted += 1


class _Member:
    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._name = name

    def packet(self, now_ms: int, packet: Packet) -> None:
        self._journal.packet(now_ms, packet, self._name)

    def tick(self, now_ms: int) -> None:
        self._journal.tick(now_ms, self._name)

    def event(self, now_ms: int, event: object) -> None:
        self._journal.event(now_ms, event, self._name)

    def refused(self, now_ms: int, rejected: Rejected) -> None:
        self._journal.refused(now_ms, rejected, self._name)

    def output(self, effect: object) -> None:
        self._journal.output(effect)


class _Outputs:
    """The digest of what came of the last input."""

    def __init__(self) -> None:
        self.number = -1
        self._count = 0
        self._digest = blake2b(digest_size=8)

    def add(self, effect: object) -> None:
        self._count += 1
        self._digest.update(output_line(effect))

    def begin(self, number: int) -> list[bytes]:
        lines = self.end()
        self.number = number
        return lines

    def end(self) -> list[bytes]:
        if not self._count:
            return []
        lines = [line("o", self.number, self._count, self._digest.hexdigest())]
        self._count, self._digest = 0, blake2b(digest_size=8)
        return lines


def output_line(effect: object) -> bytes:
    """One line of an output log: broker, QoS, retain, life, topic and payload of what is sent."""
    if not isinstance(effect, Publish):
        return f"{effect!r}\n".encode()
    retain = int(effect.address.spec.retained)
    head = f"{effect.on} {effect.qos} {retain} {effect.expiry_ms} {effect.address.topic} "
    return head.encode() + effect.data + b"\n"


@contextmanager
def recording(
    context: Context,
    plane: str,
    settings: BaseModel,
    events: tuple[type, ...] = (),
    started: Origin | None = None,
    handed: tuple[type[Handed], ...] = (),
) -> Iterator[Journal | None]:
    """A plane's journal where nervus.toml asks for one, closed at the end; else None.

    `started` is what its machine was built from, the service's own start when None.
    """
    if not context.journal.enabled:
        yield None
        return
    began = started or origin(context)
    start = Start(
        plane=plane,
        version=VERSION,
        code=code_fingerprint(),
        settings=settings.model_dump(mode="json"),
        seed=began.seed,
        boot=began.boot,
        house=began.house,
        copy=began.number,
        scopes=tuple(tuple(sorted(scopes)) for scopes in began.scopes),
    )
    folder = context.data / "journal" / context.identity(plane)
    with Journal(folder, start, context.journal, events, handed) as journal:
        yield journal


def origin(context: Context) -> Origin:
    """What this start differs by from others."""
    shard = context.shard
    return Origin(context.seed, context.boot, context.house, shard.number, shard.scopes)


@cache
def code_fingerprint() -> str:
    """Digest of the program and of the registries it reads: 16 hexadecimal digits."""
    digest = sha256()
    package = Path(__file__).parents[1]
    for folder, pattern in ((package, "**/*.py"), (resources.find("schemas"), "registries/*")):
        for path in sorted(folder.glob(pattern)):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
