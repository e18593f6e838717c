"""Message ids: a UUIDv7 value (RFC 9562) written as 26-character ULID text."""

from itertools import product
from random import Random
from typing import Final

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(map("".join, product(_CROCKFORD, repeat=2)))
_PAIR_BITS: Final = 10
_PAIR: Final = 2**_PAIR_BITS - 1
_COUNT_LIMIT: Final = 2**20
_COUNTED: Final = 4


class MessageIds:
    """Ids drawn from (time, seed, counter): the same seed and times give the same ids.

    Each millisecond draws its random bits once; within one the last 20 of them count up (RFC 9562,
    6.2, method 2), so that ids of one source also sort in the order they were made.
    """

    def __init__(self, seed: int) -> None:
        # Not a secret: an id is unique, not unguessable.
        self._random = Random(seed)  # noqa: S311
        self._now_ms = -1
        self._head = ""
        self._count = _COUNT_LIMIT

    def next(self, now_ms: int) -> str:
        """The next id at `now_ms` (unix milliseconds)."""
        count = self._count + 1
        if now_ms != self._now_ms or count >= _COUNT_LIMIT:
            count = self._draw(now_ms)
        self._count = count
        return f"{self._head}{_PAIRS[count >> _PAIR_BITS]}{_PAIRS[count & _PAIR]}"

    def span(self) -> str:
        """A span id, 16 hexadecimal digits."""
        return f"{self._random.getrandbits(64):016x}"

    def _draw(self, now_ms: int) -> int:
        noise = self._random.getrandbits(74)
        value = now_ms << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
        self._now_ms = now_ms
        self._head = ulid_text(value)[:-_COUNTED]
        return value & _COUNT_LIMIT - 1


def ulid_text(value: int) -> str:
    """A 128-bit value as ULID text: Crockford base 32, right-aligned in 130 bits."""
    return "".join([_PAIRS[value >> shift & _PAIR] for shift in range(120, -1, -_PAIR_BITS)])


def ulid_value(text: str) -> int | None:
    """The 128-bit value of a ULID, None for a text that is none."""
    if len(text) != _LENGTH or text[0] > "7" or not _DIGITS.issuperset(text):
        return None
    return int(text.translate(_BASE_32), 32)


_LENGTH = 26
_DIGITS = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
_BASE_32 = str.maketrans("0123456789ABCDEFGHJKMNPQRSTVWXYZ", "0123456789ABCDEFGHIJKLMNOPQRSTUV")
