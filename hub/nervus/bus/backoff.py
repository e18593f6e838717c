"""Reconnect delays: exponential, with full jitter."""

from collections.abc import Callable


class Backoff:
    """Delays between attempts.

    Full jitter: uniform between 0 and min(cap, base · 2ⁿ), after "Exponential Backoff And
    Jitter" (M. Brooker, 2015). `draw` returns a number in [0, 1).
    """

    def __init__(self, base_ms: int, cap_ms: int, draw: Callable[[], float]) -> None:
        self._base_ms = base_ms
        self._cap_ms = cap_ms
        self._draw = draw
        self._attempt = 0

    def next_ms(self) -> int:
        """The delay before the next attempt, in milliseconds."""
        ceiling = min(self._cap_ms, self._base_ms << min(self._attempt, 32))
        self._attempt += 1
        return int(self._draw() * ceiling)

    def reset(self) -> None:
        """Start anew: the last connection was a good one."""
        self._attempt = 0
