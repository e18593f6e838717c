"""SHA-512 and Ed25519 on a board, held against the library that the hub signs with."""

import hashlib
from collections.abc import Generator
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from spinal.ed25519 import verify_slices
from spinal.sha512 import digest_slices

T = TypeVar("T")
ORDER = (1 << 252) + 27742317777372317353535851937790883648493
FIELD = (1 << 255) - 19


def result(slices: Generator[None, None, T]) -> T:
    """What a computation in slices returns."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def signed(seed: bytes, message: bytes) -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.public_key().public_bytes_raw(), key.sign(message)


@pytest.mark.parametrize("length", [0, 1, 3, 111, 112, 127, 128, 129, 239, 240, 1000])
def test_digests_are_those_of_the_standard(length: int) -> None:
    message = bytes(n % 251 for n in range(length))
    assert result(digest_slices(message)) == hashlib.sha512(message).digest()


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_what_the_library_signs_is_right_and_nothing_else_is(seed: bytes, message: bytes) -> None:
    key, signature = signed(seed, message)
    assert result(verify_slices(key, message, signature))
    assert not result(verify_slices(key, message + b"\0", signature))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 64 * 8 - 1), st.sampled_from(["key", "signature"]))
def test_a_flipped_bit_is_noticed(bit: int, where: str) -> None:
    key, signature = signed(bytes(32), b"firmware")
    parts = {"key": bytearray(key), "signature": bytearray(signature)}
    part = parts[where]
    part[bit // 8 % len(part)] ^= 1 << bit % 8
    assert not result(verify_slices(bytes(parts["key"]), b"firmware", bytes(parts["signature"])))


def test_a_signature_of_another_form_is_refused() -> None:
    key, signature = signed(bytes(32), b"firmware")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    malleable = signature[:32] + scalar.to_bytes(32, "little")
    for wrong in (malleable, signature[:-1], signature + b"\0", b""):
        assert not result(verify_slices(key, b"firmware", wrong))


@pytest.mark.parametrize(
    "key",
    [
        b"\x02" + bytes(31),  # no x belongs to y = 2
        FIELD.to_bytes(32, "little"),  # y is not below the field's prime
        b"\x01" + bytes(30) + b"\x80",  # x = 0 with the sign of another
        bytes(31),
    ],
)
def test_what_is_no_key_proves_nothing(key: bytes) -> None:
    _, signature = signed(bytes(32), b"firmware")
    assert not result(verify_slices(key, b"firmware", signature))
