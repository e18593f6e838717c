"""Rejects on their way to reflect: the first at once, a flood of the same folded into a count."""

from dataclasses import dataclass
from typing import Final, get_args

from nervus.wire import topics
from nervus.wire.contracts import InputRef, RejectEvent, RejectEventPayload, ScopeLevel
from nervus.wire.effects import Publish
from nervus.wire.mint import Mint
from nervus.wire.plain import begins
from nervus.wire.times import NEVER
from nervus.wire.topic import Address
from nervus.wire.verdict import Rejected

FOLD_MS = 5_000
KEY_LIMIT = 256
_WINDOW_LIMIT_MS: Final = 31 * 86_400_000
"""As the contract has it; a clock that is set at last may jump by more."""

# In bytes of JSON. All that is not chosen by others takes less than half of what the topic does.
_REASON_BYTES: Final = 256
_SAMPLE_BYTES: Final = 256
_TOPIC_BYTES: Final = 320  # the longest of ours takes 270
_SOURCE_BYTES: Final = 80
_CONTRACT_BYTES: Final = 64


@dataclass(slots=True)
class _Fold:
    last: Rejected
    since_ms: int
    count: int = 0


class RejectLane:
    """Turns rejects into RejectEvents on the part's own lane; a core without I/O.

    The first of a kind (reason and source) goes out at once; what follows within 5 s is one event
    with a count. At most 256 kinds are told apart, the rest fold together: a flood of invented
    sources costs no memory. A rejected RejectEvent never causes another. Whatever was refused, the
    event is what its contract and topic take, and all text in it is printable.
    """

    def __init__(self, mint: Mint, house: str) -> None:
        self._mint = mint
        self._house = house
        self._folds: dict[tuple[str, str], _Fold] = {}
        self.total = 0

    @property
    def due_ms(self) -> int:
        """When the first fold closes, unix milliseconds; they are in the order they began."""
        first = next(iter(self._folds.values()), None)
        return NEVER if first is None else first.since_ms + FOLD_MS

    def step(self, rejected: Rejected, now_ms: int) -> list[Publish]:
        """Take one reject; returns the event to publish now, if any."""
        self.total += 1
        if rejected.address is not None and rejected.address.spec is topics.REJECT:
            return []
        key = (rejected.reason_code, rejected.source or "")
        if key not in self._folds and len(self._folds) >= KEY_LIMIT:
            key = (rejected.reason_code, "*")
        fold = self._folds.get(key)
        if fold is None:
            self._folds[key] = _Fold(rejected, now_ms)
            return [self._event(rejected, now_ms, None, None)]
        fold.last = rejected
        fold.count += 1
        return []

    def tick(self, now_ms: int) -> list[Publish]:
        """Close what has folded for long enough."""
        effects = []
        for key, fold in list(self._folds.items()):
            window_ms = now_ms - fold.since_ms
            if window_ms < FOLD_MS:
                continue
            del self._folds[key]
            if fold.count:
                window_ms = min(window_ms, _WINDOW_LIMIT_MS)
                effects.append(self._event(fold.last, now_ms, fold.count, window_ms))
                self._folds[key] = _Fold(fold.last, now_ms)
        return effects

    def _event(
        self, rejected: Rejected, now_ms: int, count: int | None, window_ms: int | None
    ) -> Publish:
        payload = RejectEventPayload(
            reason_code=rejected.reason_code,
            reason=begins(rejected.reason, _REASON_BYTES),
            stage=rejected.stage,
            input_ref=InputRef(
                message_id=rejected.message_id,
                contract=begins(rejected.contract or "", _CONTRACT_BYTES) or None,
                source_topic=begins(rejected.packet.topic, _TOPIC_BYTES),
                source=begins(rejected.source or "", _SOURCE_BYTES) or None,
            ),
            observed_at=now_ms,
            sample=begins(rejected.sample, _SAMPLE_BYTES),
            sha256=rejected.sha256,
            count=count,
            window_ms=window_ms,
        )
        address = self._place(rejected.address)
        return self._mint.full(RejectEvent, address, payload, now_ms).to("core")

    def _place(self, of: Address | None) -> Address:
        """Where the message was about, as far as that is a place; else the house."""
        levels = of.levels if of else {}
        level = levels.get("scope_level", "device")
        scope = levels.get("scope") or levels.get("device_id", "")
        if level in _SCOPE_LEVELS and scope and scope.isprintable():
            return topics.reject(level, scope)
        return topics.reject("house", self._house)


_SCOPE_LEVELS: Final = frozenset(get_args(ScopeLevel))
