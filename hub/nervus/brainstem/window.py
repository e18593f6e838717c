"""One open window, and the summary of closed ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from nervus.brainstem.signal import Signal, SignalKey
from nervus.brainstem.statistics import Statistics
from nervus.wire.contracts import Feature, Scalar

_WORTH: Final = {None: 1.0, "good": 1.0, "uncertain": 0.5, "bad": 0.0}


class Window:
    """What came for a scope and channel, of an event time from `opens_ms` to before `end_ms`.

    `start_ms` is where its statistics begin: later than `opens_ms` when something urgent cut off
    the part before.
    """

    __slots__ = (
        "_signals", "closed", "critical", "end_ms", "held", "opens_ms", "refused", "start_ms",
        "taken", "worth",
    )  # fmt: skip

    def __init__(self, start_ms: int, end_ms: int, opens_ms: int | None = None) -> None:
        self.opens_ms = start_ms if opens_ms is None else opens_ms
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.critical = False
        self.held = 0
        """Under which number the packets are held that wait for its end; 0 when none does."""
        self.closed = False
        self.refused = 0
        self.taken = 0
        self.worth = 0.0
        self._signals: dict[Signal, Statistics] = {}

    @property
    def size(self) -> int:
        """How many signals it holds."""
        return len(self._signals)

    def has_room(self, values: Sequence[tuple[Signal, Scalar]], limit: int) -> bool:
        """Whether with these values it would hold at most `limit` signals."""
        held = self._signals
        if len(held) + len(values) <= limit:
            return True
        return len(held.keys() | {signal for signal, _ in values}) <= limit

    def take(
        self, values: Sequence[tuple[Signal, Scalar]], quality: str | None, event_ms: int
    ) -> bool:
        """Count a sample and take its values, unless it is bad; returns whether it was taken."""
        worth = _WORTH[quality]
        self.taken += 1
        if not worth:
            return False
        self.worth += worth
        for signal, value in values:
            statistics = self._signals.get(signal)
            if statistics is None:
                statistics = self._signals[signal] = Statistics(signal, self.start_ms)
            statistics.take(value, event_ms)
        return True

    def take_more(self, signal: Signal, value: Scalar, event_ms: int) -> None:
        """As `take`, a good one of a signal that it has."""
        self.taken += 1
        self.worth += 1.0
        self._signals[signal].take(value, event_ms)

    def close(self, end_ms: int) -> None:
        """End it at `end_ms`; nothing is taken after that."""
        self.closed = True
        self.end_ms = end_ms
        for signal, statistics in self._signals.items():
            statistics.hold(end_ms)
            if signal.place is not None and signal.place.window is self:
                signal.address = signal.place = None

    def statistics(self) -> Iterable[Statistics]:
        """The statistics of each signal; two of a signal that was forgotten in between."""
        return self._signals.values()


@dataclass(frozen=True, slots=True)
class Summary:
    """Closed windows as one: what a bundle says.

    `saliences` are those of the features; `salience` is 1 when the newest window is critical, else
    that of its most salient signal. `confidence` is the share of what was sent that could be
    trusted: (good + ½ uncertain) / (all + refused). Bad samples enter no statistics, refused ones
    came above the source's rate.
    """

    start_ms: int
    end_ms: int
    critical: bool
    features: list[Feature]
    saliences: list[float]
    salience: float
    confidence: float

    @property
    def length_ms(self) -> int:
        """From start to end."""
        return self.end_ms - self.start_ms


def summarise(windows: Sequence[Window], newest: Window) -> Summary | None:
    """The summary of closed windows, oldest first, up to the newest; None when all are empty."""
    parts: dict[SignalKey, list[Statistics]] = {}
    for window in windows:
        for statistics in window.statistics():
            parts.setdefault(statistics.signal.key, []).append(statistics)
    if not parts:
        return None
    start_ms, end_ms = windows[0].start_ms, newest.end_ms
    merged = [Statistics.over(parts[key]) for key in sorted(parts)]
    saliences = [statistics.salience() for statistics in merged]
    sent = sum(window.taken + window.refused for window in windows)
    return Summary(
        start_ms,
        end_ms,
        newest.critical,
        [each.feature(end_ms - start_ms) for each in merged],
        saliences,
        1.0 if newest.critical else max(saliences),
        sum(window.worth for window in windows) / sent,
    )
