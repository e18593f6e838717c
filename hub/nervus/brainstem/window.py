"""One open window: the statistics of what came for a scope and channel."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nervus.brainstem.signal import Signal
from nervus.wire.contracts import Feature, Scalar

_WORTH: Final = {"good": 1.0, "uncertain": 0.5, "bad": 0.0}


@dataclass(frozen=True, slots=True)
class SignalKey:
    """What a feature is about."""

    sensor_type: str
    device_id: str
    unit: str | None


class _Statistics:
    """Statistics of one signal in one window; O(1) a sample."""

    __slots__ = ("changes", "count", "highest", "lowest", "mean", "signal", "surprise")

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.count = 0
        self.changes = 0
        self.surprise = 0.0
        self.mean = 0.0
        self.lowest: float | None = None
        self.highest: float | None = None

    def take(self, value: Scalar, now_ms: int) -> None:
        self.count += 1
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.surprise = max(self.surprise, self.signal.surprise(value))
            # A sum of the largest doubles would overflow, a mean of them does not.
            self.mean = self.mean * ((self.count - 1) / self.count) + value / self.count
            self.lowest = value if self.lowest is None else min(self.lowest, value)
            self.highest = value if self.highest is None else max(self.highest, value)
        self.changes += self.signal.take(value, now_ms)

    def salience(self) -> float:
        """A number is as salient as it is surprising; anything else as it changes: 1 - 2⁻ⁿ."""
        if self.lowest is None:
            return 1 - 0.5 ** min(self.changes, 64)
        return self.surprise

    def feature(self, key: SignalKey, duration_ms: int) -> Feature:
        mean = None
        if self.lowest is not None and self.highest is not None:
            # Rounding may carry the mean of equal values past them.
            mean = min(max(self.mean, self.lowest), self.highest)
        return Feature(
            sensor_type=key.sensor_type,
            device_id=key.device_id,
            unit=key.unit,
            count=self.count,
            min=self.lowest,
            max=self.highest,
            mean=mean,
            last=self.signal.last,
            moving_average=None if mean is None else self.signal.average,
            rate=self.count * 1000 / max(1, duration_ms),
            changes=self.changes,
        )


class Window:
    """What came since `start_ms`; closes at `end_ms`, or at once when something urgent came."""

    __slots__ = ("_signals", "_taken", "_worth", "critical", "end_ms", "refused", "start_ms")

    def __init__(self, start_ms: int, end_ms: int) -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.critical = False
        self.refused = 0
        self._signals: dict[SignalKey, _Statistics] = {}
        self._taken = 0
        self._worth = 0.0

    def __len__(self) -> int:
        return len(self._signals)

    def would_hold(self, samples: Iterable[tuple[SignalKey, Scalar]]) -> int:
        """How many signals there would be after taking these."""
        return len(self._signals) + sum(key not in self._signals for key, _ in samples)

    def judge(self, quality: str | None) -> bool:
        """Count a sample's quality; returns whether its value may enter the statistics."""
        worth = _WORTH[quality or "good"]
        self._taken += 1
        self._worth += worth
        return worth > 0

    def take(self, key: SignalKey, signal: Signal, value: Scalar, now_ms: int) -> None:
        """Take one value into the statistics of its signal."""
        statistics = self._signals.get(key)
        if statistics is None:
            statistics = self._signals[key] = _Statistics(signal)
        statistics.take(value, now_ms)

    def features(self, duration_ms: int) -> list[Feature]:
        """The statistics, by device and sensor."""
        return [
            self._signals[key].feature(key, duration_ms)
            for key in sorted(self._signals, key=_order)
        ]

    def salience(self) -> float:
        """How much attention the window asks for: 1 when urgent, else its most salient signal."""
        if self.critical:
            return 1.0
        return max(statistics.salience() for statistics in self._signals.values())

    def confidence(self) -> float:
        """Share of what was sent that could be trusted.

        (good + ½ uncertain) / (all + refused): bad samples enter no statistics, refused ones came
        above the source's rate.
        """
        return self._worth / (self._taken + self.refused)


def devices(features: Iterable[Feature]) -> list[str]:
    """The devices of some features, each once, in order."""
    return sorted({feature.device_id for feature in features if feature.device_id})


def _order(key: SignalKey) -> tuple[str, str, str]:
    return key.device_id, key.sensor_type, key.unit or ""
