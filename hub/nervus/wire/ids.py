"""Message ids: a UUIDv7 value (RFC 9562) written as 26-character ULID text."""

from base64 import b32hexencode
from random import Random

_CROCKFORD = bytes.maketrans(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)


class MessageIds:
    """Ids drawn from (time, seed, counter): the same seed and times give the same ids."""

    def __init__(self, seed: int) -> None:
        # Not a secret: an id is unique, not unguessable.
        self._random = Random(seed)  # noqa: S311

    def next(self, now_ms: int) -> str:
        """The next id at `now_ms` (unix milliseconds)."""
        noise = self._random.getrandbits(74)
        return ulid_text(
            now_ms << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
        )

    def span(self) -> str:
        """A span id, 16 hexadecimal digits."""
        return f"{self._random.getrandbits(64):016x}"


def ulid_text(value: int) -> str:
    """A 128-bit value as ULID text: Crockford base 32, right-aligned in 130 bits."""
    return b32hexencode(value.to_bytes(20))[6:].translate(_CROCKFORD).decode()
