"""Wall time on the wire: unix milliseconds inside, ISO 8601 UTC with milliseconds outside."""

from datetime import UTC, datetime


def timestamp(unix_ms: int) -> str:
    """Unix milliseconds as 2026-11-20T19:44:00.000Z."""
    seconds, milliseconds = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def unix_ms(text: str) -> int:
    """The reverse of `timestamp`; raises ValueError for a date that does not exist."""
    moment = datetime.fromisoformat(text)
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
