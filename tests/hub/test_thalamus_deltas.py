"""Delta bundles: what a reader makes of them is the full stream, whatever is lost on the way."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.plane_inputs import NOW_MS, bundle, bundle_payload, feature, gate, judged
from nervus.thalamus import Relay, ThalamusSettings
from nervus.wire import Connected, Mint, Rejected, encode
from nervus.wire.contracts import RelayBundle
from nervus.wire.deltas import BundleReader, restore, shorten

NODE = Path(__file__).parents[1] / "node"
KITCHEN = [{"scope": "room/kitchen", "channel": "somatic"}]
VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from("ab")


def relay(deltas: Any = KITCHEN, **settings: Any) -> Relay:
    table = ThalamusSettings(**{"gatekeeper": False, "deltas": deltas} | settings)
    return Relay(table, Mint("relay", "thalamus", seed=1, boot=1), "home")


def sent(core: Relay, event: Any, now_ms: int = NOW_MS) -> list[Any]:
    """What the relay publishes for an event, as its readers' guards take it."""
    effects = core.step(event, now_ms)
    return [
        judged(e, now_ms).message
        for e in effects
        if isinstance(getattr(e, "message", None), RelayBundle)
    ]


def house(last: int, **fields: Any) -> Any:
    """A bundle of ten sensors of which one says something new."""
    features = [feature(device=f"b{n}", min=1, max=2, mean=1.5, last=7) for n in range(9)]
    return bundle_payload(*features, feature(device="new", last=last), **fields)


def body(payload: Any) -> str:
    return str(payload.model_dump_json(exclude_none=True))


@st.composite
def payloads(draw: st.DrawFn) -> Any:
    devices = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    features = [
        feature(
            draw(st.integers(1, 3)),
            device=device,
            min=draw(st.none() | st.integers(0, 1)),
            mean=draw(st.none() | st.floats(0, 1)),
            last=draw(VALUES),
        )
        for device in devices
    ]
    return bundle_payload(
        *features,
        sources=draw(st.none() | st.just(sorted(devices))),
        salience=draw(st.none() | st.sampled_from([0.25, 0.5])),
    )


@pytest.mark.req("S4-34")
@settings(max_examples=60)
@given(payloads(), payloads())
def test_a_delta_restores_to_the_same_bytes_and_is_shorter(base: Any, payload: Any) -> None:
    delta = shorten(payload, base, "01J00000000000000000000001")
    if delta is not None:
        assert body(restore(delta, base)) == body(payload)
        assert len(body(delta)) < len(body(payload))


@pytest.mark.req("S4-34", "S4-35")
@settings(max_examples=40)
@given(
    st.lists(st.tuples(payloads(), st.booleans(), st.booleans(), st.integers(0, 4)), max_size=8),
    st.integers(0, 3_000),
)
def test_what_a_reader_restores_is_the_full_stream_under_loss_repetition_and_reordering(
    steps: Any, every_ms: int
) -> None:
    short, full = relay(delta_key_ms=5_000), relay(())
    reader, whole, delayed = BundleReader(), {}, []
    for number, (payload, lost, twice, late) in enumerate(steps):
        now_ms = NOW_MS + number * every_ms
        event = bundle(payload, now_ms, ttl_ms=60_000)
        (expected,), (message,) = sent(full, event, now_ms), sent(short, event, now_ms)
        whole[message.meta.message_id] = body(expected.payload)
        if not lost:
            delayed += [(number + late, number, message)] * (1 + twice)
    came = 0
    for _, _, message in sorted(delayed, key=lambda one: one[:2]):
        restored = reader.take(message)
        if restored is not None:
            came += 1
            assert restored.meta == message.meta
            assert body(restored.payload) == whole[message.meta.message_id]
    assert came + reader.missing == len(delayed)


def test_nothing_is_missing_when_nothing_is_lost() -> None:
    core, reader = relay(), BundleReader()
    for n in range(50):
        (message,) = sent(core, bundle(house(n), NOW_MS + n), NOW_MS + n)
        whole = reader.take(message)
        assert whole is not None
        assert body(whole.payload) == body(house(n))
    assert (reader.restored, reader.missing) == (49, 0)


def test_a_delta_carries_what_changed_alone() -> None:
    core = relay()
    (key,) = sent(core, bundle(house(1)))
    (delta,) = sent(core, bundle(house(2)))
    assert key.payload.delta_of is None
    assert delta.payload.delta_of == key.meta.message_id
    (changed,) = delta.payload.summary_features
    assert (changed.device_id, changed.last, changed.min) == ("new", 2, None)
    (same,) = sent(core, bundle(house(1)))
    assert len(same.payload.summary_features) == 1
    more = bundle_payload(*house(1).summary_features, feature(device="newer", last=1))
    (grown,) = sent(core, bundle(more))
    (added,) = grown.payload.summary_features
    assert added.device_id == "newer"
    assert restore(grown.payload, key.payload).summary_features == more.summary_features


@pytest.mark.req("S4-35")
def test_only_streams_that_ask_for_it_have_deltas() -> None:
    core = relay()
    for fields in ({"scope": ("room", "attic")}, {"payload": house(1, channel="auditory")}):
        for _ in range(2):
            (message,) = sent(core, bundle(**{"payload": house(1)} | fields))
            assert message.payload.delta_of is None
    every = relay([{"scope": "room/kitchen"}])
    sent(every, bundle(house(1, channel="auditory")))
    (message,) = sent(every, bundle(house(2, channel="auditory")))
    assert message.payload.delta_of is not None


@pytest.mark.req("S4-35")
def test_key_frames_come_at_an_interval_after_a_drop_and_after_a_connection() -> None:
    core = relay(delta_key_ms=1_000, scope_burst=20, scope_rate=1)
    kinds = []

    def say(now_ms: int) -> None:
        kinds.extend(
            "delta" if message.payload.delta_of else "key"
            for message in sent(core, bundle(house(now_ms % 97), now_ms), now_ms)
        )

    say(NOW_MS)
    say(NOW_MS + 999)
    say(NOW_MS + 1_000)
    say(NOW_MS + 1_001)
    core.step(gate(1, NOW_MS + 1_002, lives_ms=10), NOW_MS + 1_002)
    say(NOW_MS + 1_003)  # dropped
    say(NOW_MS + 1_100)
    core.step(Connected("core"), NOW_MS + 1_100)
    say(NOW_MS + 1_101)
    assert kinds == ["key", "delta", "key", "delta", "key", "key"]


@pytest.mark.req("S4-35")
def test_who_comes_late_has_all_from_the_next_key_frame_on_and_a_new_relay_begins_with_one() -> (
    None
):
    core, reader = relay(delta_key_ms=1_000), BundleReader()

    def heard(core: Relay, at_ms: int) -> list[bool]:
        came = []
        for n in range(4):
            now_ms = NOW_MS + at_ms + n * 300
            (message,) = sent(core, bundle(house(n), now_ms), now_ms)
            whole = reader.take(message)
            assert whole is None or body(whole.payload) == body(house(n))
            came.append(whole is not None)
        return came

    sent(core, bundle(house(7)))  # before it listened
    assert heard(core, 200) == [False, False, False, True]
    assert heard(core, 1_400) == [True] * 4
    assert heard(relay(delta_key_ms=1_000), 2_600) == [True] * 4


def test_a_delta_before_the_gate_is_refused() -> None:
    core = relay()
    (effect,) = core.step(bundle(house(1, delta_of="01J00000000000000000000001")), NOW_MS)
    assert isinstance(effect, Rejected)
    assert (effect.reason_code, effect.stage) == ("schema_invalid", "apply")


@pytest.mark.req("S4-35")
def test_a_reader_in_another_language_restores_by_the_written_rule_alone() -> None:
    core, wanted, lines = relay(delta_key_ms=1_000), [], []
    payloads = [house(n, sources=["b1", "new"][: 1 + n % 2]) for n in range(9)]
    grown = (*house(3).summary_features, feature(device="newer", unit="Cel"))
    payloads.append(bundle_payload(*grown, sources=["b1"]))
    for n, payload in enumerate(payloads * 2):
        now_ms = NOW_MS + n * 90
        (message,) = sent(core, bundle(payload, now_ms), now_ms)
        lost = n == 12  # a key frame: what refers to it stays unknown
        assert lost is False or message.payload.delta_of is None
        if not lost:
            lines.append(encode(message).decode())
            wanted.append(json.loads(body(payload)))
    run = subprocess.run(
        ["node", NODE / "deltas.mjs"],
        input="\n".join(lines), capture_output=True, text=True, timeout=15, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert sum(json.loads(line)["payload"].get("delta_of") is not None for line in lines) > 8
    missing = [n for n, one in enumerate(found) if one is None]
    assert missing == list(range(12, len(lines)))
    assert found[:12] == wanted[:12]


def test_merged_bundles_are_shortened_too_and_expired_ones_make_a_key_frame_due() -> None:
    core = relay()
    core.step(gate(0.9, lives_ms=60_000), NOW_MS)
    (first,) = sent(core, bundle(house(1)))
    for n in (2, 3):
        core.step(bundle(house(n)), NOW_MS + n)
    (merged,) = core.tick(NOW_MS + 1_000)
    payload = merged.message.payload
    whole = BundleReader()
    whole.take(first)
    restored = whole.take(merged.message)
    assert restored is not None
    assert payload.delta_of == first.meta.message_id
    assert {f.count for f in restored.payload.summary_features} == {2}
    core.step(bundle(house(4)), NOW_MS + 1_001)
    assert core.tick(NOW_MS + 9_000) == []
    core.step(bundle(house(5), NOW_MS + 9_001), NOW_MS + 9_001)
    (key,) = core.tick(NOW_MS + 10_000)
    assert key.message.payload.delta_of is None


def test_a_bundle_that_has_to_be_split_is_no_key_frame() -> None:
    core = relay()
    core.step(gate(0.9, lives_ms=60_000), NOW_MS)
    (key,) = sent(core, bundle(house(1)))
    many = [feature(device=f"d{n}-{'x' * 40}", last=n) for n in range(50)]
    for part in (many[:25], many[25:]):
        core.step(bundle(bundle_payload(*part)), NOW_MS + 1)
    parts = core.tick(NOW_MS + 1_000)
    assert len(parts) > 1
    assert {p.message.payload.delta_of for p in parts} == {None}
    core.step(gate(0, NOW_MS + 1_001), NOW_MS + 1_001)
    (delta,) = sent(core, bundle(house(2), NOW_MS + 1_002), NOW_MS + 1_002)
    assert delta.payload.delta_of == key.meta.message_id


def test_a_reader_keeps_a_bounded_number_of_frames_and_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nervus.wire.deltas.STREAM_LIMIT", 2)
    core, reader = relay([{"scope": f"room/r{n}"} for n in range(3)]), BundleReader()
    late = []
    for n in range(3):
        scope = ("room", f"r{n}")
        (key,), (delta,) = (sent(core, bundle(house(m), scope=scope)) for m in (1, 2))
        reader.take(key)
        late.append(delta)
    assert [reader.take(delta) is None for delta in late] == [True, False, False]
    for _ in range(8):
        (key,) = sent(core, bundle(house(1), scope=("room", "other")))
        reader.take(key.model_copy(update={"meta": key.meta.model_copy(update={"scope": "r2"})}))
    assert reader.take(late[2]) is None
