"""History: the core plane as it was, in order, and any stretch of it again."""

from nervus.history.archive import Archive, ArchiveError, Query, QueryError, Recorded
from nervus.history.core import History, HistoryCounters, Record, Trim
from nervus.history.settings import HistorySettings

__all__ = [
    "Archive",
    "ArchiveError",
    "History",
    "HistoryCounters",
    "HistorySettings",
    "Query",
    "QueryError",
    "Record",
    "Recorded",
    "Trim",
]
