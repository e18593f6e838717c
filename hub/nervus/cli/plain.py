"""What came over the wire, as a terminal may show it."""

from typing import Final

_UNSHOWN: Final = "\N{REPLACEMENT CHARACTER}"


def plain(text: str) -> str:
    """Return a text with all that is no printable character replaced.

    Whoever sent it chose it: an escape sequence would be carried out by the terminal.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _UNSHOWN for c in text)
