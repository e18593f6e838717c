"""A token bucket: how much of a source is taken."""


class TokenBucket:
    """Refills at `rate` tokens a second up to `burst`; starts full."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated_ms")

    def __init__(self, rate: float, burst: int, now_ms: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._updated_ms = now_ms

    def take(self, now_ms: int) -> bool:
        """Take a token at `now_ms` if there is one."""
        refill = (now_ms - self._updated_ms) * self._rate / 1000
        self._tokens = min(self._burst, self._tokens + refill)
        self._updated_ms = now_ms
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
