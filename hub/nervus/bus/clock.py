"""A shell's time: it never runs backwards, and rings when something is due."""

import asyncio
from collections.abc import Callable
from typing import Final

from nervus.bus.errors import ClockSetBackError

CLOCK_BACK_MS: Final = 10_000
"""How far a clock may be set back; meanwhile the time stands still."""

LONGEST_MS: Final = 1_000
"""Longest time without a ring: by then it shows that the clock was set."""


class Clock:
    """One timer on a clock that may jump.

    Args:
        unix_ms: Unix milliseconds.
        ring: Called once it is `rings_ms`; what is due then is not the clock's to know.
    """

    def __init__(self, unix_ms: Callable[[], int], ring: Callable[[], None]) -> None:
        self.rings_ms = 0
        """When it last was to ring."""
        self._unix_ms = unix_ms
        self._ring = ring
        self._now_ms = 0
        self._timer: asyncio.TimerHandle | None = None

    def now_ms(self) -> int:
        """Unix milliseconds that never run backwards."""
        self._now_ms = max(self._now_ms, self._unix_ms())
        return self._now_ms

    def check(self) -> None:
        """See whether time still passes.

        Raises:
            ClockSetBackError: It would stand still for longer than `CLOCK_BACK_MS`.
        """
        # Until the clock has caught up no window would close, no gate expire. Whoever supervises
        # the part starts it anew, in the new time.
        back_ms = self._now_ms - self._unix_ms()
        if back_ms > CLOCK_BACK_MS:
            raise ClockSetBackError(
                f"the clock was set back by {back_ms / 1000:.0f} s",
                where="system clock",
                hint="parts start anew in the new time; run `nervus doctor` if it happens again",
            )

    def ring_by(self, due_ms: int) -> None:
        """Ring at `due_ms` and not later, or within `LONGEST_MS`; earlier is no harm."""
        # By the clock as it is: one that was set back a little has still to come to what is due.
        now_ms = self._unix_ms()
        due_ms = min(due_ms, now_ms + LONGEST_MS)
        if self._timer is not None:
            if now_ms < self.rings_ms <= due_ms:
                return
            self._timer.cancel()
        self.rings_ms = due_ms
        wait_s = max(0, due_ms - now_ms) / 1000
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._rings)

    def stop(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
