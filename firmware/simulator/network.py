"""The `network` module of a virtual board: Wi-Fi that is up unless the control channel says no."""

import errno

from control import channel

_RSSI = -50
STA_IF = 0


class WLAN:
    """The station interface, as an RP2 has it: what is lost is joined again by `connect` only.

    A board whose node names no Wi-Fi never asks for one: it is joined by itself.
    """

    def __init__(self, kind: int = STA_IF) -> None:
        del kind
        self._active = False
        self._started = False
        self._linked = False

    def active(self, *flag: bool) -> bool:
        """Read or set whether the radio is on."""
        if flag:
            self._active = bool(flag[0])
            self._linked = False
        return self._active

    def connect(self, ssid: str | None = None, key: str | None = None) -> None:
        """Join; in vain when there is no Wi-Fi at this moment."""
        del ssid, key
        self._started = True
        self._linked = self._active and channel.wifi

    def disconnect(self) -> None:
        """Leave."""
        self._linked = False

    def isconnected(self) -> bool:
        """Whether the board is on the network."""
        if not channel.wifi:
            self._linked = False
        return self._active and channel.wifi and (self._linked or not self._started)

    def status(self, name: str) -> int:
        """The signal in dBm for "rssi"."""
        if name != "rssi" or not self.isconnected():
            raise OSError(errno.ENOTCONN)
        return _RSSI
