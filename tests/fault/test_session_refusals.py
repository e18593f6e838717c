"""A broker that refuses: every reason is seen, told with what to do, and outlived.

Where mosquitto cannot be made to refuse with a code, its answer is bent on its way.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fault.bending_proxy import bending, connack, disconnect, puback, suback
from hub.plain_broker import PlainBroker, running, within
from nervus.bus import Filter, Limits, Outgoing, PublishDeniedError, Session
from nervus.bus import SubscriptionRefusedError as Refused
from nervus.bus.reasons import to_do
from nervus.wire import Packet
from support import DEADLINE_S

QUICK = Limits(backoff_base_ms=20, backoff_cap_ms=100)
BUSY, QUOTA, DENIED = 0x89, 0x97, 0x87


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PlainBroker]:
    one = PlainBroker(tmp_path)
    await one.start()
    yield one
    one.kill()


class Reader:
    """A session that keeps the texts it got."""

    def __init__(self, broker: PlainBroker, limits: Limits = QUICK) -> None:
        self.texts: list[bytes] = []
        self.session = Session(
            "reader", "core", broker.address, filters=[Filter("t/#", 1)], on_packet=self._take,
            limits=limits,
        )  # fmt: skip

    async def _take(self, packet: Packet) -> None:
        self.texts.append(packet.payload)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (DENIED, "was it revoked?"),
        (0x84, "does not speak MQTT 5"),
        (0x85, "use_username_as_clientid"),
        (0x86, "issue the identity anew"),
        (0x88, "takes no more connections"),
        (BUSY, "the broker is busy"),
        (0x8A, "has banned this identity"),
        (QUOTA, "quota is used up"),
        (0x9D, "the broker has moved"),
        (0x9F, "connections come faster than"),
    ],
)
async def test_a_refused_connection_is_told_and_tried_again_and_nothing_is_lost(
    broker: PlainBroker, code: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reader = Reader(broker)
    async with running(reader.session), bending(broker.address) as proxy:
        proxy.bend = connack(code)
        writer = Session("writer", "core", proxy.address, limits=QUICK)
        troubles: list[tuple[str, str | None]] = []
        writer.tell_trouble(lambda who, what: troubles.append((who, what)))
        task = asyncio.create_task(writer.run())
        for number in range(5):
            writer.post(Outgoing("t/x", b"%d" % number, qos=1))
        await within(lambda: writer.counters.failures >= 3)
        assert not writer.connected
        assert told in (writer.trouble or "")
        proxy.bend = lambda _, packet: packet
        await within(lambda: len(reader.texts) == 5)
        assert writer.trouble is None
        task.cancel()
        await asyncio.wait([task])
    assert reader.texts == [b"0", b"1", b"2", b"3", b"4"]
    # Each change once, however often it was tried.
    logged = [line for line in caplog.messages if line.startswith("writer: core at 127.0.0.1:")]
    assert [told in line for line in logged] == [True, False]
    assert logged[-1].endswith("all is well again")
    assert [who for who, _ in troubles] == ["writer at core"] * 2
    assert told in (troubles[0][1] or "")
    assert troubles[1][1] is None


async def test_a_broker_that_knows_nobody_is_told_and_outlived(tmp_path: Path) -> None:
    broker = PlainBroker(tmp_path, extra="allow_anonymous false")
    await broker.start()
    session = Session("part", "core", broker.address, limits=QUICK)
    task = asyncio.create_task(session.run())
    await within(lambda: session.counters.failures >= 2)
    assert "was it revoked?" in (session.trouble or "")
    broker.configure("")
    broker.kill()
    await broker.start()
    await within(lambda: session.connected)
    assert session.trouble is None
    task.cancel()
    await asyncio.wait([task])
    broker.kill()


@pytest.mark.parametrize(
    ("code", "told"), [(0x8E, "a second program uses this identity"), (0x8B, "the broker stops")]
)
async def test_a_farewell_of_the_broker_is_told_with_its_reason(
    broker: PlainBroker, code: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with bending(broker.address) as proxy:
        session = Session("part", "core", proxy.address, limits=QUICK)
        async with running(session):
            proxy.say(disconnect(code))
            await within(lambda: session.counters.reconnects >= 1 and session.connected)
            await session.publish("t/x", b"", qos=1)
    assert told in caplog.text


async def test_what_the_broker_has_no_room_for_is_sent_again_in_order(
    broker: PlainBroker, caplog: pytest.LogCaptureFixture
) -> None:
    results: list[object] = []
    async with bending(broker.address) as proxy:
        writer = Session("writer", "core", proxy.address, limits=QUICK)
        async with running(writer):
            proxy.bend = puback(QUOTA)
            for number in range(10):
                writer.post(Outgoing("t/x", b"%d" % number, qos=1, done=results.append))
            await within(lambda: writer.counters.deferred >= 20)
            assert results == []
            assert writer.backlog == 10
            assert "no room for" in (writer.trouble or "")
            proxy.bend = lambda _, packet: packet
            reader = Reader(broker)
            await within(lambda: results == [None] * 10)
            async with running(reader.session):
                await writer.publish("t/x", b"last", qos=1)
                await within(lambda: reader.texts == [b"last"])
            assert writer.trouble is None
    assert writer.counters.published == 11
    assert "no room for" in caplog.text
    assert to_do(QUOTA) in caplog.text


async def test_what_is_refused_for_want_of_room_survives_the_end_of_the_connection(
    broker: PlainBroker,
) -> None:
    reader = Reader(broker)
    async with running(reader.session), bending(broker.address) as proxy:
        writer = Session("writer", "core", proxy.address, limits=QUICK)
        async with running(writer):
            proxy.bend = puback(QUOTA)
            writer.post(Outgoing("t/x", b"once more", qos=1))
            await within(lambda: writer.counters.deferred > 0)
            proxy.bend = lambda _, packet: packet
            proxy.say(b"")
            await within(lambda: writer.backlog == 0)
            assert writer.counters.published == 1
        await within(lambda: reader.texts)
    assert set(reader.texts) == {b"once more"}


async def test_a_denied_message_is_told_to_its_sender_and_others_go_on(
    broker: PlainBroker,
) -> None:
    async with bending(broker.address) as proxy:
        writer = Session("writer", "core", proxy.address, limits=QUICK)
        async with running(writer):
            proxy.bend = puback(DENIED)
            with pytest.raises(PublishDeniedError, match="0x87"):
                await writer.publish("t/x", b"", qos=1)
            proxy.bend = lambda _, packet: packet
            await writer.publish("t/x", b"", qos=1)
    assert (writer.counters.denied, writer.counters.published) == (1, 1)


async def test_a_subscription_refused_for_good_ends_the_part_and_one_for_now_does_not(
    broker: PlainBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with bending(broker.address) as proxy:
        session = Session("part", "core", proxy.address, filters=[Filter("t/#", 1)], limits=QUICK)
        proxy.bend = suback(QUOTA)
        task = asyncio.create_task(session.run())
        await within(lambda: session.counters.failures >= 2)
        assert "core refuses t/# for now" in caplog.text
        assert to_do(QUOTA) in (session.trouble or "")
        proxy.bend = lambda _, packet: packet
        await within(lambda: session.connected)
        proxy.bend = suback(DENIED)
        proxy.say(b"")
        with pytest.raises(Refused, match=r"t/#.*0x87"):
            await asyncio.wait_for(task, DEADLINE_S)
