"""Statistics of one signal in one window, by the type of its values."""

from collections.abc import Sequence
from typing import Final, Self

from nervus.brainstem.signal import Signal, surprise
from nervus.wire.contracts import Feature, Scalar

HISTOGRAM_WORDS: Final = 8
WORD_LENGTH: Final = 32


class Statistics:
    """O(1) a sample and O(1) memory, however many come.

    Numbers have lowest, highest, mean and the moving average; booleans how long they were true and
    false, as far as it is known: from the window's start when the state then was known, else from
    the first sample, to the window's end; texts how often each came, up to 8 of up to 32
    characters. All have count, changes and the last value in order of event time.
    """

    __slots__ = (
        "_last_ms", "average", "changes", "count", "false_ms", "highest", "histogram", "last",
        "lowest", "mean", "signal", "state", "state_ms", "strangest", "true_ms",
    )  # fmt: skip

    def __init__(self, signal: Signal, start_ms: int) -> None:
        self.signal = signal
        self.count = 0
        self.changes = 0
        self.strangest = 0.0
        self.mean = 0.0
        self.lowest: float | None = None
        self.highest: float | None = None
        self.average: float | None = None
        self.last: Scalar | None = None
        self._last_ms = 0
        self.histogram: dict[str, int] | None = None
        self.true_ms = 0
        self.false_ms = 0
        self.state: bool | None = None
        self.state_ms = start_ms
        if signal.updated_ms <= start_ms and isinstance(signal.last, bool):
            self.state = signal.last

    def take(self, value: Scalar, event_ms: int) -> None:
        """Take one value."""
        count = self.count = self.count + 1
        signal = self.signal
        if isinstance(value, bool):
            self.hold(event_ms)
            self.state = value
            changed = signal.take(value, event_ms)
        elif isinstance(value, str):
            self._tally(value)
            changed = signal.take(value, event_ms)
        else:
            changed, strangeness = signal.take_number(value, event_ms)
            if strangeness > self.strangest:
                self.strangest = strangeness
            if self.lowest is None or self.highest is None:
                self.lowest = self.highest = value
                self.mean = float(value)
            else:
                # A sum of the largest doubles would overflow, a mean of them does not.
                self.mean = self.mean * ((count - 1) / count) + value / count
                if value < self.lowest:
                    self.lowest = value
                elif value > self.highest:
                    self.highest = value
            self.average = signal.average
        if changed:
            self.changes += 1
        if event_ms >= self._last_ms:
            self.last = value
            self._last_ms = event_ms

    def hold(self, until_ms: int) -> None:
        """Let the state last until then; a time before the last one changes nothing."""
        elapsed_ms = until_ms - self.state_ms
        if elapsed_ms <= 0:
            return
        if self.state is not None:
            if self.state:
                self.true_ms += elapsed_ms
            else:
                self.false_ms += elapsed_ms
        self.state_ms = until_ms

    def _tally(self, word: str) -> None:
        histogram = self.histogram
        if histogram is None:
            histogram = self.histogram = {}
        if word in histogram:
            histogram[word] += 1
        elif len(histogram) < HISTOGRAM_WORDS and len(word) <= WORD_LENGTH:
            histogram[word] = 1

    def salience(self) -> float:
        """A number is as salient as it is surprising; anything else as it changes: 1 - 2⁻ⁿ."""
        if self.lowest is None:
            return 1 - 0.5 ** min(self.changes, 64)
        return surprise(self.strangest)

    @classmethod
    def over(cls, parts: Sequence["Statistics"]) -> "Statistics":
        """The statistics of several windows of one signal, oldest first, as of one."""
        if len(parts) == 1:
            return parts[0]
        merged = cls(parts[-1].signal, 0)
        for part in parts:
            merged._add(part)
        return merged

    def _add(self, part: Self) -> None:
        self.count += part.count
        self.changes += part.changes
        self.strangest = max(self.strangest, part.strangest)
        self.true_ms += part.true_ms
        self.false_ms += part.false_ms
        self.last = part.last
        # A state that was known is told, were it for 0 ms.
        self.state = part.state if self.state is None else self.state
        if part.lowest is not None and part.highest is not None:
            share = part.count / self.count
            self.mean = self.mean * (1 - share) + part.mean * share
            self.lowest = part.lowest if self.lowest is None else min(self.lowest, part.lowest)
            self.highest = part.highest if self.highest is None else max(self.highest, part.highest)
            self.average = part.average
        for word, count in (part.histogram or {}).items():
            self.histogram = self.histogram or {}
            if word in self.histogram or len(self.histogram) < HISTOGRAM_WORDS:
                self.histogram[word] = self.histogram.get(word, 0) + count

    def feature(self, length_ms: int) -> Feature:
        """As a bundle tells it; the state must have been held to the window's end."""
        device_id, sensor_type, unit = self.signal.key
        mean = None
        if self.lowest is not None and self.highest is not None:
            # Rounding may carry the mean of equal values past them.
            mean = min(max(self.mean, self.lowest), self.highest)
        stateful = self.state is not None
        return Feature(
            sensor_type=sensor_type,
            device_id=device_id,
            unit=unit or None,
            count=self.count,
            min=self.lowest,
            max=self.highest,
            mean=mean,
            last=self.last,
            moving_average=self.average,
            rate=self.count * 1000 / max(1, length_ms),
            changes=self.changes,
            true_ms=self.true_ms if stateful else None,
            false_ms=self.false_ms if stateful else None,
            histogram=dict(sorted(self.histogram.items())) if self.histogram else None,
        )
