"""What can go wrong in a store."""

from nervus.errors import NervusError


class StoreError(NervusError):
    """The store cannot be opened, or a transaction failed."""


class StoreClosedError(StoreError):
    """The store was closed before the job ran."""


class StoreFullError(StoreError):
    """Too many jobs wait, and none was done in time."""
