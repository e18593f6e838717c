"""Rejects on their way to reflect: the first at once, a flood of the same folded into a count."""

from dataclasses import dataclass

from nervus.wire import topics
from nervus.wire.contracts import InputRef, RejectEvent, RejectEventPayload
from nervus.wire.effects import Publish
from nervus.wire.mint import Mint
from nervus.wire.times import NEVER
from nervus.wire.verdict import Rejected

FOLD_MS = 5_000
KEY_LIMIT = 256


@dataclass(slots=True)
class _Fold:
    last: Rejected
    since_ms: int
    count: int = 0


class RejectLane:
    """Turns rejects into RejectEvents on the part's own lane; a core without I/O.

    The first of a kind (reason and source) goes out at once; what follows within 5 s is one event
    with a count. At most 256 kinds are told apart, the rest fold together: a flood of invented
    sources costs no memory. A rejected RejectEvent never causes another.
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
            if now_ms - fold.since_ms < FOLD_MS:
                continue
            del self._folds[key]
            if fold.count:
                window = now_ms - fold.since_ms
                effects.append(self._event(fold.last, now_ms, fold.count, window))
                self._folds[key] = _Fold(fold.last, now_ms)
        return effects

    def _event(
        self, rejected: Rejected, now_ms: int, count: int | None, window_ms: int | None
    ) -> Publish:
        levels = rejected.address.levels if rejected.address else {}
        address = topics.reject(
            levels.get("scope_level", "device" if "device_id" in levels else "house"),
            levels.get("scope", levels.get("device_id", self._house)),
        )
        payload = RejectEventPayload(
            reason_code=rejected.reason_code,
            reason=rejected.reason,
            stage=rejected.stage,
            input_ref=InputRef(
                message_id=rejected.message_id,
                contract=rejected.contract,
                source_topic=rejected.packet.topic[:512],
                source=rejected.source,
            ),
            observed_at=now_ms,
            sample=rejected.sample[:256],
            sha256=rejected.sha256,
            count=count,
            window_ms=window_ms,
        )
        return self._mint.full(RejectEvent, address, payload, now_ms).to("core")
