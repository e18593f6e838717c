"""What belongs together: the episodes of a scope."""

from collections.abc import Callable

from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.window import Summary


class Episodes:
    """Binds what happens in one scope at one time, whatever channel it comes by.

    A bundle of salience `correlate_salience` or more joins the running episode when its window
    begins at most `correlate_gap_ms` after the latest one of it ended, ends at most as long before
    the episode began, and the episode would last no longer than `correlate_longest_ms`. Otherwise
    it begins a new one. Less salient bundles, and those of long ago, belong to none.
    """

    __slots__ = ("_correlation_id", "_end_ms", "_start_ms")

    def __init__(self) -> None:
        self._correlation_id: str | None = None
        self._start_ms = 0
        self._end_ms = 0

    def join(
        self, summary: Summary, settings: BrainstemSettings, new_id: Callable[[], str]
    ) -> str | None:
        """The id of the episode that a bundle belongs to, if any."""
        if summary.salience < settings.correlate_salience:
            return None
        gap_ms = settings.correlate_gap_ms
        start_ms, end_ms = min(self._start_ms, summary.start_ms), max(self._end_ms, summary.end_ms)
        if (
            self._correlation_id is None
            or summary.start_ms > self._end_ms + gap_ms
            or summary.end_ms < self._start_ms - gap_ms
            or end_ms - start_ms > settings.correlate_longest_ms
        ):
            self._correlation_id = new_id()
            start_ms, end_ms = summary.start_ms, summary.end_ms
        self._start_ms, self._end_ms = start_ms, end_ms
        return self._correlation_id
