"""Ed25519 signatures (RFC 8032, section 5.1), verified only; in slices, for a loop that goes on."""

from spinal.sha512 import digest_slices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = (1 << 255) - 19
_ORDER = (1 << 252) + 27742317777372353535851937790883648493
_BITS = 253
_P_BITS = 255
_BITS_A_SLICE = 32
_D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
_SQRT_MINUS_ONE = 19681161376707505956807079304988542015446066515923890162744021073123829784752
_BASE = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)
_IDENTITY = (0, 1, 1, 0)


def verify_slices(key: bytes, message: bytes, signature: bytes) -> "Generator[None, None, bool]":
    """Yield after each slice of work; returns whether the signature is right.

    `key` has 32 bytes, `signature` 64; other lengths, a point that is not on the curve, and an S
    that is not below the group's order are False. The equation checked is the one without
    cofactor, [S]B = R + [k]A.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    scalar = int.from_bytes(signature[KEY_BYTES:], "little")
    point = yield from _decoded(key)
    if point is None or scalar >= _ORDER:
        return False
    digest = yield from digest_slices(signature[:KEY_BYTES] + key + message)
    challenge = int.from_bytes(digest, "little") % _ORDER
    negated = _extended(_P - point[0], point[1])
    base = _extended(*_BASE)
    both = _sum(base, negated)
    total = _IDENTITY
    # Both products in one pass: [S]B + [k](-A), which is R when the signature is right.
    for bit in range(_BITS - 1, -1, -1):
        total = _sum(total, total)
        chosen = (scalar >> bit & 1) + 2 * (challenge >> bit & 1)
        if chosen:
            total = _sum(total, (base, negated, both)[chosen - 1])
        yield
    return (yield from _encoded(total)) == signature[:KEY_BYTES]


def _sum(one: tuple, other: tuple) -> tuple:
    """Add two points in extended coordinates (RFC 8032, section 5.1.4); doubles as well."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _extended(x: int, y: int) -> tuple:
    return x, y, 1, x * y % _P


def _power(base: int, exponent: int) -> "Generator[None, None, int]":
    """As pow(base, exponent, _P), which would take its time in one piece."""
    power = 1
    for bit in range(_P_BITS - 1, -1, -1):
        power = power * power % _P
        if exponent >> bit & 1:
            power = power * base % _P
        if bit % _BITS_A_SLICE == 0:
            yield
    return power


def _encoded(point: tuple) -> "Generator[None, None, bytes]":
    inverse = yield from _power(point[2], _P - 2)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(KEY_BYTES, "little")


def _decoded(key: bytes) -> "Generator[None, None, tuple | None]":
    """The point of a key (RFC 8032, section 5.1.3), None when there is none."""
    y = int.from_bytes(key, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    cube = v * v * v % _P
    root = yield from _power(u * cube * cube * v % _P, (_P - 5) // 8)
    x = u * cube * root % _P
    square = v * x * x % _P
    if square == _P - u and u:
        x = x * _SQRT_MINUS_ONE % _P
    elif square != u:
        return None
    if x == 0 and sign:
        return None
    return (_P - x if x & 1 != sign else x), y
