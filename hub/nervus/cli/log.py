"""How the log looks on a terminal."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CHILD: Final = "nervus.child."
_OWN: Final = "nervus."
_NAMES: Final = {"uvicorn.error": "uvicorn"}
"""Of loggers whose own says what they are not: uvicorn's is for all but requests."""


class _Formatter(logging.Formatter):
    """`time  who  text`: who is a child's name, or the module that speaks."""

    def format(self, record: logging.LogRecord) -> str:
        name = _NAMES.get(record.name, record.name)
        record.who = name.removeprefix(_CHILD).removeprefix(_OWN)
        record.mark = "" if record.levelno < logging.WARNING else f"{record.levelname}: "
        return super().format(record)


def set_up_log(*, with_time: bool) -> None:
    """Send the log to standard error.

    Args:
        with_time: Whether to write the time; a supervised child leaves that to its supervisor.
    """
    handler = logging.StreamHandler(sys.stderr)
    time = "%(asctime)s.%(msecs)03d " if with_time else ""
    handler.setFormatter(_Formatter(f"{time}%(who)-14s %(mark)s%(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@contextmanager
def sessions_at(level: int) -> Iterator[None]:
    """Let sessions log from `level` on while a command tells itself what becomes of them."""
    logger = logging.getLogger("nervus.bus")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
