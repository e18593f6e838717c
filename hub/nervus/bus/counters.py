"""What a session counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class SessionCounters:
    """What a session has seen since it was made."""

    received: int = 0
    foreign: int = 0
    published: int = 0
    dropped: int = 0
    shed: int = 0
    expired: int = 0
    denied: int = 0
    refused: int = 0
    resent: int = 0
    deferred: int = 0
    connects: int = 0
    failures: int = 0

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        return max(0, self.connects - 1)
