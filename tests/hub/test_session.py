"""A session on a real broker: acknowledgement, order, refusals."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.plain_broker import PlainBroker, running, within
from nervus.bus import (
    BrokerAddress,
    ClientShapeError,
    Filter,
    Limits,
    MessageExpiredError,
    MessageShedError,
    Outgoing,
    PublishDeniedError,
    PublishError,
    PublishTimeoutError,
    Session,
    SubscriptionRefusedError,
    subscriptions,
)
from nervus.bus import client as client_module
from nervus.bus import session as session_module
from nervus.bus.client import Client, FastClient, client_class
from nervus.bus.session import Delivery
from nervus.runtime.settings import free_port
from nervus.wire import Packet, topics
from support import DEADLINE_S, House

EVERYTHING = [Filter("t/#", 1)]


@pytest.fixture(params=[FastClient, Client], ids=["fast", "stock"], autouse=True)
def client_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    """Every test of this file over both ways to read and write."""
    kind: type[Client] = request.param
    monkeypatch.setattr(session_module, "_CLIENT", kind)
    return kind


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PlainBroker]:
    one = PlainBroker(tmp_path, "topic readwrite t/#\ntopic read $SYS/#\n")
    await one.start()
    yield one
    one.kill()


class Reader:
    """Takes packets, and waits with each while `hold` is set."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.handled = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, packet: Packet) -> None:
        self.packets.append(packet)
        await self.go.wait()
        self.handled += 1

    @property
    def texts(self) -> list[str]:
        return [packet.payload.decode() for packet in self.packets]


def reading(broker: PlainBroker, reader: Reader, limits: Limits | None = None) -> Session:
    return Session(
        "reader", "core", broker.address, filters=EVERYTHING, on_packet=reader, limits=limits
    )


def writing(broker: PlainBroker, limits: Limits | None = None) -> Session:
    return Session("writer", "core", broker.address, limits=limits)


async def test_what_is_published_arrives_in_order(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    async with running(reading(broker, reader), writer):
        for n in range(500):
            writer.post(Outgoing("t/x", b"%d" % n, qos=1))
        await writer.publish("t/x", b"last", qos=1)
        await within(lambda: len(reader.packets) == 501)
    assert reader.texts == [*(str(n) for n in range(500)), "last"]
    assert reader.packets[0] == Packet("core", "t/x", b"0", retain=False)
    assert writer.counters.published == 501


async def test_what_is_posted_on_a_free_link_is_sent_at_once(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker, Limits(in_flight=2))
    async with running(reading(broker, reader), writer):
        await writer.publish("t/x", b"before", qos=1)
        published = writer.counters.published
        writer.post(Outgoing("t/x", b"0"))
        assert writer.counters.published == published + 1
        for n in range(1, 6):
            writer.post(Outgoing("t/x", b"%d" % n, qos=1))
        # No more than may be in flight; the others wait their turn.
        assert writer.backlog == 5
        await within(lambda: reader.texts == ["before", *"012345"])
    assert writer.counters.published == published + 6


async def test_what_comes_of_a_read_is_written_before_it_is_over(
    broker: PlainBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, unwritten, readable = set[FastClient](), list[int](), FastClient._readable

    def watched(client: FastClient) -> None:
        readable(client)
        if client.identifier in ("relay", "writer"):
            clients.add(client)
        unwritten.extend(each.unsent for each in clients)

    monkeypatch.setattr(FastClient, "_readable", watched)
    reader, writer, board = Reader(), writing(broker), Session("board", "core", broker.address)
    relay = Session("relay", "core", broker.address, filters=[Filter("t/in", 1)])

    def pass_on(delivery: Delivery) -> None:
        writer.post(Outgoing("t/out", delivery.packet.payload, qos=1))
        delivery.acknowledge()

    relay.attach(pass_on)
    out = Session("reader", "core", broker.address, filters=[Filter("t/out", 1)], on_packet=reader)
    async with running(out, relay, writer, board):
        for n in range(20):
            await board.publish("t/in", b"%d" % n, qos=1)
        await within(lambda: len(reader.packets) == 20 and not writer.backlog)
    assert reader.texts == [str(n) for n in range(20)]
    assert not any(unwritten)


async def test_who_rests_reads_seldom_and_misses_nothing(
    broker: PlainBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read, rest_ms = 0, FastClient._read, 100

    def counted(client: FastClient, connection: Any) -> bool:
        nonlocal reads
        reads += client.identifier == "reader"
        return read(client, connection)

    monkeypatch.setattr(FastClient, "_read", counted)
    reader, writer = Reader(), writing(broker)
    session = reading(broker, reader, Limits(rest_ms=rest_ms, backoff_base_ms=10))
    async with running(session, writer):
        began, reads = time.monotonic(), 0
        for n in range(100):
            await writer.publish("t/x", b"%d" % n, qos=1)
        await within(lambda: len(reader.packets) == 100)
        assert reads <= (time.monotonic() - began) * 1_000 / rest_ms + 2
        broker.kill()
        await within(lambda: session.counters.failures and writer.counters.failures)
        await broker.start()
        await within(lambda: session.connected and writer.connected)
        await writer.publish("t/x", b"100", qos=1)
        await within(lambda: len(reader.packets) == 101)
    assert reader.texts == [str(n) for n in range(101)]


async def test_a_packet_is_acknowledged_only_after_it_was_handled(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    session = reading(broker, reader, Limits(receive_maximum=1))
    async with running(session, writer):
        reader.go.clear()
        for text in (b"first", b"second"):
            await writer.publish("t/x", text, qos=1)
        await within(lambda: reader.texts == ["first"])
        # With a receive maximum of 1 the broker owes us the second until we acknowledge the first.
        await asyncio.sleep(0.3)
        assert reader.texts == ["first"]
        assert broker.log().count("Received PUBACK from reader") == 0
        reader.go.set()
        await within(lambda: reader.texts == ["first", "second"])
        await within(lambda: broker.log().count("Received PUBACK from reader") == 2)


async def test_qos_0_beyond_the_bound_is_dropped_and_counted(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    session = reading(broker, reader, Limits(incoming=8, receive_maximum=4))
    async with running(session, writer):
        reader.go.clear()
        await writer.publish("t/x", b"0")
        await within(lambda: reader.texts == ["0"])
        for n in range(1, 50):
            await writer.publish("t/x", b"%d" % n)
        await within(lambda: session.counters.received == 50)
        # One is being handled, four wait, four places are kept for QoS 1.
        assert session.counters.dropped == 45
        for n in range(3):
            await writer.publish("t/x", b"kept %d" % n, qos=1)
        await within(lambda: session.counters.received == 53)
        assert session.counters.dropped == 45
        reader.go.set()
        await within(lambda: reader.handled == 8)
    assert reader.texts == ["0", "1", "2", "3", "4", "kept 0", "kept 1", "kept 2"]


async def test_retained_messages_say_that_they_are_retained(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    async with running(reading(broker, reader), writer):
        await writer.publish("t/live", b"state", qos=1, retain=True)
        await within(lambda: len(reader.packets) == 1)
    assert reader.packets[0].retain


async def test_a_denied_publish_is_seen(
    broker: PlainBroker, caplog: pytest.LogCaptureFixture
) -> None:
    writer = writing(broker)
    async with running(writer):
        with pytest.raises(PublishDeniedError, match="forbidden/x"):
            await writer.publish("forbidden/x", b"", qos=1)
        # Who waited for it may have expected just that.
        assert not caplog.records
        writer.post(Outgoing("forbidden/y", b"", qos=1))
        await writer.publish("t/x", b"", qos=1)
    assert (writer.counters.denied, writer.counters.published) == (2, 1)
    assert ["forbidden/y" in record.message for record in caplog.records] == [True]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.fixture
def refusing_broker(tmp_path: Path) -> PlainBroker:
    """A broker that, other than with an ACL file, says no to a subscription."""
    (plugin,) = Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")
    rules = tmp_path / "rules.json"
    nobody = {"groupname": "anyone", "roles": []}
    acls = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False}
    rules.write_text(
        json.dumps({"defaultACLAccess": acls, "anonymousGroup": "anyone", "groups": [nobody]})
    )
    return PlainBroker(tmp_path, extra=f"plugin {plugin}\nplugin_opt_config_file {rules}")


async def test_a_refused_subscription_ends_the_session(refusing_broker: PlainBroker) -> None:
    await refusing_broker.start()
    try:
        session = reading(refusing_broker, Reader())
        with pytest.raises(SubscriptionRefusedError, match=r"t/#.*0x87"):
            await asyncio.wait_for(session.run(), DEADLINE_S)
    finally:
        refusing_broker.kill()


async def test_an_error_of_the_handler_ends_the_session(broker: PlainBroker) -> None:
    async def fails(packet: Packet) -> None:
        raise LookupError(packet.topic)

    session = Session("reader", "core", broker.address, filters=EVERYTHING, on_packet=fails)
    writer = writing(broker)
    async with running(writer):
        task = asyncio.create_task(session.run())
        await within(lambda: session.connected)
        await writer.publish("t/boom", b"")
        with pytest.raises(LookupError, match="t/boom"):
            await asyncio.wait_for(task, DEADLINE_S)
    assert broker.log().count("Received PUBACK from reader") == 0


async def test_an_error_of_a_sink_or_a_confirmation_ends_the_session(broker: PlainBroker) -> None:
    def fails(what: object) -> None:
        raise LookupError(type(what).__name__)

    reader = Session("reader", "core", broker.address, filters=EVERYTHING)
    reader.attach(fails)
    writer = writing(broker)
    tasks = [asyncio.create_task(session.run()) for session in (reader, writer)]
    await within(lambda: reader.connected)
    writer.post(Outgoing("t/x", b"", qos=1, done=fails))
    for task, what in zip(tasks, ("Delivery", "NoneType"), strict=True):
        with pytest.raises(LookupError, match=what):
            await asyncio.wait_for(task, DEADLINE_S)


async def test_nobody_to_confirm_is_told_by_the_deadline() -> None:
    nowhere = BrokerAddress("127.0.0.1", free_port())
    session = Session("writer", "core", nowhere, limits=Limits(backoff_cap_ms=200))
    task = asyncio.create_task(session.run())
    with pytest.raises(PublishTimeoutError):
        await session.publish("t/x", b"", qos=1, deadline_s=0.1)
    await within(lambda: session.counters.failures > 1)
    assert not session.connected
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_expired_before_it_could_be_sent_is_not_sent(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    results: list[PublishError | None] = []
    writer.post(Outgoing("t/late", b"", qos=1, expires_ms=1, done=results.append))
    async with running(reading(broker, reader), writer):
        await writer.publish("t/x", b"in time", qos=1, expiry_ms=60_000)
        await within(lambda: len(reader.packets) == 1)
    assert reader.texts == ["in time"]
    assert isinstance(results[0], MessageExpiredError)
    assert writer.counters.expired == 1


async def test_the_broker_is_told_when_a_message_expires(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    async with running(writer):
        await writer.publish("t/short", b"short", qos=1, retain=True, expiry_ms=900)
        await writer.publish("t/long", b"long", qos=1, retain=True, expiry_ms=60_000)
        await asyncio.sleep(1.2)
        async with running(reading(broker, reader)):
            await within(lambda: reader.packets)
            await asyncio.sleep(0.1)
    assert reader.texts == ["long"]


async def test_a_full_outbox_sheds_and_tells(broker: PlainBroker) -> None:
    writer = writing(broker, Limits(outgoing=2))
    results: list[PublishError | None] = []
    for n in range(3):
        writer.post(Outgoing("t/x", b"%d" % n, qos=1, done=results.append))
    assert isinstance(results[0], MessageShedError)
    async with running(writer):
        await within(lambda: len(results) == 3)
    assert results[1:] == [None, None]
    assert (writer.counters.shed, writer.counters.published) == (1, 2)


async def test_unconfirmed_messages_stay_within_the_brokers_limit(broker: PlainBroker) -> None:
    # mosquitto 2.0 grants 20 unless configured otherwise, and throws off who exceeds it.
    reader, writer = Reader(), writing(broker, Limits(in_flight=2_000))
    async with running(reading(broker, reader), writer):
        for n in range(2_000):
            writer.post(Outgoing("t/x", b"%d" % n, qos=1))
        await within(lambda: len(reader.packets) == 2_000)
    assert writer.counters.reconnects == 0


async def test_nagle_is_off(broker: PlainBroker, client_kind: type[Client]) -> None:
    async with client_kind(
        broker.address, "x", Limits(), lambda *_: None, lambda *_: None
    ) as client:
        connection = client._client.socket()
        assert isinstance(connection, socket.socket)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_library_of_another_shape_is_refused(
    broker: PlainBroker, monkeypatch: pytest.MonkeyPatch, client_kind: type[Client]
) -> None:
    monkeypatch.setattr(client_module, "_CALLED", ("ack", "no_such_name"))
    with pytest.raises(ClientShapeError, match="no_such_name"):
        client_kind(broker.address, "x", Limits(), lambda *_: None, lambda *_: None)


@pytest.mark.parametrize("shape", [{"_sock_recv": ["size"]}, {"no_such_name": []}])
def test_with_a_library_of_another_shape_the_stock_path_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, shape: dict[str, list[str]]
) -> None:
    assert client_class() is FastClient
    monkeypatch.setattr(client_module, "_FAST_CALLED", shape)
    assert client_class() is Client
    assert "slower" in caplog.text


RELAYED = topics.gated_relay("room", "kitchen", "somatic").topic


def relayed(house: House, reader: Reader) -> tuple[Session, Session]:
    """A consumer that reads what is relayed, and a relay that writes it, both over TLS."""
    broker = house.settings.brokers.core

    def session(name: str, role: str, **rest: Any) -> Session:
        tls = house.join(name, role).ssl_context()
        address = BrokerAddress(broker.connect_host, broker.port, tls=tls)
        return Session(name, "core", address, **rest)

    filters = subscriptions([topics.GATED_RELAY])
    return session("app", "consumer", filters=filters, on_packet=reader), session("r-1", "relay")


async def test_what_a_full_socket_does_not_take_arrives_whole_and_in_order_over_tls(
    running_house: House, monkeypatch: pytest.MonkeyPatch, client_kind: type[Client]
) -> None:
    opened = client_kind._on_socket_open

    def narrow(client: Any, paho: Any, userdata: Any, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        opened(client, paho, userdata, sock)

    monkeypatch.setattr(client_kind, "_on_socket_open", narrow)
    reader = Reader()
    listener, writer = relayed(running_house, reader)
    texts = [b"%d " % number * 2_000 for number in range(200)]
    async with running(listener, writer):
        for text in texts:
            writer.post(Outgoing(RELAYED, text, qos=1))
        await within(lambda: len(reader.packets) == len(texts))
    assert [packet.payload for packet in reader.packets] == texts


async def test_packets_of_every_size_arrive_whole_over_tls(running_house: House) -> None:
    sizes = [0, 1, 127, 128, 8_000, *range(300, 600), 8_000]
    reader = Reader()
    listener, writer = relayed(running_house, reader)
    async with running(listener, writer):
        for number, size in enumerate(sizes):
            writer.post(Outgoing(RELAYED, bytes([number % 256]) * size, qos=number % 2))
        await within(lambda: len(reader.packets) == len(sizes))
    # QoS 1 and QoS 0 may overtake each other on their way through the outbox.
    sent = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    assert sorted(packet.payload for packet in reader.packets) == sorted(sent)


async def test_packets_larger_than_a_read_arrive_whole(broker: PlainBroker) -> None:
    sizes = [16_383, 16_384, 65_536, 200_000, 1, 131_072]
    reader, writer = Reader(), writing(broker)
    async with running(reading(broker, reader), writer):
        for number, size in enumerate(sizes):
            await writer.publish("t/x", bytes([number]) * size, qos=number % 2)
        await within(lambda: len(reader.packets) == len(sizes))
    assert [packet.payload for packet in reader.packets] == [
        bytes([number]) * size for number, size in enumerate(sizes)
    ]


async def test_a_packet_with_properties_is_read(broker: PlainBroker) -> None:
    reader = Reader()
    extra = ["content-type", "text/x"], ["user-property", "a", "b" * 200]
    options = [word for each in extra for word in ("-D", "publish", *each)]
    where = ["-h", broker.address.host, "-p", str(broker.address.port), "-V", "5"]
    async with running(reading(broker, reader)):
        pub = await asyncio.create_subprocess_exec(
            "mosquitto_pub", *where, "-q", "1", "-t", "t/x", "-m", "text", *options
        )
        assert await pub.wait() == 0
        await within(lambda: reader.packets)
    assert reader.packets == [Packet("core", "t/x", b"text", retain=False)]


async def test_pings_go_on_while_packets_flow(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    session = reading(broker, reader, Limits(keepalive_s=1))
    async with running(session, writer):
        number = 0
        async with asyncio.timeout(15):
            while broker.log().count("Sending PINGRESP to reader") < 2:
                await writer.publish("t/x", b"%d" % number, qos=1)
                number += 1
                await asyncio.sleep(0.05)
        await within(lambda: len(reader.packets) == number)
    assert session.counters.reconnects == 0
    assert reader.texts == [str(n) for n in range(number)]


async def test_acknowledgements_of_one_turn_go_out_together(broker: PlainBroker) -> None:
    reader, writer = Reader(), writing(broker)
    session = reading(broker, reader)
    async with running(session, writer):
        for n in range(300):
            writer.post(Outgoing("t/x", b"%d" % n, qos=1))
        await within(lambda: broker.log().count("Received PUBACK from reader") == 300)
    assert session.counters.reconnects == 0


def test_filters_ask_for_the_highest_qos_a_topic_is_published_with() -> None:
    assert subscriptions([topics.AFFERENT], scope_level="room") == [
        Filter("/sc/aff/event/room/+/sensor/+/device/+", 1)
    ]
