"""The `network` module of a virtual board: Wi-Fi that is up unless the control channel says no."""

import errno

from control import channel

_RSSI = -50
STA_IF = 0


class WLAN:
    """The station interface; `connect` succeeds as soon as the outside has Wi-Fi up."""

    def __init__(self, interface: int = STA_IF) -> None:
        del interface
        self._active = False

    def active(self, *flag: bool) -> bool:
        """Read or set whether the radio is on."""
        if flag:
            self._active = bool(flag[0])
        return self._active

    def connect(self, ssid: str | None = None, key: str | None = None) -> None:
        """Begin to connect."""

    def isconnected(self) -> bool:
        """Whether the board is on the network."""
        return self._active and channel.wifi

    def status(self, parameter: str) -> int:
        """The signal in dBm for "rssi"."""
        if parameter != "rssi" or not self.isconnected():
            raise OSError(errno.ENOTCONN)
        return _RSSI
