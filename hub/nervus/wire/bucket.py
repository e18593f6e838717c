"""A token bucket: how much of something is let through."""


class TokenBucket:
    """Refills at `rate` tokens a second up to `burst`; starts full."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated_ms")

    def __init__(self, rate: float, burst: float, now_ms: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._updated_ms = now_ms

    def whole(self, now_ms: int) -> bool:
        """Whether nothing was taken for long enough to have refilled it."""
        refill = (now_ms - self._updated_ms) * self._rate / 1000
        return self._tokens + refill >= self._burst

    def take(self, now_ms: int, least: float = 0.0) -> bool:
        """Take a token at `now_ms` if that leaves `least` (a share of `burst`; below 0: a debt)."""
        if now_ms != self._updated_ms:
            refill = (now_ms - self._updated_ms) * self._rate / 1000
            self._tokens = min(self._burst, self._tokens + refill)
            self._updated_ms = now_ms
        left = self._tokens - 1
        if left < least * self._burst:
            return False
        self._tokens = left
        return True
