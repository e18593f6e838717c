"""Ids and envelopes of the hub's own parts."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import NOW_MS, VALID
from nervus.wire import (
    Accepted,
    Address,
    Guard,
    Mint,
    Packet,
    Publish,
    encode,
    timestamp,
    topics,
    unix_ms,
)
from nervus.wire.contracts import CONTRACTS, ActionProgress, ActionProgressPayload
from nervus.wire.encodings import CBOR, PROTOBUF
from nervus.wire.encodings import encode as encode_as
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


def around(
    payload: bytes, address: Address, source: str = "relay", **how: Any
) -> tuple[Publish, Mint]:
    mint = Mint(source, "thalamus", seed=3, boot=7)
    how = {"ttl_ms": 5_000, "priority": "normal"} | how
    return mint.around(payload, address, NOW_MS, **how), mint


LEVELS = st.text(min_size=1, max_size=7).filter(lambda text: text.isprintable())


@given(source=LEVELS, scope=LEVELS, principal=LEVELS, historical=st.sampled_from([None, True]))
def test_an_envelope_around_a_payload_is_what_the_contract_writes(
    *, source: str, scope: str, principal: str, historical: bool | None
) -> None:
    cause = CONTRACTS["RelayBundle"].model_validate(VALID["RelayBundle"][1])
    meta = cause.meta.model_copy(update={"principal": principal})
    address = topics.gated_relay("room", scope, "somatic")
    written, _ = around(encode(cause.payload), address, source, cause=meta, historical=historical)
    # Made of its bytes, and they are the ones that its model gives: the same fields in that order.
    assert encode(written.message) == written.data
    said = written.message.meta
    assert (said.source, said.scope, said.principal) == (source, scope, principal)
    assert (said.trace_id, said.parent_id) == (meta.trace_id, meta.message_id)
    assert written.message.payload == cause.payload
    packet = Packet("core", address.topic, written.data)
    verdict = Guard([topics.GATED_RELAY]).judge(packet, NOW_MS)
    assert isinstance(verdict, Accepted), verdict
    assert verdict.left_ms == written.expiry_ms == 5_000


@pytest.mark.parametrize(("priority", "qos"), [("normal", 0), ("critical", 1)])
def test_an_envelope_without_a_cause_begins_a_trace_of_its_own(priority: str, qos: int) -> None:
    payload = encode(CONTRACTS["RelayBundle"].model_validate(VALID["RelayBundle"][1]).payload)
    address = topics.relay_bundle("room", "hall", "somatic")
    publish, mint = around(payload, address, priority=priority)
    meta = publish.message.meta
    assert meta.principal == "relay"
    assert meta.parent_id is None
    assert (publish.qos, meta.priority) == (qos, priority)
    again = mint.around(
        payload, address, NOW_MS, ttl_ms=1, priority="normal", trace_id=meta.trace_id
    )
    assert again.message.meta.trace_id == meta.trace_id
    assert again != publish
    assert publish == Publish(address, publish.message, publish.expiry_ms)
    assert publish != "something else"
    assert len({publish, Publish(address, publish.message, publish.expiry_ms), again}) == 2
    assert repr(publish).startswith(f'Publish(core {address.topic} 5000 b\'{{"meta":')


def test_nothing_is_published_without_a_message() -> None:
    with pytest.raises(TypeError, match="neither a message nor its bytes"):
        Publish(topics.relay_bundle("room", "hall", "somatic"))


def test_forms_are_forgotten_before_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nervus.wire.mint._FORM_LIMIT", 2)
    payload = encode(CONTRACTS["RelayBundle"].model_validate(VALID["RelayBundle"][1]).payload)
    _, mint = around(payload, topics.gated_relay("room", "r0", "somatic"))
    for number in range(5):
        address = topics.gated_relay("room", f"r{number}", "somatic")
        publish = mint.around(payload, address, NOW_MS, ttl_ms=1, priority="normal")
        assert publish.message.meta.scope == f"r{number}"
        assert len(mint._forms) <= 2


def accepted(data: bytes) -> Accepted:
    topic = topics.gated_relay("room", "kitchen", "somatic").topic
    verdict = Guard([topics.GATED_RELAY]).judge(Packet("core", topic, data), NOW_MS)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def test_a_payload_is_cut_out_of_what_came_or_written_anew() -> None:
    message = json.loads(json.dumps(VALID["RelayBundle"][1]))
    message["meta"]["scope"] = "kitchen"
    plain = json.dumps(message, separators=(",", ":"))
    payload = plain[plain.index('"payload":') + len('"payload":') : -1]
    assert accepted(plain.encode()).payload_json.decode() == payload
    wanted = json.loads(payload)
    # What looks like the beginning of a payload, in a text: there it is escaped.
    message["meta"]["auth"] = '},"payload":{"channel":"x"}'
    assert json.loads(accepted(json.dumps(message).encode()).payload_json) == wanted
    hidden = json.dumps(message, separators=(",", ":")).encode()
    assert accepted(hidden).payload_json.decode() == payload
    # As a name within an object.
    message["meta"]["ext"] = {"a": 1, "payload": "x"}
    named = json.dumps(message, separators=(",", ":")).encode()
    assert accepted(named).payload_json.decode() == payload
    del message["meta"]["ext"]
    # Before its metadata, with blanks, in another encoding.
    turned = {"payload": message["payload"], "meta": message["meta"]}
    apart = plain.replace(',"payload":', ', "payload":')
    for data in (json.dumps(turned).encode(), apart.encode(), b" " + plain.encode()):
        assert json.loads(accepted(data).payload_json) == wanted
    typed = CONTRACTS["RelayBundle"].model_validate(json.loads(plain))
    for kind in (CBOR, PROTOBUF):
        assert json.loads(accepted(encode_as(typed, kind)).payload_json) == wanted
    errors = plain[:-1] + ',"errors":[{"code":"x","message":"y","kind":"terminal"}]}'
    assert json.loads(accepted(errors.encode()).payload_json) == wanted
