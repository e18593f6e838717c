"""The store: SQLite behind one writer thread; a write that returned survives a power cut."""

from nervus.store.errors import StoreClosedError, StoreError, StoreFullError
from nervus.store.store import Store, StoreCounters

__all__ = ["Store", "StoreClosedError", "StoreCounters", "StoreError", "StoreFullError"]
