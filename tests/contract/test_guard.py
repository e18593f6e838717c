"""Each stage of the guard, on messages that differ from a valid one in one respect."""

import json
import re
from collections.abc import Iterator
from types import NoneType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import NOW_MS, VALID, packet, valid
from nervus.wire import Accepted, Guard, Packet, Rejected, Removed, timestamp, topics
from nervus.wire.contracts import CONTRACTS
from nervus.wire.reader import reader
from nervus.wire.topic import TopicSpec, unlevel
from nervus.wire.topic_parser import parse
from nervus.wire.topics import TOPICS


def guard(**settings: object) -> Guard:
    return Guard(TOPICS, **settings)


def reason(verdict: object) -> tuple[str, str]:
    assert isinstance(verdict, Rejected), verdict
    return verdict.stage, verdict.reason_code


@pytest.mark.req("S0-82", "S4-45")
@pytest.mark.parametrize("contract", sorted(VALID))
def test_a_valid_message_of_each_contract_passes(contract: str) -> None:
    verdict = guard().judge(valid(contract), NOW_MS)
    assert isinstance(verdict, Accepted), verdict
    assert type(verdict.message).__name__ == contract


AFFERENT, AFFERENT_MESSAGE = VALID["AfferentSignal"]
BUNDLE, BUNDLE_MESSAGE = VALID["RelayBundle"]
REQUEST, REQUEST_MESSAGE = VALID["CommandRequest"]

DECODE = {
    "not JSON": b"{nonsense",
    "two values without a comma": b'{"meta": {}, "payload": [1 2]}',
    "a leading zero": b'{"meta": {}, "payload": 01}',
    "NaN": b'{"meta": {}, "payload": NaN}',
    "an infinity by exponent": b'{"meta": {}, "payload": 1e999}',
    "a duplicate key": b'{"meta": {}, "meta": {}}',
    "an integer beyond 2^53": b'{"meta": {}, "payload": 9007199254740993}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "broken UTF-8": b'{"meta": "\xff"}',
    "nesting without end": b"[" * 1000,
}


@pytest.mark.req("S0-83")
@pytest.mark.parametrize("data", DECODE.values(), ids=DECODE.keys())
def test_what_is_not_strict_json_is_a_decode_error(data: bytes) -> None:
    assert reason(guard().judge(packet(AFFERENT, data), NOW_MS)) == ("decode", "decode_error")


@pytest.mark.parametrize("data", [b"7", b"[]", b"{}", b'{"meta": 1, "payload": {}}'])
def test_json_that_is_no_envelope_is_schema_invalid(data: bytes) -> None:
    assert reason(guard().judge(packet(AFFERENT, data), NOW_MS)) == ("schema", "schema_invalid")


@pytest.mark.req("S1-45")
def test_a_message_over_its_topics_limit_is_oversize_before_it_is_parsed() -> None:
    verdict = guard().judge(packet(AFFERENT, b"{" * 1025), NOW_MS)
    assert reason(verdict) == ("size", "oversize")
    nowhere = guard().judge(Packet("core", "/nowhere", b"{" * 8193), NOW_MS)
    assert reason(nowhere) == ("size", "oversize")


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        ("/sc/aff/room/kitchen/sensor/temperature/device/b1", "legacy_topic"),
        ("/bs/relay/room/kitchen/channel/somatic", "legacy_topic"),
        ("/sc/aff/event/room/kitchen/sensor/temperature", "unknown_topic"),
        ("/sc/aff/event/continent/europe/sensor/temperature/device/b1", "unknown_topic"),
        ("/sc/aff/event/room/kitchen/sensor/a.b/device/b1", "unknown_topic"),
        ("/sc/aff/event/room/%01/sensor/temperature/device/b1", "unknown_topic"),
        ("sc/aff/event/room/kitchen/sensor/temperature/device/b1", "unknown_topic"),
        ("/bs/relay/event/room/kitchen/channel/olfactory", "unknown_channel"),
    ],
)
@pytest.mark.req("S0-20", "S0-21", "S1-29")
def test_a_topic_outside_the_list_is_named_so(topic: str, code: str) -> None:
    broker = "core" if topic.startswith("/bs") else "spinal"
    verdict = guard().judge(Packet(broker, topic, b"{}"), NOW_MS)
    assert reason(verdict) == ("topic", code)


@pytest.mark.req("S0-11", "S1-66")
def test_an_afferent_on_the_core_broker_is_refused() -> None:
    verdict = guard().judge(Packet("core", AFFERENT, b"{}"), NOW_MS)
    assert reason(verdict) == ("topic", "wrong_broker")


@pytest.mark.req("S0-18", "S2-27")
def test_a_retained_event_is_refused() -> None:
    good = valid("AfferentSignal")
    verdict = guard().judge(Packet("spinal", good.topic, good.payload, retain=True), NOW_MS)
    assert reason(verdict) == ("topic", "retained_event")


@pytest.mark.req("S0-19", "S2-27")
def test_a_state_that_is_not_retained_is_refused() -> None:
    good = valid("GateState")
    verdict = guard().judge(Packet("core", good.topic, good.payload), NOW_MS)
    assert reason(verdict) == ("topic", "not_retained_state")


def test_an_empty_payload_removes_a_state_and_is_no_event() -> None:
    removed = guard().judge(Packet("core", VALID["GateState"][0], b"", retain=True), NOW_MS)
    assert isinstance(removed, Removed)
    assert reason(guard().judge(packet(AFFERENT, b""), NOW_MS)) == ("size", "empty_payload")


@pytest.mark.req("S0-82", "S0-83", "S1-15", "S1-16")
def test_a_contract_that_a_part_does_not_take_is_refused() -> None:
    afferents_only = Guard([spec for spec in TOPICS if spec.name == "afferent"])
    for contract in ("GateState", "EfferentCommand"):
        verdict = afferents_only.judge(valid(contract), NOW_MS)
        assert reason(verdict) == ("allow", "contract_not_allowed")


@pytest.mark.req("S0-10", "S2-39")
def test_a_contract_on_a_topic_of_another_is_refused() -> None:
    verdict = guard().judge(valid("AfferentSignal", contract="Ping", message_type="Ping"), NOW_MS)
    assert reason(verdict) == ("allow", "contract_not_allowed")


@pytest.mark.req("S0-48", "S2-41")
@pytest.mark.parametrize("drifted", ["afferentsignal", "AfferentSignal2", "RelayBundle"])
def test_message_type_that_differs_from_contract_is_drift(drifted: str) -> None:
    verdict = guard().judge(valid("AfferentSignal", message_type=drifted), NOW_MS)
    assert reason(verdict) == ("drift", "contract_drift")


def test_a_version_we_do_not_speak_is_named_so() -> None:
    verdict = guard().judge(valid("AfferentSignal", schema_version="v9"), NOW_MS)
    assert reason(verdict) == ("schema", "unsupported_version")


@pytest.mark.req("S0-60", "S0-61")
@pytest.mark.parametrize("field", [{"content_type": "text/xml"}, {"content_encoding": "gzip"}])
def test_an_encoding_we_do_not_read_is_named_so(field: dict[str, str]) -> None:
    verdict = guard().judge(valid("RelayBundle", **field), NOW_MS)
    assert reason(verdict) == ("schema", "unsupported_encoding")


@pytest.mark.req("S0-65", "S0-66")
def test_each_broker_takes_its_profile_only() -> None:
    meta = VALID["DeviceStatus"][1]["meta"]
    full = valid("RelayBundle").payload
    bare = json.loads(full)
    bare["meta"] = {**meta, "contract": "RelayBundle", "message_type": "RelayBundle", "ttl_ms": 9}
    verdict = guard().judge(packet(BUNDLE, bare), NOW_MS)
    assert reason(verdict) == ("schema", "schema_invalid")


@pytest.mark.req("S0-65", "S0-66")
def test_a_contract_of_both_brokers_needs_the_profile_of_the_one_it_came_on() -> None:
    topic, message = VALID["RejectEvent"]
    compact = {"boot": 1, "seq": 2, "t_ms": NOW_MS, "clk": "hub"}
    both = message | {"meta": message["meta"] | compact}
    core, spinal = Guard([topics.REJECT]), Guard([topics.REJECT])
    assert isinstance(core.judge(packet(topic, both), NOW_MS), Accepted)
    data = packet(topic, both).payload
    assert isinstance(spinal.judge(Packet("spinal", topic, data), NOW_MS), Accepted)
    full_only = packet(topic, message).payload
    verdict = guard().judge(Packet("spinal", topic, full_only), NOW_MS)
    assert reason(verdict) == ("schema", "schema_invalid")


def test_a_topic_says_whether_it_expires_as_its_contract_does() -> None:
    assert {spec.name: spec.expires for spec in TOPICS} == {
        spec.name: CONTRACTS[spec.contract].expiring for spec in TOPICS
    }


@pytest.mark.req("S0-53")
@pytest.mark.parametrize(
    ("contract", "meta"),
    [
        ("RelayBundle", {"scope": "bathroom"}),
        ("RelayBundle", {"scope_level": "house"}),
        ("AfferentSignal", {"scope": "bathroom"}),
        ("EfferentReport", {"action_id": "01JD6V5S0G7ZZX8Q3M9K2T4VWA"}),
        ("DeviceStatus", {"scope": "b2"}),
    ],
)
def test_metadata_that_contradicts_the_topic_is_refused(
    contract: str, meta: dict[str, str]
) -> None:
    verdict = guard().judge(valid(contract, **meta), NOW_MS)
    assert reason(verdict) == ("agreement", "topic_mismatch")


def test_a_payload_that_contradicts_the_topic_is_refused() -> None:
    for topic, message, field in (
        (AFFERENT, AFFERENT_MESSAGE, {"sensor_type": "humidity"}),
        (BUNDLE, BUNDLE_MESSAGE, {"channel": "visceral"}),
    ):
        changed = message | {"payload": message["payload"] | field}
        verdict = guard().judge(packet(topic, changed), NOW_MS)
        assert reason(verdict) == ("agreement", "topic_mismatch")


@pytest.mark.req("S0-51")
@pytest.mark.parametrize("source", ["device:b2", "b1", "brainstem"])
def test_a_board_speaks_only_for_itself(source: str) -> None:
    verdict = guard().judge(valid("AfferentSignal", source=source), NOW_MS)
    assert reason(verdict) == ("identity", "identity_mismatch")


def test_a_request_carries_the_identity_of_its_topic() -> None:
    verdict = guard().judge(valid("CommandRequest", source="somebody"), NOW_MS)
    assert reason(verdict) == ("identity", "identity_mismatch")


def test_a_board_outside_its_granted_scope_is_refused() -> None:
    grants = {"b1": "room/attic"}
    verdict = guard(granted=grants.get).judge(valid("AfferentSignal"), NOW_MS)
    assert reason(verdict) == ("identity", "scope_not_granted")
    at_home = guard(granted={"b1": "room/kitchen"}.get).judge(valid("AfferentSignal"), NOW_MS)
    assert isinstance(at_home, Accepted)
    own_topic = guard(granted=grants.get).judge(valid("DeviceStatus"), NOW_MS)
    assert isinstance(own_topic, Accepted)


def test_a_device_scope_is_the_boards_own() -> None:
    topic = AFFERENT.replace("room/kitchen", "device/b1")
    own = packet(topic, AFFERENT_MESSAGE)
    assert isinstance(guard().judge(own, NOW_MS), Accepted)
    assert isinstance(guard(granted={"b1": "device/b1"}.get).judge(own, NOW_MS), Accepted)
    elsewhere = guard(granted={"b1": "room/kitchen"}.get).judge(own, NOW_MS)
    assert reason(elsewhere) == ("identity", "scope_not_granted")
    foreign = packet(AFFERENT.replace("room/kitchen", "device/b2"), AFFERENT_MESSAGE)
    assert reason(guard().judge(foreign, NOW_MS)) == ("identity", "scope_not_granted")


@pytest.mark.req("S0-56", "S2-75")
def test_an_event_without_an_end_is_refused() -> None:
    message = {**AFFERENT_MESSAGE, "meta": {**AFFERENT_MESSAGE["meta"]}}
    del message["meta"]["ttl_ms"]
    verdict = guard().judge(packet(AFFERENT, message), NOW_MS)
    assert reason(verdict) == ("expiry", "expiry_missing")


@pytest.mark.req("S0-85")
def test_ttl_counts_from_production_and_from_receipt_without_a_clock() -> None:
    late = NOW_MS + 9_001
    assert isinstance(guard().judge(valid("AfferentSignal"), late - 2), Accepted)
    assert reason(guard().judge(valid("AfferentSignal"), late)) == ("expiry", "expired")
    clockless = valid("AfferentSignal", clk="none", t_ms=17)
    verdict = guard().judge(clockless, late)
    assert isinstance(verdict, Accepted)
    assert verdict.left_ms == 10_000


def test_absolute_expiry_wins_over_ttl() -> None:
    past = valid("AfferentSignal", expires_at=timestamp(NOW_MS - 1))
    assert reason(guard().judge(past, NOW_MS)) == ("expiry", "expired")


def test_a_message_from_the_future_is_refused_beyond_a_minute() -> None:
    for ahead, accepted in ((59_000, True), (61_000, False)):
        verdict = guard().judge(valid("AfferentSignal", t_ms=NOW_MS + ahead), NOW_MS)
        assert isinstance(verdict, Accepted) is accepted


def test_a_date_that_does_not_exist_is_schema_invalid() -> None:
    verdict = guard().judge(valid("RelayBundle", produced_at="2026-02-30T00:00:00.000Z"), NOW_MS)
    assert reason(verdict) == ("schema", "schema_invalid")


@pytest.mark.req("S0-86")
def test_an_event_passes_once_for_each_source_and_a_state_as_often_as_it_comes() -> None:
    one = guard()
    assert isinstance(one.judge(valid("AfferentSignal"), NOW_MS), Accepted)
    assert reason(one.judge(valid("AfferentSignal"), NOW_MS)) == ("dedupe", "duplicate")
    for _ in range(2):
        assert isinstance(one.judge(valid("DeviceStatus"), NOW_MS), Accepted)


def test_a_refused_message_does_not_shadow_the_good_one_with_its_id() -> None:
    one = guard()
    assert isinstance(one.judge(valid("AfferentSignal", source="device:b2"), NOW_MS), Rejected)
    assert isinstance(one.judge(valid("AfferentSignal"), NOW_MS), Accepted)


def test_the_memory_for_ids_is_bounded_and_forgets_the_oldest() -> None:
    small = guard(dedupe_limit=2)
    ids = [f"01JD6V5S0G7ZZX8Q3M9K2T4VW{n}" for n in "ABC"]
    for message_id in ids:
        assert isinstance(
            small.judge(valid("AfferentSignal", message_id=message_id), NOW_MS), Accepted
        )
    newest = small.judge(valid("AfferentSignal", message_id=ids[2]), NOW_MS)
    assert reason(newest) == ("dedupe", "duplicate")
    oldest = small.judge(valid("AfferentSignal", message_id=ids[0]), NOW_MS)
    assert isinstance(oldest, Accepted)


@pytest.mark.req("S0-83")
@pytest.mark.parametrize(
    "again",
    [
        '"seq":7',
        '"seq" :7',
        '"seq"\t:7',
        '"seq"\n:7',
        r'"s\u0065q":7',
        '"ext":{"a":1,"a":2}',
        '"ext":{"a":1,"a" :":"}',
        '"hlc":{"wall_ms":1,"logical":1,"node":"n","node":"n"}',
    ],
)
def test_a_key_that_comes_twice_is_found_however_it_is_written(again: str) -> None:
    sparse = valid("AfferentSignal").payload.decode()
    for text in (sparse, json.dumps(json.loads(sparse), separators=(",", ":"))):
        doubled = re.sub(r'"meta": ?{', lambda found: found[0] + again + ",", text)
        json.loads(doubled)  # nothing else is wrong with it
        verdict = guard().judge(packet(AFFERENT, doubled.encode()), NOW_MS)
        assert reason(verdict) == ("decode", "decode_error"), doubled


def doubled(value: object) -> Iterator[str]:
    """The JSON of a value, each time with another of its keys standing twice."""
    whole = json.dumps(value, separators=(",", ":"))
    if isinstance(value, dict):
        for key, inner in value.items():
            name = json.dumps(key)
            yield f"{whole[:-1]},{name}:{json.dumps(inner)}}}"
            rest = {other: each for other, each in value.items() if other != key}
            others = json.dumps(rest, separators=(",", ":"))[1:-1]
            yield from (f"{{{name}:{text}{',' * bool(rest)}{others}}}" for text in doubled(inner))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            before, after = (
                [json.dumps(each, separators=(",", ":")) for each in part]
                for part in (value[:at], value[at + 1 :])
            )
            yield from (f"[{','.join([*before, text, *after])}]" for text in doubled(inner))


@pytest.mark.req("S0-83")
@pytest.mark.parametrize("contract", sorted(VALID))
def test_a_key_that_comes_twice_is_found_wherever_it_stands(contract: str) -> None:
    topic, message = VALID[contract]
    nested = {"ext": {"a": 1}, "vclock": {"b1": 1}, "device": {"device_id": "b1"}}
    barred = CONTRACTS[contract].forbidden_meta
    meta = message["meta"] | {name: each for name, each in nested.items() if name not in barred}
    error = {"code": "x", "message": "y", "kind": "terminal"}
    full = message | {"meta": meta, "errors": [error]}
    if CONTRACTS[contract].model_fields["errors"].annotation is NoneType:
        del full["errors"]
    good = json.dumps(full, separators=(",", ":")).encode()
    accepted = guard().judge(packet(topic, good), NOW_MS)
    assert isinstance(accepted, Accepted), accepted
    # Counted, not read once more to be sure.
    outer = sum(len(each) for each in (full, meta, message["payload"]))
    inner_keys = reader(CONTRACTS[contract]).inner_keys
    assert outer + inner_keys(accepted.message.__dict__) == good.count(b'":')
    texts = list(doubled(full))
    assert len(texts) == good.count(b'":')
    limit = accepted.address.spec.max_bytes
    for text in (each for each in texts if len(each) <= limit):
        verdict = guard().judge(packet(topic, text.encode()), NOW_MS)
        assert reason(verdict) == ("decode", "decode_error"), text


ACTIONS = [spec for spec in TOPICS if "action_id" in spec.variables]


@pytest.mark.parametrize("spec", ACTIONS, ids=[spec.name for spec in ACTIONS])
def test_an_action_is_the_one_its_topic_names(spec: TopicSpec) -> None:
    good = valid(spec.contract)
    stem, _, action_id = good.topic.rpartition("/")
    other = "01JD6V5S0G7ZZX8Q3M9K2T4VWA"
    # One that is written with a percent sign is worked out alone, with the same outcome.
    for named in (other, "a%20b"):
        verdict = guard().judge(good._replace(topic=f"{stem}/{named}"), NOW_MS)
        assert reason(verdict) == ("agreement", "topic_mismatch")
        assert isinstance(verdict, Rejected)
        assert verdict.reason == f"action_id is {unlevel(named)!r} in the topic"
        assert verdict.address == parse(f"{stem}/{named}")
    accepted = guard().judge(good, NOW_MS)
    assert isinstance(accepted, Accepted)
    assert accepted.address == parse(good.topic)
    assert accepted.address.levels["action_id"] == action_id
    moved = valid(spec.contract, action_id=other)._replace(topic=f"{stem}/{other}")
    accepted = guard().judge(moved, NOW_MS)
    assert isinstance(accepted, Accepted)
    assert accepted.address == parse(moved.topic)


@pytest.mark.parametrize("name", ["a:b", 'quoted":', "back\\slash", "null", "two words"])
def test_what_only_looks_like_a_key_twice_or_like_null_passes(name: str) -> None:
    for contract in ("AfferentSignal", "RelayBundle"):
        topic, message = VALID[contract]
        changed = message | {"meta": message["meta"] | {"ext": {name: name}}}
        for separators in ((",", ":"), (", ", ": ")):
            data = json.dumps(changed, separators=separators).encode()
            assert isinstance(guard().judge(packet(topic, data), NOW_MS), Accepted), data


def test_a_message_of_foreign_fields_alone_is_told_in_short() -> None:
    foreign = AFFERENT_MESSAGE | {"payload": {f"{n}": n for n in range(60)}}
    verdict = guard().judge(packet(AFFERENT, foreign), NOW_MS)
    assert reason(verdict) == ("schema", "schema_invalid")
    assert isinstance(verdict, Rejected)
    assert verdict.reason == "message: 62 faults"


def test_null_is_never_a_value() -> None:
    verdict = guard().judge(valid("AfferentSignal", priority=None), NOW_MS)
    assert reason(verdict) == ("schema", "schema_invalid")


def test_a_reject_tells_what_could_be_read_and_shows_a_printable_sample() -> None:
    verdict = guard().judge(valid("AfferentSignal", message_type="x"), NOW_MS)
    assert isinstance(verdict, Rejected)
    assert verdict.source == "device:b1"
    assert verdict.contract == "AfferentSignal"
    assert verdict.message_id == AFFERENT_MESSAGE["meta"]["message_id"]
    binary = guard().judge(packet(AFFERENT, b"\x00\x1b[31mred\xff"), NOW_MS)
    assert isinstance(binary, Rejected)
    assert binary.sample.isprintable()
    assert "red" in binary.sample


@pytest.mark.req("S4-45")
@given(st.sampled_from(sorted(VALID)), st.binary(max_size=400), st.integers(0, 400))
def test_no_bytes_make_the_guard_raise(contract: str, noise: bytes, at: int) -> None:
    good = valid(contract)
    data = good.payload[:at] + noise + good.payload[at + len(noise) :]
    verdict = guard().judge(Packet(good.broker, good.topic, data, good.retain), NOW_MS)
    assert isinstance(verdict, Accepted | Rejected | Removed)


@given(st.text(max_size=120), st.binary(max_size=50), st.booleans())
def test_no_topic_makes_the_guard_raise(topic: str, data: bytes, retain: bool) -> None:  # noqa: FBT001 - drawn
    verdict = guard().judge(Packet("core", "/" + topic, data, retain), NOW_MS)
    assert isinstance(verdict, Rejected)
