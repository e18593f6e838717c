"""Rejects fold under a flood, and never breed."""

import pytest

from contract.vectors import NOW_MS, VALID, packet, valid
from nervus.wire import Accepted, Guard, Mint, Packet, Publish, Rejected, RejectLane, encode, topics
from nervus.wire.rejects import FOLD_MS, KEY_LIMIT
from nervus.wire.times import NEVER


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
