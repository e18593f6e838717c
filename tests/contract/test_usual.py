"""What messages usually look like changes how long a verdict takes, and nothing else."""

import json
from itertools import product

import pytest
from hypothesis import given

from contract.test_guard import doubled
from contract.test_guard_properties import mutated
from contract.vectors import (
    HOSTILE,
    NOW_MS,
    VALID,
    VECTORS,
    Message,
    Vector,
    packet,
    spoiled,
    valid,
)
from nervus.wire import Accepted, Guard, Mint, Packet, Rejected, topics
from nervus.wire import usual as habits
from nervus.wire.contracts import ErrorDetail, Feature, RelayBundle, RelayBundlePayload
from nervus.wire.effects import encode
from nervus.wire.encodings import JSON
from nervus.wire.route import Route, route
from nervus.wire.topics import TOPICS
from nervus.wire.usual import Habit
from nervus.wire.verdict import Verdict

EITHER_PROFILE = {"GlobalBroadcast", "MediaRegistryState", "ParameterUpdate", "RejectEvent"}
REGISTERED = {"GlobalModeUpdate", "PatternRequest", "PatternResponse", "PatternTrigger"}
USUAL = sorted(VALID.keys() - EITHER_PROFILE - REGISTERED)
A_WHILE = 8
"""So many messages alike make a habit."""


@pytest.fixture(autouse=True)
def _of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests got used to stays as it is."""
    monkeypatch.setattr(habits, "_MADE", {})


def way(one: Packet) -> Route:
    found = route(one.broker, one.topic, one.retain)
    assert found is not None
    return found


def judged(one: Packet, now_ms: int = NOW_MS, **settings: object) -> Verdict:
    return Guard(TOPICS, **settings).judge(one, now_ms)


def used_to(one: Packet, now_ms: int = NOW_MS, **settings: object) -> Route:
    """The route of a message once messages like it are usual there."""
    forget(one)
    for _ in range(A_WHILE):
        assert isinstance(judged(one, now_ms, **settings), Accepted)
    return way(one)


def forget(one: Packet) -> None:
    found = way(one)
    found.usual, found.habit = None, Habit()
    habits._MADE.clear()


def both_ways(vector: Vector, usual: Vector, data: bytes | None = None) -> None:
    """What a vector, or other data in its place, is where another is usual: as where none is."""
    one = vector.packet if data is None else vector.packet._replace(payload=data)
    used_to(usual.packet, usual.now_ms, granted=usual.granted.get)
    found = judged(one, vector.now_ms, granted=vector.granted.get)
    forget(usual.packet)
    assert found == judged(one, vector.now_ms, granted=vector.granted.get), one.payload


def written(message: Message) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("contract", USUAL)
def test_messages_that_look_alike_for_a_while_are_read_as_usual(contract: str) -> None:
    topic, message = VALID[contract]
    # An escape makes it odd, and what is odd is read wholly.
    one = packet(topic, written(message).replace(rb"\n", b" "))
    forget(one)
    for _ in range(A_WHILE - 1):
        wholly = judged(one)
    assert way(one).usual is None
    judged(one)
    usual = way(one).usual
    assert usual is not None
    as_usual = judged(one)
    assert isinstance(wholly, Accepted)
    assert isinstance(as_usual, Accepted)
    assert as_usual.message.meta.__dict__.keys() == message["meta"].keys()
    assert wholly.message.meta.__dict__.keys() > message["meta"].keys()
    assert as_usual == wholly
    assert encode(as_usual.message) == encode(wholly.message)
    assert way(one).usual is usual


@pytest.mark.req("S0-82", "S0-83", "S4-45")
@pytest.mark.parametrize("contract", USUAL)
def test_a_vector_has_its_verdict_whatever_is_usual_on_its_topic(contract: str) -> None:
    valid_ones = [each for each in VECTORS[contract] if each.stage is None]
    usual = valid_ones[0]
    for vector in (*VECTORS[contract], *HOSTILE[contract]):
        if vector.topic == usual.topic and vector.retain == usual.retain:
            both_ways(vector, usual)
    for vector in valid_ones:
        both_ways(usual, vector)


@pytest.mark.req("S0-83")
@pytest.mark.parametrize("contract", USUAL)
def test_what_differs_in_one_place_has_its_verdict_whatever_is_usual(contract: str) -> None:
    topic, message = VALID[contract]
    usual = packet(topic, written(message))
    texts = [written(each) for _, each in spoiled(message)]
    texts += [text.encode() for text in doubled(message)]
    packets = [packet(topic, text) for text in texts]
    found = []
    for one in packets:
        if way(one).usual is None:
            used_to(usual)
        found.append(judged(one))
    for one, verdict in zip(packets, found, strict=True):
        forget(one)
        assert verdict == judged(one), one.payload


@given(mutated())
def test_no_text_has_another_verdict_where_messages_are_usual(case: tuple[Vector, bytes]) -> None:
    vector, data = case
    usual = VALID_ON.get((vector.contract, vector.topic))
    if usual is not None:
        both_ways(vector, usual, data)


VALID_ON = {
    (contract, vector.topic): vector
    for contract in USUAL
    for vector in reversed(VECTORS[contract])
    if vector.stage is None and vector.encoding == JSON
}


@pytest.mark.parametrize("contract", sorted(EITHER_PROFILE | REGISTERED))
def test_what_a_message_has_is_not_all_that_some_contracts_ask(contract: str) -> None:
    one = valid(contract)
    for _ in range(2 * A_WHILE):
        assert isinstance(judged(one), Accepted)
    assert way(one).usual is None


def test_messages_with_errors_are_not_what_is_usual() -> None:
    topic, message = VALID["Outcome"]
    error = {"code": "x", "message": "y", "kind": "terminal"}
    usual, one = (
        packet(topic, written(message)),
        packet(topic, written(message | {"errors": [error]})),
    )
    expected = used_to(usual).usual
    for _ in range(2 * A_WHILE):
        assert isinstance(judged(one), Accepted)
    assert way(one).usual is expected
    forget(one)
    assert isinstance(judged(one), Accepted)
    assert way(one).usual is None


def test_what_is_usual_elsewhere_is_so_from_the_second_message_on() -> None:
    topic, message = VALID["AfferentSignal"]
    used_to(packet(topic, written(message)))
    meta = message["meta"] | {"source": "device:b77"}
    there = packet(topic.replace("b1", "b77"), written(message | {"meta": meta}))
    way(there).usual, way(there).habit = None, Habit()
    assert isinstance(judged(there), Accepted)
    assert way(there).usual is way(packet(topic, message)).usual is not None


def test_a_topic_gets_used_to_other_fields_when_its_messages_change() -> None:
    topic, message = VALID["AfferentSignal"]
    before, after = (
        packet(topic, written(message | {"payload": message["payload"] | more}))
        for more in ({}, {"value": {"x": 0.5, "y": 1}})
    )
    without = {name: each for name, each in message["payload"].items() if name != "unit"}
    other = packet(topic, written(message | {"payload": without}))
    usual = used_to(before).usual
    for one in (after, other, before):
        assert isinstance(judged(one), Accepted)
        assert way(one).usual is usual
    assert used_to(other).usual is not usual


MINT = Mint("brainstem", "brainstem", seed=1, boot=1)


def bundle(*features: Feature) -> Packet:
    payload = RelayBundlePayload(
        channel="somatic",
        window_start="2026-11-20T19:44:00.000Z",
        window_ms=1_000,
        summary_features=list(features),
    )
    address = topics.relay_bundle("room", "r0", "somatic")
    minted = MINT.full(RelayBundle, address, payload, NOW_MS)
    return Packet("core", address.topic, minted.data)


REAL = Feature(sensor_type="temperature", count=2, min=1.5, max=2.5)
SWITCH = Feature(sensor_type="contact", count=2, true_ms=17)
KINDS = Feature(sensor_type="mode", count=2, histogram={"on": 1, "off": 1})


@pytest.mark.parametrize("features", [[REAL], [REAL, REAL], [REAL, SWITCH], [KINDS, KINDS]])
def test_what_was_read_as_usual_is_equal_to_what_was_minted(features: list[Feature]) -> None:
    one = bundle(*features)
    assert used_to(one).usual is not None
    found = judged(one)
    assert isinstance(found, Accepted)
    minted = RelayBundle.model_validate_json(one.payload)
    assert found.message == minted
    assert encode(found.message) == one.payload
    assert found.message.payload.summary_features == features
    if KINDS not in features:
        assert len({found.message.payload.summary_features[0], features[0]}) == 1


def test_features_now_of_one_kind_now_of_another_end_as_features_of_any() -> None:
    rooms = [bundle(REAL), bundle(SWITCH, SWITCH), bundle(REAL, SWITCH)]
    first = used_to(rooms[0]).usual
    assert isinstance(judged(rooms[1]), Accepted)
    for one in rooms * (4 * A_WHILE):
        assert isinstance(judged(one), Accepted)
    last = way(rooms[0]).usual
    assert last is not first
    for one in rooms * A_WHILE:
        assert isinstance(judged(one), Accepted)
    assert way(rooms[0]).usual is last


@pytest.mark.req("S0-83")
def test_a_key_twice_is_found_though_another_key_is_missing_in_the_count() -> None:
    topic, message = VALID["AfferentSignal"]
    usual = packet(topic, written(message))
    text = usual.payload.replace(b'"seq":', b'"seq" :', 1).replace(
        b'{"meta":{', b'{"meta":{"seq":1,'
    )
    assert text.count(b'":') == usual.payload.count(b'":')
    used_to(usual)
    verdict = judged(packet(topic, text))
    assert isinstance(verdict, Rejected)
    assert verdict.reason_code == "decode_error"


@pytest.mark.req("S0-82")
def test_metadata_that_state_a_part_of_their_topic_are_read_wholly() -> None:
    topic, message = VALID["AfferentSignal"]
    stating = [
        packet(topic, written(message | {"meta": message["meta"] | more}))
        for more in ({"scope": "kitchen"}, {"scope": "kitchen", "scope_level": "room"})
    ]
    assert used_to(stating[0]).usual is None
    assert used_to(stating[1]).usual is not None
    for one in stating:
        assert isinstance(judged(one), Accepted)
        moved = judged(one._replace(payload=one.payload.replace(b'"kitchen"', b'"attic"')))
        assert isinstance(moved, Rejected)
        assert moved.reason_code == "topic_mismatch"


def test_who_sends_other_fields_each_time_takes_no_more_memory() -> None:
    topic, message = VALID["AfferentSignal"]
    optional = {
        "historical": True, "priority": "normal", "qos_hint": 1, "auth": "x", "deadline_ms": 1,
        "content_encoding": "identity", "principal": "x", "origin_plane": "spinal",
        "content_type": "application/json",
    }  # fmt: skip
    some = [dict(zip(optional, chosen, strict=True)) for chosen in product((0, 1), repeat=9)]
    kept = set()
    forget(packet(topic, written(message)))
    for chosen in some[:300]:
        meta = message["meta"] | {name: optional[name] for name in optional if chosen[name]}
        one = packet(topic, written(message | {"meta": meta}))
        way(one).usual, way(one).habit = None, Habit()
        for _ in range(A_WHILE):
            judged(one)
        assert way(one).usual is not None
        kept.add(len(habits._MADE))
    assert max(kept) == habits._KEPT


def test_models_of_different_kinds_are_not_equal() -> None:
    same = {"code": "x", "message": "y", "kind": "terminal"}
    assert ErrorDetail(**same) == ErrorDetail(**same, category=None)
    assert ErrorDetail(**same) != ErrorDetail(**same, category="policy")
    assert same != REAL
