"""Points in time as people write them."""

import re
import time
from datetime import datetime
from typing import Final

from nervus.errors import UsageError

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class MomentError(UsageError):
    """This is no point in time."""


def moment(option: str, text: str, now_ms: int | None = None) -> int:
    """Return unix milliseconds of a date, of `now`, or of `90s`, `15m`, `2h`, `3d` ago.

    A date is ISO 8601, in local time unless it names a zone.

    Raises:
        MomentError: It is neither; names `option`.
    """
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    if text == "now":
        return now
    if ago := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", text):
        return now - round(float(ago[1]) * _UNITS[ago[2]] * 1000)
    try:
        at = datetime.fromisoformat(text)
        return round(at.timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise MomentError(
            f"{option}: {text!r} is no point in time",
            hint="write 2026-11-20T19:44:00 or, for how long ago, 90s, 15m, 2h or 3d",
        ) from error
