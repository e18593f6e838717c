"""Chunks: what a request is answered with, and how fast a board gets answers."""

from base64 import b64encode
from dataclasses import dataclass

from nervus.updates.pack import Pack
from nervus.wire import Accepted
from nervus.wire.bucket import TokenBucket
from nervus.wire.contracts import ChunkPayload, ChunkRequestPayload, ReasonCode


class NoChunkError(Exception):
    """There is no such chunk; `reason_code` is what the reject says."""

    def __init__(self, reason_code: ReasonCode, reason: str) -> None:
        super().__init__(reason)
        self.reason_code: ReasonCode = reason_code


def chunk_of(pack: Pack, asked: ChunkRequestPayload) -> ChunkPayload:
    """The answer to a request, from the pack of that version.

    Raises:
        NoChunkError: The pack has no such file, or no chunk begins there.
    """
    try:
        octets = pack.chunk(asked.path, asked.offset)
    except KeyError as error:
        reason = f"there is no {asked.path} in {asked.version}"
        raise NoChunkError("unknown_name", reason) from error
    except ValueError as error:
        raise NoChunkError("schema_invalid", str(error)) from error
    data = b64encode(octets).decode()
    return ChunkPayload(version=asked.version, path=asked.path, offset=asked.offset, data=data)


@dataclass(slots=True)
class _Asker:
    bucket: TokenBucket
    parked: Accepted | None = None


class ChunkPace:
    """Lets requests through at a rate; what a board asks beyond it replaces what of it waits.

    A board that keeps to the wire waits for each answer, so it never has two requests here.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._askers: dict[str, _Asker] = {}

    @property
    def busy(self) -> bool:
        """Whether a request waits for its turn."""
        return any(asker.parked is not None for asker in self._askers.values())

    def ask(
        self, device_id: str, request: Accepted, now_ms: int
    ) -> tuple[Accepted | None, Accepted | None]:
        """Take a request; returns what to answer now, and what to refuse as too much."""
        asker = self._askers.get(device_id)
        if asker is None:
            bucket = TokenBucket(self._per_s, self._per_s, now_ms)
            asker = self._askers[device_id] = _Asker(bucket)
        if asker.parked is None and asker.bucket.take(now_ms):
            return request, None
        older, asker.parked = asker.parked, request
        return None, older

    def due(self, now_ms: int) -> list[Accepted]:
        """What waited and is to be answered now."""
        found = []
        for asker in self._askers.values():
            if asker.parked is not None and asker.bucket.take(now_ms):
                found.append(asker.parked)
                asker.parked = None
        return found

    def forget(self, device_id: str) -> None:
        """The board's update has ended."""
        self._askers.pop(device_id, None)
