"""History: the core plane as it was, in order, and any stretch of it again."""

from typing import TYPE_CHECKING

from nervus.late import late

if TYPE_CHECKING:
    from nervus.history.archive import (
        Archive,
        ArchiveError,
        ArchiveTimeoutError,
        Query,
        QueryError,
        Recorded,
        every,
    )
    from nervus.history.core import History, HistoryCounters, Record, Trim
    from nervus.history.machine import build
    from nervus.history.settings import HistorySettings
else:
    __getattr__ = late(
        __name__,
        {
            "archive": (
                "Archive",
                "ArchiveError",
                "ArchiveTimeoutError",
                "Query",
                "QueryError",
                "Recorded",
                "every",
            ),
            "core": ("History", "HistoryCounters", "Record", "Trim"),
            "machine": ("build",),
            "settings": ("HistorySettings",),
        },
    )

__all__ = [
    "Archive",
    "ArchiveError",
    "ArchiveTimeoutError",
    "History",
    "HistoryCounters",
    "HistorySettings",
    "Query",
    "QueryError",
    "Record",
    "Recorded",
    "Trim",
    "build",
    "every",
]
