"""The `network` module of a virtual board: Wi-Fi that is up unless the control channel says no."""

import errno

from control import channel

_RSSI = -50
STA_IF, AP_IF = 0, 1
STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 0, 1, 3


class WLAN:
    """The station interface; `connect` succeeds as soon as the outside has Wi-Fi up."""

    def __init__(self, interface: int = STA_IF) -> None:
        self._interface = interface
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

    def status(self, parameter: str | None = None) -> int:
        """The state of the connection, one of the `STAT_…` constants; or "rssi" in dBm."""
        if parameter == "rssi":
            if not self.isconnected():
                raise OSError(errno.ENOTCONN)
            return _RSSI
        if not self._active:
            return STAT_IDLE
        return STAT_GOT_IP if channel.wifi else STAT_CONNECTING

    def config(self, *_names: object, **_values: object) -> None:
        """Accept radio settings, which mean nothing here."""
