"""What is known of one signal beyond the window it is in."""

from math import expm1, sqrt
from typing import TYPE_CHECKING, Final

from nervus.wire.contracts import Scalar

if TYPE_CHECKING:
    from nervus.brainstem.scope import Open
    from nervus.wire import Address

SignalKey = tuple[str, str, str]
"""Device, sensor type, unit ("" for none): what a feature is about, and how features are sorted."""

HistoryKey = tuple[str, str, tuple[str, str], bool]
"""Sensor type, unit, scope level and scope, and whether it was measured long ago."""

_LARGEST_DIFFERENCE: Final = 1e150
_LEAST_DEVIATION: Final = 1e-6


class Signal:
    """History of one sensor of one device: moving average, spread and last value.

    Average and variance are exponentially weighted so that they do not depend on
    how often the sensor speaks: weight
    1 - exp(-Δt / average_ms), update after T. Finch, "Incremental calculation of weighted mean
    and variance" (2009), section 9. A value older than the last one changes nothing.

    `address` is that of its last live sample, and `place` the window that took it, while that is
    open.
    """

    __slots__ = (
        "_average_ms", "_variance", "address", "average", "device_id", "history", "last", "place",
        "updated_ms",
    )  # fmt: skip

    def __init__(self, device_id: str, history: HistoryKey, average_ms: int) -> None:
        self.device_id = device_id
        self.history = history
        self._average_ms = average_ms
        self._variance = 0.0
        self.updated_ms = 0
        self.average: float | None = None
        self.last: Scalar | None = None
        self.address: Address | None = None
        self.place: Open | None = None

    @property
    def key(self) -> SignalKey:
        """What it is of."""
        return self.device_id, self.history[0], self.history[1]

    def take(self, value: Scalar, event_ms: int) -> bool:
        """Take a value that is no number; returns whether it differs from the last one."""
        if event_ms < self.updated_ms:
            return False
        changed = self.last is not None and value != self.last
        self.last = value
        self.updated_ms = event_ms
        return changed

    def take_number(self, value: float, event_ms: int) -> tuple[bool, float]:
        """Take a number, also into average and variance.

        Returns:
            As `take`; and how many standard deviations it lies from the average before it. The
            deviation counts as at least 1 % of the average, so that a still signal is not
            surprised by its own rounding.
        """
        average = self.average
        if average is None:
            if event_ms < self.updated_ms:
                return False, 0.0
            self.average = float(value)
            return self.take(value, event_ms), 0.0
        difference = abs(value - average)
        deviation = sqrt(self._variance)
        if deviation < (least := 0.01 * abs(average)):
            deviation = least
        if deviation < _LEAST_DEVIATION:
            deviation = _LEAST_DEVIATION
        strangeness = difference / deviation
        elapsed_ms = event_ms - self.updated_ms
        if elapsed_ms < 0:
            return False, strangeness
        changed = value != self.last
        self.last = value
        if elapsed_ms:
            self.updated_ms = event_ms
            weight = -expm1(-elapsed_ms / self._average_ms)
            # Weighted and clipped so that no pair of doubles overflows.
            if difference > _LARGEST_DIFFERENCE:
                difference = _LARGEST_DIFFERENCE
            self.average = (1 - weight) * average + weight * value
            self._variance = (1 - weight) * (self._variance + weight * difference * difference)
        return changed, strangeness


def surprise(strangeness: float) -> float:
    """How far from usual: 1 - exp(-z / 3) with z standard deviations, 0 as usual, towards 1 far."""
    return -expm1(-strangeness / 3)
