"""Ids and envelopes of the hub's own parts."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import NOW_MS, VALID
from nervus.wire import Mint, encode, timestamp, topics, unix_ms
from nervus.wire.contracts import CONTRACTS, ActionProgress, ActionProgressPayload
from nervus.wire.ids import MessageIds

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@pytest.mark.req("S4-28", "S3-32")
@given(st.integers(0, 2**48 - 1), st.integers(0, 2**64 - 1))
def test_an_id_is_a_uuid_version_7_of_its_time_as_ulid_text(now_ms: int, seed: int) -> None:
    text = MessageIds(seed).next(now_ms)
    assert len(text) == 26
    value = 0
    for character in text:
        value = value * 32 + CROCKFORD.index(character)
    uuid = UUID(int=value)
    assert uuid.version == 7
    assert uuid.variant == "specified in RFC 4122"
    assert value >> 80 == now_ms


@pytest.mark.req("S4-56")
def test_the_same_seed_and_times_give_the_same_messages_and_another_seed_others() -> None:
    def run(seed: int) -> list[bytes]:
        mint = Mint("reliable", "reliable", seed=seed, boot=7)
        payload = ActionProgressPayload(stage="accepted")
        address = topics.action_progress("room", "kitchen", "A")
        action_id = mint.id(NOW_MS)
        return [
            encode(mint.full(ActionProgress, address, payload, at, action_id=action_id).message)
            for at in range(NOW_MS, NOW_MS + 5)
        ]

    assert run(1) == run(1)
    assert len(set(run(1) + run(2))) == 10


@pytest.mark.req("S3-40", "S3-41", "S0-63")
def test_principal_and_trace_go_on_and_source_changes_at_each_hop() -> None:
    request = CONTRACTS["CommandRequest"].model_validate(VALID["CommandRequest"][1])
    mint = Mint("reliable", "reliable", seed=1, boot=1)
    publish = mint.full(
        ActionProgress,
        topics.action_progress("room", "kitchen", request.meta.action_id),
        ActionProgressPayload(stage="accepted"),
        NOW_MS,
        cause=request,
        action_id=request.meta.action_id,
    )
    meta = publish.message.meta
    assert (meta.principal, meta.source) == ("app", "reliable")
    assert meta.trace_id == request.meta.trace_id
    assert meta.parent_id == request.meta.message_id
    assert meta.parent_span_id == request.meta.span_id


@given(st.integers(1_600_000_000_000, 4_102_444_799_999))
def test_a_time_survives_the_wire(moment: int) -> None:
    assert unix_ms(timestamp(moment)) == moment


@pytest.mark.parametrize(
    "text", ["2026-11-20T19:44:00Z", "2026-11-20T19:44:00,000Z", "2026-11-20T19:44:00.000+", ""]
)
def test_a_time_in_another_form_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="write it as"):
        unix_ms(text)


def test_ids_of_one_source_sort_in_the_order_they_were_made_and_never_repeat() -> None:
    ids = MessageIds(5)
    made = [ids.next(NOW_MS + n // 5_000) for n in range(20_000)]
    assert len(set(made)) == len(made)
    runs = [made[at : at + 5_000] for at in range(0, len(made), 5_000)]
    # A millisecond whose count ran over draws anew, and may begin lower.
    assert sum(run != sorted(run) for run in runs) <= 1


def test_a_count_that_runs_over_draws_anew() -> None:
    ids = MessageIds(5)
    first = ids.next(NOW_MS)
    ids._count = 2**20 - 1
    assert ids.next(NOW_MS)[:22] != first[:22]
