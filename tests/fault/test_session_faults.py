"""Sessions while their broker is killed, frozen, or lets go of them."""

import asyncio
import re
import signal
from contextlib import suppress

import aiomqtt
import pytest

from hub.plain_broker import PlainBroker, running, within
from nervus.bus import Filter, Limits, Outgoing, Session
from nervus.wire import Packet

pytestmark = pytest.mark.usefixtures("client_kind")

QUICK = Limits(backoff_base_ms=20, backoff_cap_ms=100)


async def test_a_session_survives_the_death_of_its_broker(broker: PlainBroker) -> None:
    packets: list[Packet] = []
    greetings: list[int] = []

    async def take(packet: Packet) -> None:
        packets.append(packet)

    async def greet() -> None:
        greetings.append(len(greetings))
        session.post(Outgoing("state/x", b"mine", qos=1, retain=True))

    session = Session(
        "part", "core", broker.address, filters=[Filter("t/#", 1), Filter("state/#", 1)],
        on_packet=take, on_connect=greet, limits=QUICK,
    )  # fmt: skip
    async with running(session):
        for round_ in range(1, 4):
            await within(lambda round_=round_: len(greetings) == round_)
            await session.publish("t/x", b"%d" % round_, qos=1)
            await within(lambda round_=round_: b"%d" % round_ in [each.payload for each in packets])
            broker.kill()
            await within(lambda: not session.connected)
            await broker.start()
        await within(lambda: session.connected)
        # A killed broker has lost what it retained: we publish it again.
        await within(lambda: [packet.topic for packet in packets].count("state/x") == 4)
    assert session.counters.reconnects == 3


async def test_what_was_posted_while_the_broker_was_away_arrives_in_order(
    broker: PlainBroker,
) -> None:
    writer = Session(
        "writer", "core", broker.address,
        limits=Limits(backoff_base_ms=20, backoff_cap_ms=100, in_flight=5),
    )  # fmt: skip
    async with running(writer):
        broker.kill()
        await within(lambda: not writer.connected)
        for n in range(50):
            writer.post(Outgoing(f"t/{n:02}", b"", qos=1))
        await broker.start()
        await within(lambda: writer.counters.published == 50)
    received = re.findall(r"Received PUBLISH from writer .*'t/(\d\d)'", broker.log())
    assert received == [f"{n:02}" for n in range(50)]


async def test_what_was_sent_and_not_confirmed_is_sent_again(broker: PlainBroker) -> None:
    writer = Session(
        "writer", "core", broker.address,
        limits=Limits(backoff_base_ms=20, backoff_cap_ms=100, keepalive_s=60),
    )  # fmt: skip
    async with running(writer):
        broker.send(signal.SIGSTOP)
        publishing = asyncio.create_task(writer.publish("t/x", b"once more", qos=1, deadline_s=15))
        await within(lambda: writer.backlog == 1)
        await asyncio.sleep(0.1)
        broker.kill()
        await within(lambda: not writer.connected)
        await broker.start()
        await publishing
    assert (writer.counters.resent, writer.counters.published) == (1, 1)


@pytest.mark.req("S2-82")
async def test_a_broker_that_does_not_read_costs_bounded_memory(broker: PlainBroker) -> None:
    writer = Session("writer", "core", broker.address, limits=Limits(outgoing=20, unsent=10))
    total = 2_000
    async with running(writer):
        broker.send(signal.SIGSTOP)
        for _ in range(total):
            writer.post(Outgoing("t/x", b"x" * 8_000))
            await asyncio.sleep(0)
        assert writer.backlog <= 20
        assert writer.counters.shed > 0
        assert writer.connected
        broker.send(signal.SIGCONT)
        await within(lambda: writer.backlog == 0)
        await writer.publish("t/x", b"still in service", qos=1)
    assert writer.counters.published + writer.counters.shed == total + 1


async def test_a_frozen_broker_is_noticed(broker: PlainBroker) -> None:
    session = Session(
        "part", "core", broker.address,
        limits=Limits(keepalive_s=1, timeout_s=1, backoff_base_ms=20, backoff_cap_ms=100),
    )  # fmt: skip
    async with running(session):
        broker.send(signal.SIGSTOP)
        await within(lambda: not session.connected)
        broker.send(signal.SIGCONT)
        # Of a busy machine's broker, too, it may think so once more.
        await within(lambda: session.counters.reconnects >= 1 and session.connected)


async def test_a_packet_of_a_lost_connection_is_not_acknowledged_on_the_next(
    broker: PlainBroker,
) -> None:
    go = asyncio.Event()
    taken: list[Packet] = []

    async def take(packet: Packet) -> None:
        taken.append(packet)
        await go.wait()

    reader = Session(
        "reader", "core", broker.address, filters=[Filter("t/#", 1)], on_packet=take, limits=QUICK
    )
    writer = Session("writer", "core", broker.address, limits=QUICK)
    async with running(reader, writer):
        await writer.publish("t/x", b"1", qos=1)
        await within(lambda: taken)
        broker.kill()
        await within(lambda: not reader.connected)
        await broker.start()
        await within(lambda: reader.connected and writer.connected)
        go.set()
        await writer.publish("t/x", b"2", qos=1)
        await within(lambda: len(taken) == 2)
        # One PUBACK for the second, none for a packet this broker never sent.
        await within(lambda: "Received PUBACK from reader" in broker.log())
        await asyncio.sleep(0.1)
    assert broker.log().count("Received PUBACK from reader") == 1


async def test_a_second_client_of_the_same_identity_does_not_end_the_first_for_good(
    broker: PlainBroker,
) -> None:
    first = Session("part", "core", broker.address, limits=QUICK)
    async with running(first):
        # It does not come back as a session would: the two would throw each other off for ever.
        second = aiomqtt.Client("127.0.0.1", broker.address.port, identifier="part")
        with suppress(aiomqtt.MqttError):
            async with second:
                await within(lambda: first.counters.failures > 0)
        await within(lambda: first.connected)
