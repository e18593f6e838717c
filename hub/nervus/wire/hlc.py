"""Hybrid logical clocks: an order of several machines' messages that no clock has to be right for.

After Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical physical clocks" (2014). A message's
`meta.hlc` is optional; who reads it before it answers, answers with a later one.
"""

from nervus.wire.contracts import HybridClock

Order = tuple[int, int, str]

LOGICAL_LIMIT = 2**53
"""Beyond what a reading can hold."""


def order(reading: HybridClock) -> Order:
    """What readings are sorted by: the same for everybody, and a cause before what it caused."""
    return reading.wall_ms, reading.logical, reading.node


class HybridLogicalClock:
    """One node's clock: its readings always rise, also while the wall clock stands or goes back.

    They stay as near to the wall clock as those of the nodes it hears are; how far ahead one may be
    is for the guard, which lets no reading through that is from the future.

    Args:
        node: Its name, different from all others'.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self._wall_ms = 0
        self._logical = 0

    def send(self, now_ms: int) -> HybridClock:
        """A reading for a message that is sent at `now_ms` of the wall clock."""
        self._advance(now_ms, 0, -1)
        return HybridClock(wall_ms=self._wall_ms, logical=self._logical, node=self.node)

    def receive(self, reading: HybridClock, now_ms: int) -> None:
        """Take the reading of an accepted message: what is sent from now on is after it."""
        self._advance(now_ms, reading.wall_ms, reading.logical)

    def _advance(self, now_ms: int, wall_ms: int, logical: int) -> None:
        latest = max(now_ms, wall_ms, self._wall_ms)
        counts = [-1]
        if latest == self._wall_ms:
            counts.append(self._logical)
        if latest == wall_ms:
            counts.append(logical)
        self._wall_ms, self._logical = latest, max(counts) + 1
