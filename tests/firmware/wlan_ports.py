"""Radios with the manners of the ports; runs on both interpreters.

As seen in ports/esp32/network_wlan.c and extmod/network_cyw43.c with the cyw43 driver, and in the
issues of those who lived with them (micropython-mqtt #129, #132, micropython #9455, #16482).
"""

JOINING_S = 4


class Wlan:
    """A radio in a house: `router` says whether there is one, `air` whether it carries anything."""

    def __init__(self) -> None:
        self.router = True
        self.air = True
        self.stuck = False
        """Nothing but switching it off and on helps."""
        self.calls: list = []
        self.pm = None
        self._on = False
        self._joins_at: int | None = None
        self._joined = False
        self._left_at = -JOINING_S
        self._now = 0

    def active(self, *flag: bool) -> bool:
        if flag:
            self.calls.append((self._now, "on" if flag[0] else "off"))
            if flag[0] and not self._on:
                self.stuck = False
            self._on = bool(flag[0])
            if not self._on:
                self._joined = False
                self._joins_at = None
        return self._on

    def config(self, **settings: object) -> None:
        self.pm = settings["pm"]

    def connect(self, ssid: str, key: "str | None") -> None:
        del ssid, key
        self.calls.append((self._now, "connect"))
        # Right after leaving it says "wrong password" for ever.
        if self._on and not self.stuck and self._now > self._left_at:
            self._joins_at = self._now + JOINING_S

    def disconnect(self) -> None:
        self.calls.append((self._now, "disconnect"))
        self._joined = False
        self._joins_at = None
        self._left_at = self._now
        self.air = True  # a new association cures what nobody noticed

    def isconnected(self) -> bool:
        return self._joined

    def second(self, now: int) -> None:
        """Another second went by."""
        self._now = now
        if self.stuck or not self.router:
            self._joined = False
        if self._joins_at is not None and now >= self._joins_at:
            self._joined = self.router and not self.stuck
            self._joins_at = None
        self._rejoin(now)

    def _rejoin(self, now: int) -> None:
        """An RP2 does nothing of the kind."""


class Rp2(Wlan):
    """Stays where it is until it is told."""

    PM_NONE = 7


class Esp32(Wlan):
    """Joins again by itself, and refuses to be told while it does."""

    def _rejoin(self, now: int) -> None:
        if self._asked and not self._joined and self._joins_at is None and not self.stuck:
            self._joins_at = now + JOINING_S

    PM_NONE = 0
    _asked = False

    def connect(self, ssid: str, key: "str | None") -> None:
        if self._joins_at is not None:
            self.calls.append((self._now, "refused"))
            raise OSError("Wifi Internal State Error")
        Wlan.connect(self, ssid, key)
        self._asked = True

    def disconnect(self) -> None:
        Wlan.disconnect(self)
        self._asked = False


class Mute(Wlan):
    """A port without power management to switch off, whose radio raises at first."""

    broken_s = 30

    def active(self, *flag: bool) -> bool:
        if flag and self._now < self.broken_s:
            raise RuntimeError("no radio")
        return Wlan.active(self, *flag)


RADIOS = {"rp2": Rp2, "esp32": Esp32, "mute": Mute}


class House:
    """A board's radio and the keeper under test, second by second.

    online: seconds in which a broker was reached.
    """

    def __init__(self, radio: Wlan, keeper: object, first_tick: int) -> None:
        self.radio = radio
        self.keeper = keeper
        self.seconds = 0
        self.online: list[int] = []
        self.news: list[str] = []
        self._first_tick = first_tick

    def live(self, seconds: int, *, broker: bool = True) -> None:
        """Let time go by, with a broker or without."""
        for _ in range(seconds):
            self.radio.second(self.seconds)
            linked = broker and self.radio.isconnected() and self.radio.air
            ticks = (self._first_tick + 1000 * self.seconds) & ((1 << 30) - 1)
            said = self.keeper.keep(ticks, linked=linked)
            if said is not None:
                self.news.append(said)
            if linked:
                self.online.append(self.seconds)
            self.seconds += 1

    def back_after(self, limit_s: int) -> int:
        """Seconds until a broker is reached again, limit_s at most."""
        began, before = self.seconds, len(self.online)
        while len(self.online) == before and self.seconds < began + limit_s:
            self.live(1)
        return self.seconds - began
