"""One stream (a scope's channel) behind the gate: attenuation and aggregation."""

from dataclasses import dataclass, field

from nervus.thalamus.summary import SPAN_LIMIT_MS, Summary
from nervus.wire.model import Contract

REFERENCE_LIMIT = 64
FEATURE_LIMIT = 1_024


@dataclass(slots=True)
class Merged:
    """Bundles that wait to be sent as one.

    Args:
        cause: The first of them; trace and principal go on from it.
        summary: All of them as one window.
        expires_ms: When the first of them ends, unix milliseconds.
        input_refs: Message ids, the first 64.
    """

    cause: Contract
    summary: Summary
    expires_ms: int
    input_refs: list[str] = field(default_factory=list)


class Stream:
    """What the gate remembers of a stream; bounded."""

    __slots__ = ("_kept", "_kept_since_ms", "quiet_until_ms", "waiting")

    def __init__(self) -> None:
        self._kept = 0
        self._kept_since_ms = 0
        self.quiet_until_ms = 0
        self.waiting: Merged | None = None

    def keeps(self, now_ms: int, window_ms: int, limit: int) -> bool:
        """Whether a message is among the first `limit` of its window; windows tumble."""
        start_ms = now_ms - now_ms % window_ms
        if start_ms != self._kept_since_ms:
            self._kept_since_ms, self._kept = start_ms, 0
        if self._kept >= limit:
            return False
        self._kept += 1
        return True

    def ready(self, now_ms: int, interval_ms: int) -> bool:
        """Whether a message may go at once: nothing waits and the last one is long enough ago."""
        if self.waiting is not None or now_ms < self.quiet_until_ms:
            return False
        self.quiet_until_ms = now_ms + interval_ms
        return True

    def hold(self, message: Contract, expires_ms: int) -> bool:
        """Merge a message into what waits; False if together they would be too much."""
        summary = Summary.of(message.payload)
        if self.waiting is None:
            self.waiting = Merged(message, summary, expires_ms)
        else:
            waiting = self.waiting
            if waiting.summary.spans(summary) > SPAN_LIMIT_MS:
                return False
            merged = waiting.summary.merged(summary)
            if len(merged.features) > FEATURE_LIMIT:
                return False
            waiting.summary = merged
            waiting.expires_ms = min(waiting.expires_ms, expires_ms)
        if len(self.waiting.input_refs) < REFERENCE_LIMIT:
            self.waiting.input_refs.append(message.meta.message_id)
        return True

    def release(self, now_ms: int, interval_ms: int) -> Merged | None:
        """Take what waits once it is due."""
        merged = self.waiting
        if merged is None or now_ms < self.quiet_until_ms:
            return None
        self.waiting = None
        self.quiet_until_ms = now_ms + interval_ms
        return merged

    def idle(self, now_ms: int, window_ms: int) -> bool:
        """Whether forgetting the stream would change nothing."""
        return (
            self.waiting is None
            and now_ms >= self.quiet_until_ms
            and now_ms >= self._kept_since_ms + window_ms
        )
