"""SHA-512 (FIPS 180-4), which MicroPython's `hashlib` lacks; in slices, for a loop that goes on."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

_MASK = (1 << 64) - 1
_BLOCK = 128
_ROUNDS = 80
_ROUNDS_A_SLICE = 16
_WORD = 8


def digest_slices(message: bytes) -> "Generator[None, None, bytes]":
    """Yield after each slice of work; returns the digest, 64 bytes."""
    length = len(message)
    padding = b"\x80" + bytes((_BLOCK - 17 - length) % _BLOCK) + (8 * length).to_bytes(16, "big")
    message = message + padding
    constants = yield from _roots(_ROUNDS, 3)
    state = yield from _roots(_WORD, 2)
    for start in range(0, len(message), _BLOCK):
        words = [_word(message, start + _WORD * position) for position in range(16)]
        work = state[:]
        for turn in range(_ROUNDS):
            _round(work, words, turn, constants[turn])
            if turn % _ROUNDS_A_SLICE == 0:
                yield
        state = [(before + after) & _MASK for before, after in zip(state, work)]  # noqa: B905 - no strict here
    return b"".join([word.to_bytes(_WORD, "big") for word in state])


def _round(work: list, words: list, turn: int, constant: int) -> None:
    """One round; `words` is a ring of the last 16 words of the message schedule."""
    place = turn & 15
    word = words[place]
    if turn > 15:  # noqa: PLR2004 - the first 16 are the message itself
        early, late = words[(turn + 1) & 15], words[(turn + 14) & 15]
        early = _rotated(early, 1) ^ _rotated(early, 8) ^ (early >> 7)
        late = _rotated(late, 19) ^ _rotated(late, 61) ^ (late >> 6)
        word = words[place] = (word + early + words[(turn + 9) & 15] + late) & _MASK
    a, b, c, d, e, f, g, h = work
    mixed = _rotated(e, 14) ^ _rotated(e, 18) ^ _rotated(e, 41)
    first = h + mixed + (g ^ (e & (f ^ g))) + constant + word
    mixed = _rotated(a, 28) ^ _rotated(a, 34) ^ _rotated(a, 39)
    second = mixed + ((a & b) | (c & (a | b)))
    work[:] = ((first + second) & _MASK, a, b, c, (d + first) & _MASK, e, f, g)


def _rotated(word: int, bits: int) -> int:
    return (word >> bits) | (word << (64 - bits) & _MASK)


def _word(message: bytes, start: int) -> int:
    return int.from_bytes(message[start : start + _WORD], "big")


def _roots(count: int, degree: int) -> "Generator[None, None, list]":
    """The first 64 bits of the fractions of the `degree`-th roots of the first primes."""
    found: list = []
    primes: list = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in primes):
            primes.append(number)
            found.append(_root(number << 64 * degree, degree) & _MASK)
            yield
        number += 1
    return found


def _root(value: int, degree: int) -> int:
    """The largest integer whose power is not above `value`."""
    low, high = 0, 1 << 70
    while low < high:
        middle = (low + high + 1) >> 1
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    return low
