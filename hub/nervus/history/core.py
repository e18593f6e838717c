"""The core of history: what is accepted is to be recorded; what is too old is to go. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nervus.history.settings import HistorySettings
from nervus.wire import Accepted, Connected, Removed, encode

_DAY_MS: Final = 86_400_000
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """Effect: record a message, unless it is there already; it gets its scope's next sequence."""

    scope_level: str
    scope: str
    recorded_ms: int
    contract: str
    channel: str | None
    topic: str
    source: str
    message_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Trim:
    """Effect: delete the oldest, `rows` at most: before `before_ms`, and beyond `limit_bytes`."""

    before_ms: int
    limit_bytes: int
    rows: int


@dataclass(slots=True)
class HistoryCounters:
    """What the core has seen since it was made."""

    messages: int = 0
    removed: int = 0


class History:
    """Turns each message into one record; never says anything itself.

    A message is acknowledged once its record is durable, so what a broker delivers again after a
    crash is recorded once: by source and message id. Removed states leave no record, they have no
    id; the state that was removed keeps its own.
    """

    def __init__(self, settings: HistorySettings) -> None:
        self.counters = HistoryCounters()
        self._settings = settings
        self.due_ms = 0
        """When the oldest may go next, unix milliseconds."""

    def step(self, event: Accepted | Removed | Connected, now_ms: int) -> Sequence[Record | Trim]:
        """Take a message."""
        if isinstance(event, Removed):
            self.counters.removed += 1
        if not isinstance(event, Accepted):
            return []
        self.counters.messages += 1
        levels, meta = event.address.levels, event.message.meta
        return [
            Record(
                scope_level=levels["scope_level"],
                scope=levels["scope"],
                recorded_ms=now_ms,
                contract=meta.contract,
                channel=levels.get("channel"),
                topic=event.address.topic,
                source=meta.source,
                message_id=meta.message_id,
                message=_text(event),
            )
        ]

    def tick(self, now_ms: int) -> Sequence[Trim]:
        """Now and then let the oldest go."""
        if now_ms < self.due_ms:
            return []
        self.due_ms = now_ms + self._settings.trim_ms
        before_ms = now_ms - round(self._settings.keep_days * _DAY_MS)
        return [Trim(before_ms, self._settings.limit_mib * _MIB, self._settings.slice_rows)]


def _text(event: Accepted) -> str:
    """The message as JSON: as it came, where it came so."""
    data = event.data if event.data.startswith(b"{") else encode(event.message)
    return data.decode()
