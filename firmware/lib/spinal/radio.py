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

_JOIN_MS = 20000
"""A join is given so long; much less would break off one that is under way."""
_PAUSE_MS = 2000
"""Between leaving and joining, or off and on: what a port does at once it may do not at all."""
_OFF_EVERY = 8
"""Joins in vain until the radio is switched off and on: that stops a board for some 100 ms."""
_PATIENCE_MS = 300000
"""A network over which no broker is reached for so long is joined anew; then after twice that."""
_LONGEST_PATIENCE_MS = 3600000


class Radio:
    """The Wi-Fi of a board. wlan is the port's; wifi names the network: {ssid, key}.

    `keep` is called once a second and does one step of what is due; none of them waits for the
    network.
    """

    _attempts = 0
    _pending = False
    _patience_ms = _PATIENCE_MS

    def __init__(self, wlan: "Any", wifi: dict, random_below: "Any") -> None:
        self._wlan = wlan
        self._config = wifi
        self._random_below = random_below
        self._at: int | None = None
        self._heard_at = 0

    def keep(self, ticks_ms: int, *, linked: bool) -> str | None:
        """Do what is due; returns what people may want to read about it, or None.

        linked: whether a broker is reached over this network.
        """
        try:
            return self._work(ticks_ms, linked=linked)
        except (OSError, RuntimeError) as error:
            # What is due next has its time all the same; each port has its own words and errors.
            return "the radio says: %s" % error

    def _work(self, now: int, *, linked: bool) -> str | None:
        if self._at is None:
            self._heard_at = now
            self._begin(now)
            return None
        if self._pending:
            if elapsed(now, self._at) >= 0:
                self._heard_at = now
                self._begin(now)
            return None
        if self._wlan.isconnected():
            return self._watch(now, linked=linked)
        self._heard_at = now
        if elapsed(now, self._at) < 0:
            return None
        self._attempts += 1
        if self._attempts % _OFF_EVERY:
            self._drop(now)
            return "no Wi-Fi: joins again (%d)" % self._attempts
        self._off(now)
        return "no Wi-Fi: the radio goes off and on (%d)" % self._attempts

    def _watch(self, now: int, *, linked: bool) -> str | None:
        """Whether what the port calls connected is."""
        self._attempts = 0
        # Lost later, it is joined again only after a while: some ports do that by themselves.
        self._rest(now, _JOIN_MS)
        if linked:
            self._heard_at = now
            self._patience_ms = _PATIENCE_MS
        elif elapsed(now, self._heard_at) >= self._patience_ms:
            self._patience_ms = min(2 * self._patience_ms, _LONGEST_PATIENCE_MS)
            self._heard_at = now
            self._drop(now)
            return "nothing is reached over the Wi-Fi: joins it anew"
        return None

    def _begin(self, now: int) -> None:
        # First of all: a port may refuse what is under way already, and that ends by itself.
        self._pending = False
        self._rest(now, _JOIN_MS)
        wlan = self._wlan
        wlan.active(True)  # noqa: FBT003 - the port's own call
        if hasattr(wlan, "PM_NONE"):
            # A radio that sleeps misses what comes, and some never wake up again.
            wlan.config(pm=wlan.PM_NONE)
        wlan.connect(self._config["ssid"], self._config["key"])

    def _drop(self, now: int) -> None:
        self._pending = True
        self._at = later(now, _PAUSE_MS)
        self._wlan.disconnect()

    def _off(self, now: int) -> None:
        self._pending = True
        self._at = later(now, _PAUSE_MS)
        self._wlan.active(False)  # noqa: FBT003 - as above

    def _rest(self, now: int, after_ms: int) -> None:
        # All boards of a house lose their network at once; they need not come back at once.
        self._at = later(now, after_ms + self._random_below(after_ms // 2))
