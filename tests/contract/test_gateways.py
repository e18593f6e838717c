"""A viewer's way to a stream: by the cached registry to one of several gateways."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from contract.reference import SCHEMAS, validator
from contract.vectors import MESSAGES, NOW_MS, VECTORS, merge
from nervus.wire import Accepted, Guard, Packet, Removed, topics
from nervus.wire.gateways import Gateways


class Viewer:
    """Reads retained registry states as they come from a broker."""

    def __init__(self) -> None:
        self.gateways = Gateways()
        self._guard = Guard([topics.MEDIA_REGISTRY])
        self._made = 0

    def hears(self, device_id: str, base: str = "", **payload: Any) -> None:
        """The state of a device; an empty one removes it."""
        message = merge(
            MESSAGES["MediaRegistryState"],
            {
                "meta": {"scope_level": "device", "scope": device_id},
                "payload": {"device_id": device_id, "gateway_base": base} | payload,
            },
        )
        packet = Packet(
            "core",
            topics.media_registry(device_id).topic,
            json.dumps(message).encode() if base else b"",
            retain=True,
        )
        verdict = self._guard.judge(packet, NOW_MS)
        assert isinstance(verdict, Accepted | Removed)
        self.gateways.take(verdict)


@pytest.mark.req("S0-33")
def test_the_mapping_is_kept_and_the_newest_word_counts() -> None:
    viewer = Viewer()
    assert viewer.gateways.offer_url("cam3") is None
    viewer.hears("cam3", "https://hub.home:8443")
    for _ in range(3):
        # Nothing is asked again: it is there without a broker.
        assert viewer.gateways.offer_url("cam3") == "https://hub.home:8443/webrtc/offer/cam3"
    viewer.hears("cam3", "https://attic.home", offer_path_template="/v2/{device_id}/offer")
    assert viewer.gateways.offer_url("cam3") == "https://attic.home/v2/cam3/offer"
    kept = viewer.gateways.device("cam3")
    assert kept is not None
    assert kept.streams
    viewer.hears("cam3")
    assert viewer.gateways.offer_url("cam3") is None


@pytest.mark.req("S0-34")
def test_devices_may_have_different_gateways_at_once() -> None:
    viewer = Viewer()
    for number in range(4):
        viewer.hears(f"cam{number}", f"https://gateway{number % 2}.home")
    viewer.hears("cam3")
    found = [viewer.gateways.offer_url(f"cam{number}") for number in range(4)]
    hosts = [url and url.split("/")[2] for url in found]
    assert hosts == ["gateway0.home", "gateway1.home", "gateway0.home", None]


def test_a_device_id_is_no_way_to_another_path() -> None:
    viewer = Viewer()
    viewer.hears("../cam3?x", "https://hub.home")
    url = viewer.gateways.offer_url("../cam3?x")
    assert url == "https://hub.home/webrtc/offer/%2E%2E%2Fcam3%3Fx"


def test_a_viewer_keeps_a_bounded_number_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nervus.wire.gateways.DEVICE_LIMIT", 2)
    viewer = Viewer()
    for name in ("cam1", "cam2", "cam1", "cam3"):
        viewer.hears(name, "https://hub.home")
    found = [viewer.gateways.offer_url(name) is not None for name in ("cam1", "cam2", "cam3")]
    assert found == [True, False, True]


@pytest.mark.req("S0-99")
def test_a_gateway_answers_inline_as_was_decided() -> None:
    decision = (SCHEMAS / "README.md").read_text().partition("## Why")[2]
    assert "**A gateway answers inline**" in decision
    schema: Draft202012Validator = validator("StreamSessionResponse")
    message = MESSAGES["StreamSessionResponse"]
    assert message["payload"]["answer"].startswith("v=0")
    assert schema.is_valid(message)
    # No session without its answer, and none that says where to fetch one.
    assert not schema.is_valid(merge(message, {"payload": {"answer": None}}))
    elsewhere = {"payload": {"answer": None, "answer_url": "https://hub.home/answer/7"}}
    assert not schema.is_valid(merge(message, elsewhere))
    assert any("answer" in vector.name for vector in VECTORS["StreamSessionResponse"])
