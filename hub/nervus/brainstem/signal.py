"""What is known of one signal beyond the window it is in."""

import math
from typing import Final

from nervus.wire.contracts import Scalar

_LARGEST_DIFFERENCE: Final = 1e150


class Signal:
    """History of one sensor of one device: moving average, spread and last value.

    Average and variance are exponentially weighted so that they do not depend on
    how often the sensor speaks: weight
    1 - exp(-Δt / average_ms), update after T. Finch, "Incremental calculation of weighted mean
    and variance" (2009), section 9.
    """

    __slots__ = ("_average_ms", "_updated_ms", "_variance", "average", "last")

    def __init__(self, average_ms: int) -> None:
        self._average_ms = average_ms
        self._updated_ms = 0
        self._variance = 0.0
        self.average: float | None = None
        self.last: Scalar | None = None

    def take(self, value: Scalar, now_ms: int) -> bool:
        """Take the next value; returns whether it differs from the last one."""
        changed = self.last is not None and value != self.last
        self.last = value
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._average_in(float(value), now_ms)
        return changed

    def surprise(self, value: float) -> float:
        """How far a value lies from what the signal usually is: 0 as usual, towards 1 far off.

        1 - exp(-z / 3) with z the distance from the moving average in standard deviations; the
        deviation counts as at least 1 % of the average, so that a still signal is not surprised by
        its own rounding.
        """
        if self.average is None:
            return 0.0
        deviation = max(math.sqrt(self._variance), 0.01 * abs(self.average), 1e-6)
        return -math.expm1(-abs(value - self.average) / deviation / 3)

    def _average_in(self, value: float, now_ms: int) -> None:
        if self.average is None:
            self.average = value
        else:
            weight = -math.expm1(-(now_ms - self._updated_ms) / self._average_ms)
            # Weighted and clipped so that no pair of doubles overflows.
            difference = min(abs(value - self.average), _LARGEST_DIFFERENCE)
            self.average = (1 - weight) * self.average + weight * value
            self._variance = (1 - weight) * (self._variance + weight * difference * difference)
        self._updated_ms = now_ms
