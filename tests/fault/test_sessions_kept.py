"""Sessions of parts that are away while a broker reads its rights again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from hub.plain_broker import within
from nervus.bus import DURABLE, BrokerAddress, Filter, Session
from nervus.runtime.brokers import brokers
from nervus.runtime.identity import Identity
from nervus.wire import Packet, topics
from support import House


class Part:
    """A part with a kept session on the core broker, and what it was sent."""

    def __init__(self, house: House, identity: Identity) -> None:
        self.received: list[bytes] = []
        listener = house.settings.brokers.core
        address = BrokerAddress(listener.connect_host, listener.port, identity.ssl_context())
        self.session = Session(
            identity.name,
            "core",
            address,
            filters=[Filter(topics.RELAY_BUNDLE.filter(), 1)] if identity.role == "relay" else [],
            limits=DURABLE,
            on_packet=self._take,
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.session.run())
        try:
            async with asyncio.timeout(10):
                await self.session.wait_connected()
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _take(self, packet: Packet) -> None:
        self.received.append(packet.payload)


@pytest.mark.req("S4-20")
async def test_a_broker_outlives_rights_read_again_while_a_kept_session_is_away(
    running_house: House,
) -> None:
    """What mosquitto 2.0.11 died of: the session was listed twice, and freed with one left."""
    house = running_house
    relay = Part(house, house.join("relay", "relay"))
    speaker = Part(house, house.join("brainstem", "brainstem"))
    core = brokers(house.state, house.settings)[1]
    born = core.running_pid()
    topic = topics.relay_bundle("room", "hall", "visceral").topic
    async with relay.connected():
        pass
    house.refresh()
    house.refresh()
    async with relay.connected():
        pass
    async with relay.connected(), speaker.connected():
        house.refresh()
        await asyncio.sleep(2.1)  # mosquitto looks once a second at whose session has expired
        house.refresh()
        await speaker.session.publish(topic, b"still there", qos=1)
        await within(lambda: b"still there" in relay.received)
    assert core.running_pid() == born
    assert "Expiring client" not in house.log("core")
