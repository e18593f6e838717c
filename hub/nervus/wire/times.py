"""Wall time on the wire: unix milliseconds inside, ISO 8601 UTC with milliseconds outside."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

NEVER: Final = 1 << 62
"""A time that does not come, unix milliseconds."""

_SECONDS_LENGTH: Final = len("2026-11-20T19:44:00")
_MILLISECONDS: Final = {f".{number:03d}Z": number for number in range(1000)}


def timestamp(unix_ms: int) -> str:
    """Unix milliseconds as 2026-11-20T19:44:00.000Z."""
    seconds, milliseconds = divmod(unix_ms, 1000)
    return f"{_text(seconds)}.{milliseconds:03d}Z"


def unix_ms(text: str) -> int:
    """The reverse of `timestamp`; raises ValueError for another form or a date that is none."""
    milliseconds = _MILLISECONDS.get(text[_SECONDS_LENGTH:])
    if milliseconds is None:
        raise ValueError(f"{text:.30}: write it as 2026-11-20T19:44:00.000Z")
    return _whole_ms(text[:_SECONDS_LENGTH]) + milliseconds


# Messages come many to a second, so most seconds have just been worked out.
@lru_cache(maxsize=1024)
def _text(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=1024)
def _whole_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000
