"""What a service's sessions suffer from is told, as `nervus status` shows it, while they live."""

from importlib import import_module

import pytest

from nervus.runtime import raw
from nervus.runtime.services import SERVICES, ServiceContext, ensure_identities
from nervus.wire.raw import RawGrant
from support import House
from system.command_clients import beside, until

GRANT = RawGrant(
    id="g",
    topic_prefix="/sc/aff/event/room/kitchen/sensor/sound_level",
    rate=1,
    expires_ms=2**52,
    decision_id="d",
)
"""Without one the service `raw` has no session."""


@pytest.mark.parametrize("name", [each for each in SERVICES if SERVICES[each].identities])
async def test_every_service_tells_what_its_sessions_suffer_from(house: House, name: str) -> None:
    service = SERVICES[name]
    ensure_identities(house.authority, [service])
    raw.write(house.state, [GRANT])
    troubles: dict[str, str | None] = {}
    context = ServiceContext(
        name, house.settings, house.state, 1, 1, lambda: None, on_trouble=troubles.__setitem__
    )
    # Reflect lends the cleaner its session for the moment.
    parts = {f"{each.name} at core" for each in service.identities} - {"cleaner at core"}
    async with beside(import_module(service.module).run(context)):
        await until(lambda: all("refused" in (troubles.get(part) or "") for part in parts))
    assert {troubles[part] for part in parts} == {None}
