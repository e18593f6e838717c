"""Keeps a board in its Wi-Fi: joins, joins again, and in the end switches the radio off and on.

A port may do less than it seems: an RP2 never joins again by itself, neither when the router was
not up yet nor when it went away, and both ports may believe in a connection that is none. What a
port says beyond "connected or not" is not asked: its states pass through one another, some stay,
and they differ from port to port. Pauses count instead.
"""

from spinal.ticks import elapsed, later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JOIN_MS = 20000
"""A join is given so long; much less would break off one that is under way."""
PAUSE_MS = 2000
"""Between leaving and joining, or off and on: what a port does at once it may do not at all."""
OFF_EVERY = 8
"""Joins in vain until the radio is switched off and on: that stops a board for some 100 ms."""
DOUBT_MS = 300000
"""A network over which no broker is reached for so long is joined anew; then after twice that."""
LONGEST_DOUBT_MS = 3600000


class Radio:
    """The Wi-Fi of a board. wlan is the port's; wifi names the network: {ssid, key}.

    `keep` is called once a second and does one step of what is due; none of them waits for the
    network.
    """

    _joins = 0
    _join_due = False
    _doubt_ms = DOUBT_MS

    def __init__(self, wlan: "Any", wifi: dict, random_below: "Any") -> None:
        self._wlan = wlan
        self._wifi = wifi
        self._random_below = random_below
        self._at: int | None = None
        self._alive_at = 0

    def keep(self, ticks_ms: int, *, linked: bool) -> str | None:
        """Do what is due; returns what people may want to read about it, or None.

        linked: whether a broker is reached over this network.
        """
        try:
            return self._step(ticks_ms, linked=linked)
        except (OSError, RuntimeError) as error:
            # What is due next has its time all the same; each port has its own words and errors.
            return "the radio says: %s" % error

    def _step(self, now: int, *, linked: bool) -> str | None:
        if self._at is None:
            self._alive_at = now
            self._on(now)
            return None
        if self._join_due:
            if elapsed(now, self._at) >= 0:
                self._alive_at = now
                self._on(now)
            return None
        if self._wlan.isconnected():
            return self._doubt(now, linked=linked)
        self._alive_at = now
        if elapsed(now, self._at) < 0:
            return None
        self._joins += 1
        if self._joins % OFF_EVERY:
            self._leave(now)
            return "no Wi-Fi: joins again (%d)" % self._joins
        self._off(now)
        return "no Wi-Fi: the radio goes off and on (%d)" % self._joins

    def _doubt(self, now: int, *, linked: bool) -> str | None:
        """Whether what the port calls connected is."""
        self._joins = 0
        # Lost later, it is joined again only after a while: some ports do that by themselves.
        self._again(now, JOIN_MS)
        if linked:
            self._alive_at = now
            self._doubt_ms = DOUBT_MS
        elif elapsed(now, self._alive_at) >= self._doubt_ms:
            self._doubt_ms = min(2 * self._doubt_ms, LONGEST_DOUBT_MS)
            self._alive_at = now
            self._leave(now)
            return "nothing is reached over the Wi-Fi: joins it anew"
        return None

    def _on(self, now: int) -> None:
        # First of all: a port may refuse what is under way already, and that ends by itself.
        self._join_due = False
        self._again(now, JOIN_MS)
        wlan = self._wlan
        wlan.active(True)  # noqa: FBT003 - the port's own call
        if hasattr(wlan, "PM_NONE"):
            # A radio that sleeps misses what comes, and some never wake up again.
            wlan.config(pm=wlan.PM_NONE)
        wlan.connect(self._wifi["ssid"], self._wifi["key"])

    def _leave(self, now: int) -> None:
        self._join_due = True
        self._at = later(now, PAUSE_MS)
        self._wlan.disconnect()

    def _off(self, now: int) -> None:
        self._join_due = True
        self._at = later(now, PAUSE_MS)
        self._wlan.active(False)  # noqa: FBT003 - as above

    def _again(self, now: int, after_ms: int) -> None:
        # All boards of a house lose their network at once; they need not come back at once.
        self._at = later(now, after_ms + self._random_below(after_ms // 2))
