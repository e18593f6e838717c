"""How much of something is let through, where there are many that are held to the same."""

from typing import Final

_ROUNDING: Final = 0.5


class Rate:
    """Up to `burst` at once, refilled at `per_s` a second: a token bucket without the bucket.

    All that has to be kept of each one held to it is a number, the time at which its budget is
    whole again, 0 to begin with: the generic cell rate algorithm (ITU-T I.371, annex A). What was
    lost in rounding is forgiven up to half of one, so that a burst is as many as it says.
    """

    __slots__ = ("_each_ms", "_most_ms")

    def __init__(self, per_s: float, burst: int) -> None:
        self._each_ms = 1_000 / per_s
        self._most_ms = (burst + _ROUNDING) * self._each_ms

    def take(self, whole_ms: float, now_ms: int) -> float | None:
        """Take one at `now_ms`; returns when the budget is whole then, None when it is spent."""
        if whole_ms < now_ms:
            whole_ms = now_ms
        whole_ms += self._each_ms
        return whole_ms if whole_ms - now_ms <= self._most_ms else None
