"""The reflect core: rejects in, rows to keep out. No I/O, no clock."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nervus.reflect.reject import Reject
from nervus.reflect.settings import ReflectSettings
from nervus.wire import Accepted, Connected, TopicSpec
from nervus.wire.times import NEVER
from nervus.wire.topic_parser import parse

ERASE_EVERY_MS: Final = 10_000
"""Least time between two looks at the brokers; who retains without end gets no more."""

SOURCE_LIMIT: Final = 1_024
"""Sources counted by name; what others caused is counted under "*"."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Effect: store these rejects, each once, then no more than `limit` rows."""

    rejects: tuple[Reject, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class EraseRetained:
    """Effect: somebody retained an event; erase what brokers keep of these topics."""

    topics: tuple[TopicSpec, ...]


Effect = Keep | EraseRetained


class Reflect:
    """Turns each RejectEvent into a row; what floods was folded where it was rejected.

    It is acknowledged once its row is durable, so whoever rejected keeps it until then.
    """

    def __init__(self, settings: ReflectSettings) -> None:
        self._settings = settings
        self._to_erase: dict[str, TopicSpec] = {}
        self._erase_due_ms = 0
        self.reasons: Counter[str] = Counter()
        """Rejected messages by reason code, since the start."""
        self.sources: Counter[str] = Counter()
        """Rejected messages by source, since the start."""

    @property
    def due_ms(self) -> int:
        """When retained events are erased next, unix milliseconds."""
        return self._erase_due_ms if self._to_erase else NEVER

    def step(self, event: Accepted | Connected, now_ms: int) -> Sequence[Effect]:
        """Take one RejectEvent."""
        if isinstance(event, Connected):
            return []
        message: Any = event.message
        reject = _reject(message, now_ms)
        self.reasons[reject.reason_code] += reject.count
        self.sources[self._counted(reject.source or "")] += reject.count
        if reject.reason_code == "retained_event":
            address = parse(reject.source_topic or "")
            if address is not None:
                self._to_erase[address.spec.name] = address.spec
        return [Keep((reject,), self._settings.kept_rows)]

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Erase retained events, now and then."""
        if not self._to_erase or now_ms < self._erase_due_ms:
            return []
        self._erase_due_ms = now_ms + ERASE_EVERY_MS
        topics = tuple(self._to_erase.values())
        self._to_erase.clear()
        return [EraseRetained(topics)]

    def _counted(self, source: str) -> str:
        known = source in self.sources or len(self.sources) < SOURCE_LIMIT
        return source if known else "*"


def _reject(message: Any, now_ms: int) -> Reject:
    payload, reference = message.payload, message.payload.input_ref
    return Reject(
        received_ms=now_ms,
        reason_code=payload.reason_code,
        reason=payload.reason,
        stage=payload.stage,
        source=reference.source,
        source_topic=reference.source_topic,
        message_id=reference.message_id,
        contract=reference.contract,
        count=payload.count or 1,
        window_ms=payload.window_ms,
        sample=payload.sample,
        sha256=payload.sha256,
        reporter=message.meta.source,
        event_id=message.meta.message_id,
    )
