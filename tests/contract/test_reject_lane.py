"""Rejects fold under a flood, never breed, and can be told whatever was refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import NOW_MS, VALID, packet, valid
from nervus.wire import (
    Accepted,
    Guard,
    Mint,
    Packet,
    Publish,
    Rejected,
    RejectLane,
    encode,
    refuse,
    topics,
)
from nervus.wire.plain import begins, plain
from nervus.wire.rejects import FOLD_MS, KEY_LIMIT
from nervus.wire.times import NEVER
from nervus.wire.topic import TopicSpec, level
from nervus.wire.topic_parser import parse


def lane() -> RejectLane:
    return RejectLane(Mint("brainstem", "brainstem", seed=1, boot=1), "home")


def rejected(source: str = "device:b1", topic: str = VALID["AfferentSignal"][0]) -> Rejected:
    message = {"meta": {"source": source, "contract": "nonsense"}, "payload": {}}
    verdict = Guard(topics.TOPICS).judge(packet(topic, message), NOW_MS)
    assert isinstance(verdict, Rejected)
    return verdict


@pytest.mark.req("S0-49", "S0-84", "S1-18", "S1-79", "S2-36")
def test_the_first_reject_of_a_kind_is_published_at_once_and_passes_the_guard() -> None:
    (publish,) = lane().step(rejected(), NOW_MS)
    assert publish.address.topic == "/X/reflect/event/room/kitchen/lane/reject"
    assert publish.on == "core"
    verdict = Guard([topics.REJECT]).judge(
        Packet("core", publish.address.topic, encode(publish.message)), NOW_MS
    )
    assert isinstance(verdict, Accepted), verdict
    assert verdict.message.payload.reason_code == "contract_not_allowed"
    assert verdict.message.payload.input_ref.source == "device:b1"


def test_a_flood_of_one_kind_becomes_one_event_with_a_count() -> None:
    core = lane()
    assert core.due_ms == NEVER
    assert len(core.step(rejected(), NOW_MS)) == 1
    for n in range(1_000):
        assert core.step(rejected(), NOW_MS + n) == []
    assert core.due_ms == NOW_MS + FOLD_MS
    assert core.tick(NOW_MS + FOLD_MS - 1) == []
    (folded,) = core.tick(NOW_MS + FOLD_MS)
    assert folded.message.payload.count == 1_000
    assert folded.message.payload.window_ms == FOLD_MS
    assert core.total == 1_001
    assert core.due_ms == NOW_MS + 2 * FOLD_MS
    assert core.tick(NOW_MS + 2 * FOLD_MS) == []
    assert core.due_ms == NEVER
    assert len(core.step(rejected(), NOW_MS + 2 * FOLD_MS)) == 1


def test_a_flood_of_invented_sources_costs_bounded_memory_and_few_events() -> None:
    core = lane()
    published: list[Publish] = []
    for n in range(5_000):
        published += core.step(rejected(f"device:{n}"), NOW_MS)
    assert len(published) <= KEY_LIMIT + 1
    counted = sum(event.message.payload.count for event in core.tick(NOW_MS + FOLD_MS))
    assert len(published) + counted == core.total == 5_000


def test_a_reject_without_a_topic_goes_to_the_house() -> None:
    (publish,) = lane().step(rejected(topic="/sc/nowhere"), NOW_MS)
    assert publish.address.topic == "/X/reflect/event/house/home/lane/reject"


def test_a_rejected_reject_causes_no_other() -> None:
    verdict = Guard([topics.AFFERENT]).judge(valid("RejectEvent"), NOW_MS)
    assert isinstance(verdict, Rejected)
    assert lane().step(verdict, NOW_MS) == []


HOSTILE = '\x1b[2J\x9b31m\u202e\ud800\x00\x7f"\\\n灯\U0001f4a1é'
"""Clears a terminal, colours it, turns its text around, is no UTF-8, and grows when written."""

texts = st.text(st.sampled_from(HOSTILE + "a"), max_size=600)
names = st.text(st.sampled_from('\x9b\u202e灯"\\a'), min_size=1, max_size=80)


def strings(value: Any) -> Iterator[str]:
    """Every text in decoded JSON."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else ():
        yield from strings(item)


def told(rejected: Rejected) -> Any:
    """What the lane says of it at once, as anybody takes it; everything in it can be shown."""
    (publish,) = lane().step(rejected, NOW_MS)
    assert not [text for text in strings(json.loads(publish.data)) if not text.isprintable()]
    received = Packet("core", publish.address.topic, publish.data)
    verdict = Guard([topics.REJECT]).judge(received, NOW_MS)
    assert isinstance(verdict, Accepted), verdict
    return verdict.message.payload


def filled(spec: TopicSpec, known: dict[str, str], other: str) -> str:
    """A topic of a row, with one value in each level that is not known."""
    parts = spec.template.split("/")
    return "/".join(known.get(part, other) if part[:1] == "{" else part for part in parts)


@given(texts, texts, st.one_of(st.none(), names), names, st.binary(max_size=400))
def test_whatever_was_refused_can_be_told_and_shown(
    reason: str, topic: str, source: str | None, contract: str, data: bytes
) -> None:
    one = replace(rejected(), reason=reason, source=source, contract=contract, address=None)
    payload = told(replace(one, packet=Packet("core", topic, data)))
    assert payload.input_ref.contract == begins(contract, 64)
    assert plain(reason).startswith(payload.reason)


@given(
    st.sampled_from([spec for spec in topics.TOPICS if spec is not topics.REJECT]),
    st.sampled_from(["room", "nowhere"]), names, st.sampled_from([b"\xff", b'"', b"\\"]),
)  # fmt: skip
def test_no_place_and_no_bytes_make_a_reject_that_is_refused_itself(
    spec: TopicSpec, scope_level: str, name: str, byte: bytes
) -> None:
    each = level(name[:7])  # nine bytes a character once they are percent-encoded
    topic = filled(spec, {"{scope_level}": scope_level}, each)
    verdict = Guard(topics.TOPICS).judge(Packet("core", topic, byte * 300), NOW_MS)
    assert isinstance(verdict, Rejected)
    assert told(verdict).input_ref.source_topic == topic


def test_a_scope_of_no_level_is_a_matter_of_the_house() -> None:
    topic = "/th/mod/event/planet/mars/target/channel/somatic"
    verdict = Guard(topics.TOPICS).judge(Packet("core", topic, b"{}"), NOW_MS)
    assert isinstance(verdict, Rejected)
    assert verdict.reason == "scope level: one of device, room, house, user_session"
    (publish,) = lane().step(verdict, NOW_MS)
    assert publish.address.topic == "/X/reflect/event/house/home/lane/reject"


def test_what_a_plane_says_no_to_is_shown_without_what_its_source_hides_in_its_name() -> None:
    accepted = Guard(topics.TOPICS).judge(valid("RelayBundle"), NOW_MS)
    assert isinstance(accepted, Accepted)
    meta = accepted.message.meta.model_copy(update={"source": "lamp\x9b2J"})
    said = accepted._replace(message=accepted.message.model_copy(update={"meta": meta}))
    assert told(refuse(said, "expired", "apply", "\x1b[2Jgone")).input_ref.source == "lamp\ufffd2J"


def test_the_longest_topic_is_told_whole() -> None:
    most = {"{scope_level}": "user_session", "{action_id}": "0" * 26}
    longest = max((filled(spec, most, "x" * 64) for spec in topics.TOPICS), key=len)
    assert parse(longest)
    assert begins(longest, 320) == longest


def test_a_clock_that_is_set_on_by_months_ends_what_was_folded() -> None:
    core = lane()
    core.step(rejected(), NOW_MS)
    core.step(rejected(), NOW_MS)
    (folded,) = core.tick(NOW_MS + 10**11)
    assert (folded.message.payload.count, folded.message.payload.window_ms) == (1, 31 * 86_400_000)
