"""How a board fares, for DeviceHealth: loop times, free heap, what was shed."""

_BUCKETS = 44  # two for each power of two: up to 4 s
_HUNDRED = 100
_RANGES = 16


class Health:
    """Gathers between two reports."""

    def __init__(self) -> None:
        self._turns = [0] * _BUCKETS
        self._drops: list = []

    def turn(self, microseconds: int) -> None:
        """One turn of the loop took so long."""
        self._turns[_bucket(microseconds)] += 1

    def dropped(self, ranges: list) -> None:
        """Messages that were shed, as [first, last] sequence numbers; the newest 16 ranges stay."""
        for first, last in ranges:
            self._drops.append((first, last, last - first + 1))
        while len(self._drops) > _RANGES:
            older, newer = self._drops[:2]
            self._drops[:2] = [(older[0], newer[1], older[2] + newer[2])]

    def take(self) -> tuple:
        """Begin anew; returns (microseconds that 99 of 100 turns kept, to a third; drops)."""
        total = sum(self._turns)
        wanted = total * (_HUNDRED - 1) // _HUNDRED
        bucket = 0
        seen = self._turns[0]
        while seen <= wanted and bucket < _BUCKETS - 1:
            bucket += 1
            seen += self._turns[bucket]
        drops = [{"first_seq": f, "last_seq": t, "count": n} for f, t, n in self._drops]
        self._turns = [0] * _BUCKETS
        self._drops = []
        return _upper(bucket) if total else 0, drops


def _bucket(microseconds: int) -> int:
    """Two buckets for each power of two, as the two highest bits say."""
    power = 0
    while microseconds > 3:  # noqa: PLR2004 - two bits are left
        microseconds >>= 1
        power += 1
    return min(2 * power + max(0, microseconds - 2), _BUCKETS - 1)


def _upper(bucket: int) -> int:
    """The largest number of microseconds in a bucket."""
    return ((3 + (bucket & 1)) << (bucket >> 1)) - 1
