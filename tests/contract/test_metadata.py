"""The metadata: what each profile must have, what may be added and goes on untouched."""

from typing import Any

import pytest
from pydantic import ValidationError

from contract.vectors import MESSAGES, VALID, merge, packet
from nervus.wire import Accepted, Guard, unix_ms
from nervus.wire.contracts import CONTRACTS, FullMeta
from nervus.wire.encodings import CONTENT_TYPES, decode, encode
from nervus.wire.topics import TOPICS

FULL = sorted(
    name for name, model in CONTRACTS.items() if model.model_fields["meta"].annotation is FullMeta
)
OPTIONAL: dict[str, Any] = {
    "device": {"device_id": "m1", "hardware_id": "esp32-7c9e"},
    "hlc": {"wall_ms": 1795204800000, "logical": 3, "node": "m1"},
    "vclock": {"m1": 4, "m2": 0},
    "spectral": {"coherence": 0.5, "criticality": -1.25, "eigenvalues": [2.5, 1]},
    "qos_hint": 1,
    "auth": "reserved é",
    "ext": {"a": 1, "b": "x", "c": True, "d": 0.1},
}


def refused(contract: str, field: str) -> bool:
    try:
        CONTRACTS[contract].model_validate(merge(MESSAGES[contract], {"meta": {field: None}}))
    except ValidationError:
        return True
    return False


@pytest.mark.req("S0-50", "S0-54", "S0-58", "S0-66", "S4-29", "S4-30", "S4-32")
@pytest.mark.parametrize(
    "field", ["origin_plane", "produced_at", "priority", "trace_id", "span_id", "source"]
)
def test_a_full_message_always_says_who_made_it_when_and_in_which_trace(field: str) -> None:
    assert len(FULL) > 15
    assert [contract for contract in FULL if not refused(contract, field)] == []


@pytest.mark.parametrize(
    "time", ["2026-11-20T20:00:00.000+01:00", "2026-11-20 20:00:00.000Z", "2026-11-20T20:00:00Z"]
)
@pytest.mark.req("S0-54")
def test_a_time_for_people_is_iso_in_utc_with_milliseconds(time: str) -> None:
    message = merge(MESSAGES["RelayBundle"], {"meta": {"produced_at": time}})
    with pytest.raises(ValidationError, match="produced_at"):
        CONTRACTS["RelayBundle"].model_validate(message)


@pytest.mark.req("S0-52", "S0-55", "S0-59", "S0-62", "S4-68")
@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_goes_through_untouched(field: str, content_type: str) -> None:
    for contract in ("AfferentSignal", "RelayBundle"):
        topic, message = VALID[contract]
        assert field not in message["meta"]
        message = merge(message, {"meta": {field: OPTIONAL[field]}})
        data = encode(CONTRACTS[contract].model_validate(message), content_type)
        now_ms = unix_ms("2026-11-20T20:00:01.000Z")
        verdict = Guard(TOPICS).judge(packet(topic, data), now_ms)
        assert isinstance(verdict, Accepted), verdict
        assert decode(encode(verdict.message))["meta"][field] == OPTIONAL[field]


@pytest.mark.req("S0-70", "S0-71", "S0-72")
@pytest.mark.parametrize("field", ["gateway_base", "offer_path_template", "streams"])
def test_a_media_registry_says_where_and_what(field: str) -> None:
    message = MESSAGES["MediaRegistryState"]
    assert message["payload"][field]
    with pytest.raises(ValidationError, match=field):
        CONTRACTS["MediaRegistryState"].model_validate(merge(message, {"payload": {field: None}}))
