"""What others sent, as it may be told: printable, and not too long."""

from itertools import accumulate
from typing import Final

_UNSHOWN: Final = "\N{REPLACEMENT CHARACTER}"


def plain(text: str) -> str:
    """Return a text with all that is no printable character replaced.

    Whoever sent it chose it: an escape sequence would be carried out by the terminal.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _UNSHOWN for c in text)


def begins(text: str, limit: int) -> str:
    """Return as much of the beginning of a text, made plain, as takes `limit` bytes in JSON."""
    shown = plain(text[:limit])
    sizes = accumulate(len(c.encode()) + (c in '"\\') for c in shown)
    return shown[: sum(size <= limit for size in sizes)]
