"""Winner takes all: within a scope and window, the most salient channels pass."""

from typing import Final, NamedTuple

from nervus.thalamus.gate import Verdict
from nervus.wire import Accepted

ENTRANT_LIMIT: Final = 256


class Entrant(NamedTuple):
    """A message that waits for the end of its contest."""

    event: Accepted
    verdict: Verdict
    expires_ms: int

    @property
    def channel(self) -> str:
        """What it stands for."""
        return self.event.address.levels["channel"]

    @property
    def salience(self) -> float:
        """What it has to show: its bundle's salience, nothing when that is not stated."""
        return self.event.message.payload.salience or 0.0


class Contest:
    """The messages of a scope that compete until `end_ms`; holds at most 256."""

    def __init__(self, end_ms: int) -> None:
        self.end_ms = end_ms
        self.entrants: list[Entrant] = []

    def enter(self, entrant: Entrant) -> bool:
        """Take an entrant; False if there are too many."""
        if len(self.entrants) >= ENTRANT_LIMIT:
            return False
        self.entrants.append(entrant)
        return True

    def winners(self, count: int) -> set[str]:
        """The `count` channels with the most salient message; equals win by name."""
        best: dict[str, float] = {}
        for entrant in self.entrants:
            best[entrant.channel] = max(best.get(entrant.channel, 0.0), entrant.salience)
        return set(sorted(best, key=lambda channel: (-best[channel], channel))[:count])
