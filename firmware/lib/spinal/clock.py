"""Time on a board: ticks counted on from boot, moved to the hub's time by ping and pong.

The time is kept as high * 10**9 + low: both halves are small integers on a board, so that the
time of a message costs no allocation. `now` gives the whole number.
"""

from spinal.ticks import elapsed

BILLION = 1_000_000_000

EARLIEST_UNIX_MS = 1_704_067_200_000
"""2024-01-01: a hub that claims an earlier time has not set its own clock."""
LATEST_UNIX_MS = 4_102_444_800_000
"""2100-01-01."""
LONGEST_ROUND_TRIP_MS = 1_000
"""Half of the round trip is the error of the offset, so a longer one is refused."""


class Clock:
    """Milliseconds since boot until the hub tells the time, then Unix milliseconds.

    ticks_ms is everywhere the board's 30-bit millisecond counter. Intervals are never taken from
    this clock: the hub may step it back.
    """

    def __init__(self) -> None:
        self.clk = "none"
        """Quality of the time: "none" (since boot) or "hub"."""
        self.synced = False
        """Whether the hub told the time in this session: before that nothing may be actuated."""
        self.high = 0
        self.low = 0
        self._up_high = 0
        self._up_low = 0
        self._tick: int | None = None
        # The hub's time less that since boot, its low half less a billion: nothing of it overflows.
        self._ahead_high = 0
        self._ahead_low = 0
        self._nonce = 0
        self._pinged_at: int | None = None
        self._t0 = 0

    def now(self, ticks_ms: int) -> tuple[int, str]:
        """Return (t_ms, clk) for this tick: ms since boot with "none", Unix ms with "hub"."""
        self.read(ticks_ms)
        return self.now_read(), self.clk

    def now_read(self) -> int:
        """The time that `read` found, in one number."""
        return self.high * BILLION + self.low

    def read(self, ticks_ms: int) -> None:
        """Set `high` and `low` to the time of this tick: t_ms = high * 10**9 + low."""
        self._count(ticks_ms)
        if self.clk == "hub":
            low = self.low + self._ahead_low
            self.high += self._ahead_high
            if low < 0:
                low += BILLION
            else:
                self.high += 1
            self.low = low

    def uptime_ms(self, ticks_ms: int) -> int:
        """Milliseconds since the first tick this clock has seen."""
        self._count(ticks_ms)
        return self.now_read()

    def unix_ms(self, ticks_ms: int) -> int | None:
        """Unix milliseconds of this tick, None while the time is unknown."""
        return self.now(ticks_ms)[0] if self.clk == "hub" else None

    def new_session(self) -> None:
        """Begin a session: the time is kept, but counts as unproven until the next pong."""
        self.synced = False
        self._pinged_at = None

    def ping(self, ticks_ms: int) -> dict[str, int]:
        """Return the payload of a Ping; an older one still under way will not be accepted."""
        self._nonce = (self._nonce + 1) & 0x3FFFFFFF
        self._pinged_at = ticks_ms
        self._t0 = self.uptime_ms(ticks_ms)
        return {"nonce": self._nonce, "t0": self._t0}

    def awaits(self, payload: dict[str, object]) -> bool:
        """Whether a Pong payload answers the ping that is under way."""
        asked = payload.get("nonce") == self._nonce and payload.get("t0") == self._t0
        return asked and self._pinged_at is not None

    def pong(self, payload: dict[str, object], ticks_ms: int) -> str | None:
        """Take the time from a Pong payload: None, or why it was refused.

        "pong_unexpected" (no ping is under way, or another one), "pong_late" (the round trip took
        more than 1000 ms), "time_implausible" (unix_ms outside the years 2024 to 2100).
        """
        sent_at = self._pinged_at
        if sent_at is None or not self.awaits(payload):
            return "pong_unexpected"
        self._pinged_at = None
        round_trip = elapsed(ticks_ms, sent_at)
        if not 0 <= round_trip <= LONGEST_ROUND_TRIP_MS:
            return "pong_late"
        unix_ms = payload.get("unix_ms")
        if not isinstance(unix_ms, int) or isinstance(unix_ms, bool):
            return "time_implausible"
        if not EARLIEST_UNIX_MS <= unix_ms < LATEST_UNIX_MS:
            return "time_implausible"
        ahead = unix_ms + round_trip // 2 - self.uptime_ms(ticks_ms)
        self._ahead_high = ahead // BILLION
        self._ahead_low = ahead % BILLION - BILLION
        self.clk = "hub"
        self.synced = True
        return None

    def _count(self, ticks_ms: int) -> None:
        """Set `high` and `low` to the time since boot, past any number of wraps."""
        if self._tick is None:
            self._tick = ticks_ms
        since = elapsed(ticks_ms, self._tick)
        high = self._up_high
        low = self._up_low + since
        if low >= BILLION:
            low -= BILLION
            high += 1
        elif low < 0:
            if high:
                low += BILLION
                high -= 1
            else:
                low = 0  # a tick from before boot
        self.high = high
        self.low = low
        if since > 0:
            # The base moves along, so that no interval ever grows past the range of the ticks.
            self._up_high = high
            self._up_low = low
            self._tick = ticks_ms
