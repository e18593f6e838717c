"""Message ids: a UUIDv7 value as ULID text, drawn once a boot and counted up."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinal.ids import MessageIds

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
seeds = st.binary(min_size=10, max_size=16)
times = st.integers(0, (1 << 48) - 1)


def as_uuid(text: str) -> uuid.UUID:
    value = 0
    for character in text:
        value = value << 5 | ALPHABET.index(character)
    return uuid.UUID(int=value)


@pytest.mark.req("S0-44", "S4-28")
@given(seeds, times, st.integers(1, 70))
def test_every_id_is_a_uuid_of_version_7_with_the_time_of_boot(
    seed: bytes, unix_ms: int, count: int
) -> None:
    ids = MessageIds(seed, unix_ms)
    for _ in range(count):
        drawn = as_uuid(ids.next())
        assert drawn.version == 7
        assert drawn.variant == uuid.RFC_4122
        assert drawn.int >> 80 == unix_ms


@given(seeds, times)
def test_ids_rise_by_one_and_keep_what_stands_before_the_count(seed: bytes, unix_ms: int) -> None:
    ids = MessageIds(seed, unix_ms)
    run = [ids.next() for _ in range(100)]
    assert [as_uuid(each).int - as_uuid(run[0]).int for each in run] == list(range(100))
    assert {each[:14] for each in run} == {run[0][:14]}


def test_a_full_count_carries_over_all_its_places() -> None:
    ids = MessageIds(b"\xff" * 10)
    before = as_uuid(ids.next()).int
    # The highest of the 60 counted bits starts at 0, so even this seed carries and never wraps.
    assert before & (1 << 60) - 1 == 1 << 59
    assert as_uuid(ids.next()).int == before + 1


def test_two_boots_differ_in_their_random_bits() -> None:
    first = as_uuid(MessageIds(bytes(10)).next()).int
    for bit in range(80):
        seed = (1 << bit).to_bytes(10, "big")
        changed = as_uuid(MessageIds(seed).next()).int
        # Of 80 bits of seed 73 are used: 6 are spent on version and variant, 1 on the carry.
        assert (changed != first) == (bit < 59 or 60 <= bit < 62 or bit >= 68)


def test_writing_into_a_buffer_gives_the_same_sequence() -> None:
    buffer = bytearray(b"<" + b"." * 26 + b">")
    told, written = MessageIds(b"0123456789"), MessageIds(b"0123456789")
    for _ in range(50):
        written.write(buffer, 1)
        assert bytes(buffer) == b"<" + told.next().encode() + b">"


@pytest.mark.parametrize(
    ("seed", "unix_ms"), [(b"short", 0), (bytes(10), -1), (bytes(10), 1 << 48)]
)
def test_a_short_seed_or_an_impossible_time_is_refused(seed: bytes, unix_ms: int) -> None:
    with pytest.raises(ValueError, match=r"message ids need|does not fit"):
        MessageIds(seed, unix_ms)
