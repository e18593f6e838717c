"""What cameras see becomes features; nothing of it leads to the stream but a gateway."""

import json
from typing import Any

import pytest

from hub.brainstem_inputs import brainstem, bundles
from hub.plane_inputs import NOW_MS, judged
from nervus import resources
from nervus.brainstem.machine import TAKES
from nervus.wire import Accepted, Guard, Mint, Packet, Rejected, encode, topics
from nervus.wire.acl import lines
from nervus.wire.contracts import (
    MediaEvent,
    MediaEventPayload,
    StreamSessionRequest,
    StreamSessionResponse,
)
from nervus.wire.registries import sensor_channels
from nervus.wire.topics import ROLES

CAMERA = Mint("device:cam1", "spinal", seed=1, boot=1)


def seen(
    event: str, now_ms: int = NOW_MS, *, kind: str = "person", confidence: float = 1, **meta: Any
) -> Accepted:
    address = topics.media_event("room", "kitchen", "cam1", kind)
    payload = MediaEventPayload(event=event, kind=kind, confidence=confidence)
    return judged(CAMERA.compact(MediaEvent, address, payload, now_ms, **meta), now_ms)


@pytest.mark.req("S2-79", "S1-27", "S1-61")
def test_what_a_camera_saw_becomes_features_of_a_window() -> None:
    assert topics.MEDIA_EVENT in TAKES
    core = brainstem()
    sure = [0.5, 1, 0.75]
    for n, confidence in enumerate(sure):
        event = "person_left" if n == 1 else "person_detected"
        assert list(core.step(seen(event, NOW_MS + n, confidence=confidence), NOW_MS + n)) == []
    (bundle,) = bundles(core.tick(NOW_MS + 2_000))
    assert bundle.payload.channel == "visual_orient"
    features = {each.sensor_type: each for each in bundle.payload.summary_features}
    assert set(features) == {"media_person:event", "media_person:confidence"}
    events, confidence_of = features["media_person:event"], features["media_person:confidence"]
    assert events.histogram == {"person_detected": 2, "person_left": 1}
    assert (events.device_id, events.count) == ("cam1", 3)
    assert (confidence_of.min, confidence_of.max, confidence_of.mean) == (0.5, 1, 0.75)


@pytest.mark.req("S1-5")
def test_what_is_urgent_rises_at_once_and_a_kind_without_a_channel_is_refused() -> None:
    core = brainstem()
    (bundle,) = bundles(core.step(seen("scream", kind="sound", priority="critical"), NOW_MS))
    assert (bundle.payload.channel, bundle.meta.priority) == ("auditory", "critical")
    (refused,) = core.step(seen("smoke", NOW_MS + 1, kind="odor"), NOW_MS + 1)
    assert isinstance(refused, Rejected)
    assert (refused.reason_code, refused.contract) == ("unknown_channel", "MediaEvent")


def test_every_kind_of_media_that_the_registry_names_has_a_channel() -> None:
    kinds = {name for name in sensor_channels() if name.startswith("media_")}
    assert kinds == {"media_motion", "media_person", "media_object", "media_sound"}


@pytest.mark.req("S2-79")
@pytest.mark.parametrize(
    "field", ["url", "stream", "offer", "answer", "frame", "thumbnail", "token", "auth"]
)
@pytest.mark.parametrize("place", ["meta", "payload"])
def test_no_stream_and_no_way_to_one_comes_with_an_event(field: str, place: str) -> None:
    event = seen("person_detected")
    message = json.loads(encode(event.message))
    message[place][field] = "rtsp://cam1/live"
    packet = Packet("spinal", event.address.topic, json.dumps(message).encode())
    verdict = Guard(TAKES).judge(packet, NOW_MS)
    assert isinstance(verdict, Rejected)
    assert verdict.reason_code == "schema_invalid"


@pytest.mark.req("S2-79")
def test_a_stream_is_asked_for_at_the_gateway_by_somebody_who_is_told_from_others() -> None:
    """Nothing on MQTT starts one: the contracts of a session have no topic, and no role a right."""
    listed = json.loads((resources.find("schemas") / "topics.json").read_text())
    sessions = {StreamSessionRequest.__name__, StreamSessionResponse.__name__}
    assert set(listed["without_topic"]) == sessions
    assert all("gateway" in why for why in listed["without_topic"].values())
    assert not sessions & {spec.contract for spec in topics.TOPICS}
    # Of all that is said of media on MQTT, only the gateway says where streams are asked for.
    for role in ROLES:
        grant = "room/kitchen" if role == "board" else None
        words = {w for b in ("spinal", "core") for w in lines("x", role, grant, b)}
        says = {line for line in words if line.startswith("topic write /sc/media/state")}
        assert bool(says) == (role == "media")
    # Who asks, and what the gateway may answer: without a proven identity or a right, no session.
    meta = StreamSessionRequest.model_fields["meta"].annotation
    assert meta is not None
    assert meta.model_fields["principal"].is_required() or "principal" in (
        StreamSessionRequest.required_meta
    )
    refusals = StreamSessionResponse.model_json_schema()["$defs"]["StreamSessionResponsePayload"]
    told = json.dumps(refusals["properties"]["refused"])
    assert "unauthenticated" in told
    assert "forbidden" in told
    assert "token_used" in told
