"""History: the core plane as it was, in order, and any stretch of it again."""

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
