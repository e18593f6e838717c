"""The journal on disk: framed, checked, compressed lines; what was torn is told, never guessed."""

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from nervus.errors import NervusError
from nervus.wire import Packet, Rejected
from nervus.wire.topic_parser import parse

MAGIC: Final = b"NVJRNL1\n"
SUFFIX: Final = ".journal"
FRAME_LIMIT: Final = 64 << 20
"""No frame unpacks to more bytes than this."""

_HEAD: Final = struct.Struct("<II")
_MOVE_AWAY: Final = "name another range, or move this file away"


class JournalError(NervusError):
    """A journal is missing, or is not one."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a machine was built from; the first record of each segment.

    `code` is a fingerprint of the program and its registries: another program may answer
    otherwise. `segment` counts from 0; `number` is that of the first input in it. `copy` says which
    of several of the plane it was, `scopes` what each shard after the first owned.
    """

    plane: str
    version: str
    code: str
    settings: dict[str, Any]
    seed: int
    boot: int
    house: str
    segment: int = 0
    number: int = 0
    copy: int = 0
    scopes: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Took:
    """Input: a packet, before the guard judged it."""

    number: int
    now_ms: int
    packet: Packet


@dataclass(frozen=True, slots=True)
class Ticked:
    """Input: time passed."""

    number: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Happened:
    """Input: an event that did not come by MQTT, by the name of its type; data as JSON."""

    number: int
    now_ms: int
    name: str
    data: Any


@dataclass(frozen=True, slots=True)
class Refused:
    """Input: a reject that the shell made: of what it had no room for, of what a broker denied."""

    number: int
    now_ms: int
    rejected: Rejected


@dataclass(frozen=True, slots=True)
class Turn:
    """From here on, inputs are those of this member of a machine that is several."""

    member: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What the guard was told of a device's granted scope, when it differs from before."""

    device_id: str
    scope: str | None


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of input `number`: how many outputs, and their digest."""

    number: int
    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Lost:
    """From here `count` records are missing, because the writer was behind or a segment is gone."""

    count: int


@dataclass(frozen=True, slots=True)
class Torn:
    """The rest of a segment cannot be read: its writer was killed, or the disk is damaged."""

    path: Path
    offset: int


Input = Took | Ticked | Happened | Refused
Record = Start | Input | Turn | Answered | Sent | Lost | Torn


def frame(lines: Iterable[bytes]) -> bytes:
    """Lines as one frame: length, CRC-32, zlib."""
    data = zlib.compress(b"".join(lines), 1)
    return _HEAD.pack(len(data), zlib.crc32(data)) + data


def line(*fields: Any) -> bytes:
    """One record as a line of JSON."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def start_line(start: Start) -> bytes:
    """The record of a start."""
    return line("start", asdict(start))


def packet_fields(packet: Packet) -> tuple[Any, ...]:
    """A packet as plain values; bytes that are no UTF-8 as hexadecimal digits in a list."""
    try:
        payload: str | list[str] = packet.payload.decode()
    except UnicodeDecodeError:
        payload = [packet.payload.hex()]
    return packet.broker, packet.retain, packet.topic, payload


def refused_fields(rejected: Rejected) -> tuple[Any, ...]:
    """A reject as plain values."""
    return (
        rejected.reason_code, rejected.stage, rejected.reason, rejected.source,
        rejected.message_id, rejected.contract, *packet_fields(rejected.packet),
    )  # fmt: skip


def read_segment(path: Path) -> Iterator[Record]:
    """Yield the records of one file, the last one a `Torn` where it cannot be read to its end.

    Raises:
        JournalError: It is not a journal, or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise JournalError(
                    "this is not a journal of this version", where=str(path), hint=_MOVE_AWAY
                )
            while True:
                offset = file.tell()
                head = file.read(_HEAD.size)
                if not head:
                    return
                lines = _unpacked(head, file.read(_HEAD.unpack(head)[0])) if _whole(head) else None
                if lines is None:
                    yield Torn(path, offset)
                    return
                for text in lines:
                    yield _record(json.loads(text))
    except OSError as error:
        raise JournalError(
            f"cannot be read ({error.strerror})", where=str(path), hint=_MOVE_AWAY
        ) from error


def _whole(head: bytes) -> bool:
    return len(head) == _HEAD.size and _HEAD.unpack(head)[0] <= FRAME_LIMIT


def _unpacked(head: bytes, data: bytes) -> list[bytes] | None:
    length, checksum = _HEAD.unpack(head)
    if len(data) != length or zlib.crc32(data) != checksum:
        return None
    return zlib.decompressobj().decompress(data, FRAME_LIMIT).splitlines()


def _record(fields: list[Any]) -> Record:
    kind, *rest = fields
    read = _READ.get(kind)
    if read is None:
        raise JournalError(f"there is no record of kind {kind!r}", hint="a newer version wrote it")
    return read(rest)


def _start(fields: dict[str, Any]) -> Start:
    scopes = tuple(tuple(names) for names in fields.pop("scopes", ()))
    return Start(**fields, scopes=scopes)


def _packet(fields: list[Any]) -> Packet:
    broker, retain, topic, payload = fields
    data = payload.encode() if isinstance(payload, str) else bytes.fromhex(payload[0])
    return Packet(broker, topic, data, retain)


def _rejected(fields: list[Any]) -> Rejected:
    reason_code, stage, reason, source, message_id, contract, *packet = fields
    refused = _packet(packet)
    return Rejected(
        reason_code, stage, reason, refused, parse(refused.topic), source, message_id, contract
    )


_READ: Final[dict[str, Callable[[list[Any]], Record]]] = {
    "start": lambda rest: _start(rest[0]),
    "p": lambda rest: Took(rest[0], rest[1], _packet(rest[2:])),
    "t": lambda rest: Ticked(*rest),
    "e": lambda rest: Happened(*rest),
    "r": lambda rest: Refused(rest[0], rest[1], _rejected(rest[2:])),
    "m": lambda rest: Turn(*rest),
    "g": lambda rest: Answered(*rest),
    "o": lambda rest: Sent(*rest),
    "x": lambda rest: Lost(*rest),
}


@dataclass(frozen=True, slots=True)
class JournalRun:
    """What one start of a plane journalled: its segments that are still there, oldest first."""

    plane: str
    boot: int
    seed: int
    segments: tuple[Path, ...]

    @property
    def complete(self) -> bool:
        """Whether it reaches back to the start; else what the machine knew before is unknown."""
        return _segment_number(self.segments[0]) == 0

    @property
    def changed_ms(self) -> int:
        """When it was last written, unix milliseconds."""
        return max(path.stat().st_mtime_ns for path in self.segments) // 1_000_000

    def records(self) -> Iterator[Record]:
        """Yield every record, one `Start` first.

        Raises:
            JournalError: A segment is not a journal, or cannot be read.
        """
        yield from read_segment(self.segments[0])
        for before, path in pairwise(self.segments):
            if _segment_number(path) != _segment_number(before) + 1:
                yield Lost(0)
            yield from (one for one in read_segment(path) if not isinstance(one, Start))

    def start(self) -> Start:
        """Return what the machine was built from.

        Raises:
            JournalError: The first segment does not begin with it.
        """
        record = next(read_segment(self.segments[0]), None)
        if not isinstance(record, Start):
            raise JournalError(
                "the journal ends before its first record",
                where=str(self.segments[0]),
                hint=_MOVE_AWAY,
            )
        return record

    @classmethod
    def all_of(cls, folder: Path) -> list[Self]:
        """Return the runs in a plane's folder, oldest first."""
        found: dict[tuple[int, int], list[Path]] = {}
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            boot, seed, _ = path.stem.split("-")
            found.setdefault((int(boot), int(seed, 16)), []).append(path)
        return [
            cls(folder.name, boot, seed, tuple(sorted(paths, key=_segment_number)))
            for (boot, seed), paths in sorted(found.items())
        ]


def segment_name(start: Start) -> str:
    """The file of a segment; names sort by time."""
    return f"{start.boot:010d}-{start.seed:016x}-{start.segment:08d}{SUFFIX}"


def _segment_number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
