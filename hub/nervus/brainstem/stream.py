"""The windows of one scope and channel: tumbling or sliding, by event time."""

from typing import Final, NamedTuple

from nervus.brainstem.window import Summary, Window, summarise

LONGEST_MS: Final = 60_000
"""The longest window; a stream that was idle for as long may be forgotten."""


class Shape(NamedTuple):
    """Windows of `length_ms`, one every `hop_ms`: tumbling when both are equal, else sliding."""

    length_ms: int
    hop_ms: int


class Stream:
    """Cuts time into windows that neither overlap nor leave a sample out.

    A window of `hop_ms` begins at a multiple of it, so that those of several channels can be laid
    side by side. A tumbling stream sums up each by itself; a sliding one what lies within
    `length_ms` before its end, and so every sample length / hop times. After a change of shape the
    next window begins where the last one ended.
    """

    __slots__ = ("channel", "closed_ms", "historical", "open", "past")

    def __init__(self, channel: str, *, historical: bool) -> None:
        self.channel = channel
        self.historical = historical
        self.open: list[Window] = []
        self.closed_ms = 0
        self.past: tuple[Window, ...] = ()

    def find(self, event_ms: int) -> Window | None:
        """The open window that a moment lies in."""
        for window in reversed(self.open):
            if window.opens_ms <= event_ms < window.end_ms:
                return window
        return None

    def start(self, event_ms: int, hop_ms: int) -> Window:
        """Open the window of a moment, not before `closed_ms`, that no open one holds."""
        start_ms = max(event_ms - event_ms % hop_ms, self.closed_ms)
        end_ms = event_ms - event_ms % hop_ms + hop_ms
        for window in self.open:
            if window.end_ms <= event_ms:
                start_ms = max(start_ms, window.end_ms)
            else:
                end_ms = min(end_ms, window.opens_ms)
        window = Window(start_ms, end_ms)
        self.open.append(window)
        return window

    def cut(self, window: Window, at_ms: int) -> Window:
        """End an open window before its time; returns the one for the rest of it."""
        at_ms = min(max(at_ms, window.start_ms), window.end_ms)
        rest = Window(at_ms, window.end_ms, window.opens_ms)
        window.close(at_ms)
        self.open[self.open.index(window)] = rest
        return rest

    def end(self, window: Window) -> None:
        """Close an open window at its end."""
        window.close(window.end_ms)
        self.open.remove(window)
        if not self.historical:
            # Old times come in any order: there, no window forbids those before it.
            self.closed_ms = max(self.closed_ms, window.end_ms)

    def summary(self, window: Window, shape: Shape) -> Summary | None:
        """Sum up a window that has just closed; None when there is nothing to tell."""
        if shape.hop_ms >= shape.length_ms:
            self.past = ()
            return summarise([window], window)
        since_ms = window.end_ms - shape.length_ms
        self.past = tuple(
            each for each in (*self.past, window) if each.start_ms >= since_ms and each.size
        )
        # An urgent one may have closed before an older one, whose grace still ran.
        told = sorted((w for w in self.past if w.end_ms <= window.end_ms), key=lambda w: w.start_ms)
        return summarise(told, window)
