"""The port's own clock, which TLS asks whether the broker's certificate is valid yet.

No board keeps time without power: an ESP32 starts in the year 2000, an RP2 in 2021, and both refuse
every certificate of today. So the clock is set at boot to the latest moment that is known to have
passed, and to the hub's time each day. Nothing else reads it; messages have `spinal.clock`.

rtc is a `machine.RTC`. A moment is [year, month, day, hour, minute, second], in UTC.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TOO_EARLY = "The certificate validity starts in the future"  # mbedTLS's words
_STEP_DAYS = 30  # brokers' certificates are renewed 30 days before their end
_EPOCH_DAYS = 719468  # from 0000-03-01 to 1970-01-01
_ERA_DAYS = 146097
_SEQUENCE, _UTC_TIME, _VERSION = 0x30, 0x17, 0xA0
_BEFORE_VALIDITY = 3  # serial number, algorithm, issuer


class WallClock:
    """The port's clock, from boot on not behind what has passed.

    certificate: the board's own, in DER, which was not made later than it was flashed. stored: what
    `tick` returned last. `was_behind`: whether the clock had to be set. ValueError when the
    certificate cannot be read.
    """

    def __init__(self, rtc: "Any", certificate: bytes, stored: "list[int] | None") -> None:
        self._rtc = rtc
        known = _not_before(certificate)
        if stored is not None and stored > known:
            known = stored
        self.was_behind = _read(rtc) < known
        if self.was_behind:
            _set(rtc, known)

    def tick(self, unix_ms: int) -> "list[int]":
        """Take the hub's time; returned for the next boot."""
        seconds = unix_ms // 1000
        return _set(self._rtc, _date(seconds // 86400) + _time(seconds % 86400))

    def refuse(self, text: str) -> bool:
        """Go on by 30 days when nothing but the date spoke against the broker; whether it did.

        It has a new certificate, and this board was without power when that was made. One of
        somebody else's is refused for more than its date, so nobody else can move the clock.
        """
        if text.strip() != _TOO_EARLY:
            return False
        now = _read(self._rtc)
        _set(self._rtc, _date(_days(now) + _STEP_DAYS) + now[3:])
        return True


def _read(rtc: "Any") -> "list[int]":
    year, month, day, _, hour, minute, second, _ = rtc.datetime()
    return [year, month, day, hour, minute, second]


def _set(rtc: "Any", moment: "list[int]") -> "list[int]":
    year, month, day, hour, minute, second = moment
    rtc.datetime((year, month, day, 0, hour, minute, second, 0))  # ports find the weekday
    return moment


def _not_before(der: bytes) -> "list[int]":
    """When a certificate begins to be valid."""
    try:
        at = _inside(der, _inside(der, 0))
        if der[at] == _VERSION:
            at = _behind(der, at)
        for _ in range(_BEFORE_VALIDITY):
            at = _behind(der, at)
        at = _inside(der, at)
        length = der[at + 1]
        digits = der[at + 2 : at + 2 + length - 1].decode()
        if der[at] == _UTC_TIME:
            digits = ("20" if digits < "50" else "19") + digits
        moment = [int(digits[:4])]
        moment.extend([int(digits[place : place + 2]) for place in range(4, 14, 2)])
    except (IndexError, ValueError) as error:
        raise ValueError("the board's certificate is no X.509 in DER") from error
    return moment


def _inside(der: bytes, at: int) -> int:
    """Where the contents of the sequence at a place begin."""
    if der[at] != _SEQUENCE:
        raise ValueError("no sequence")
    return at + 2 + (der[at + 1] & 0x7F if der[at + 1] & 0x80 else 0)


def _behind(der: bytes, at: int) -> int:
    """Where the element after the one at a place begins."""
    size = der[at + 1]
    start = at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start], "big")
    return start + size


def _days(moment: "list[int]") -> int:
    """Days since 1970; years begin in March (Howard Hinnant, chrono-Compatible Low-Level Date)."""
    year, month, day = moment[:3]
    year -= month < 3  # noqa: PLR2004 - January and February
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    era, of_era = year // 400, year % 400
    return era * _ERA_DAYS + of_era * 365 + of_era // 4 - of_era // 100 + of_year - _EPOCH_DAYS


def _date(days: int) -> "list[int]":
    """The other way round."""
    days += _EPOCH_DAYS
    era, of_era = days // _ERA_DAYS, days % _ERA_DAYS
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = (month + 2) % 12 + 1
    return [era * 400 + year + (month < 3), month, day]  # noqa: PLR2004 - as above


def _time(seconds: int) -> "list[int]":
    return [seconds // 3600, seconds // 60 % 60, seconds % 60]
