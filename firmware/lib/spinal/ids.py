"""Message ids: a UUIDv7 value as 26-character ULID text, drawn once and counted up."""

_ALPHABET = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# What follows each character from "0" to "Z"; those that the alphabet leaves out do not occur.
_SUCCESSOR = b"123456789A       BCDEFGHJ KM NP QRSTV WXYZ0"
_LENGTH = 26
_LAST = _LENGTH - 1
_SEED_BYTES = 10
_BYTES = 16


class MessageIds:
    """A run of message ids that rises strictly until the next boot.

    seed_bytes: 10 random bytes, drawn anew at each boot. unix_ms: milliseconds since 1970, or 0
    while the time is unknown. ValueError when the seed is short or the time does not fit 48 bits.

    The 128 bits are those of RFC 9562, section 5.7. Only the last 12 characters are counted, 60
    bits that all lie in rand_b, so version and variant stay. The highest of the 60 starts at 0:
    the count cannot wrap in the life of a board.
    """

    def __init__(self, seed_bytes: bytes, unix_ms: int = 0) -> None:
        if len(seed_bytes) < _SEED_BYTES:
            raise ValueError(f"message ids need {_SEED_BYTES} random bytes, got {len(seed_bytes)}")
        if not 0 <= unix_ms < 1 << 48:
            raise ValueError(f"unix_ms {unix_ms} does not fit the 48 bits of a UUIDv7")
        random = int.from_bytes(bytes(seed_bytes[:_SEED_BYTES]), "big")
        value = unix_ms << 80 | 7 << 76 | (random >> 68 & 0xFFF) << 64 | 2 << 62
        value |= random & (1 << 62) - 1 & ~(1 << 59)
        self._bytes = bytearray(value.to_bytes(_BYTES, "big"))
        self._text = bytearray(_LENGTH)
        for position in range(_LAST, -1, -1):
            self._text[position] = _ALPHABET[value & 31]
            value >>= 5

    def next(self) -> str:
        """Return the next id."""
        self._count_up()
        return str(self._text, "utf-8")

    def write(self, buffer: bytearray, offset: int) -> None:
        """Write the next id as 26 ASCII characters to buffer[offset:]."""
        self._count_up()
        buffer[offset : offset + _LENGTH] = self._text

    def write_bytes(self, buffer: bytearray, offset: int) -> None:
        """Write the next id as 16 bytes to buffer[offset:]."""
        self._count_up()
        buffer[offset : offset + _BYTES] = self._bytes

    def _count_up(self) -> None:
        # The same number twice, as 16 bytes and as text: turning one into the other takes longer.
        data = self._bytes
        position = _BYTES - 1
        while data[position] == 255:  # noqa: PLR2004 - this byte wraps, so carry on
            data[position] = 0
            position -= 1
        data[position] += 1
        text = self._text
        position = _LAST
        while True:
            following = _SUCCESSOR[text[position] - 48]
            text[position] = following
            if following != 48:  # noqa: PLR2004 - "0": this character wrapped, so carry on
                return
            position -= 1
