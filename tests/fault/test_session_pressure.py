"""Sessions whose broker is killed, paused for long, slow, or full."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fault.bending_proxy import bending
from hub.plain_broker import PlainBroker, running, within
from hub.test_shell import driver
from nervus.bus import (
    Filter,
    Limits,
    Outgoing,
    PublishError,
    PublishTimeoutError,
    Session,
    Shell,
    subscriptions,
)
from nervus.wire import Accepted, Guard, Mint, Packet, RejectLane, encode, topics, unix_ms
from support import DEADLINE_S

QUICK = Limits(backoff_base_ms=20, backoff_cap_ms=100)
NOW_MS = unix_ms("2026-11-20T12:00:00.000Z")


class Actor:
    """A core that notes what it acts upon."""

    due_ms = 0

    def __init__(self) -> None:
        self.acted: list[str] = []

    def step(self, event: Any, _: int) -> Sequence[Any]:
        if isinstance(event, Accepted):
            self.acted.append(event.message.meta.message_id)
        return ()

    def tick(self, _: int) -> Sequence[Any]:
        return ()


def acting(broker: PlainBroker, actor: Actor) -> tuple[Shell, Session]:
    session = Session(
        "part", "core", broker.address, filters=subscriptions([topics.RELAY_BUNDLE]),
        limits=QUICK,
    )  # fmt: skip
    lane = RejectLane(Mint("part", "brainstem", seed=1, boot=1), "home")
    guard = Guard([topics.RELAY_BUNDLE])
    return Shell(actor, [session], guard, lane, clock=lambda: NOW_MS), session


async def test_a_broker_paused_beyond_the_keepalive_makes_nobody_act_twice(
    tmp_path: Path,
) -> None:
    broker, actor = PlainBroker(tmp_path), Actor()
    await broker.start()
    shell, session = acting(broker, actor)
    limits = Limits(keepalive_s=1, timeout_s=1, backoff_base_ms=20, backoff_cap_ms=100)
    writer = Session("writer", "core", broker.address, limits=limits)
    task = asyncio.create_task(shell.run())
    messages = [driver() for _ in range(20)]
    try:
        await within(lambda: session.connected)
        async with running(writer):
            broker.send(signal.SIGSTOP)
            for each in messages:
                writer.post(Outgoing(each.address.topic, encode(each.message), qos=1))
            await within(lambda: not writer.connected)
            broker.send(signal.SIGCONT)
            # It finds the first copies in the old connection, and gets the others in the new one.
            await within(lambda: writer.backlog == 0 and writer.connected)
            assert writer.counters.resent >= 20  # and again, should it pause for a busy machine
            await within(lambda: len(actor.acted) == 20 and shell.counters.rejected > 0)
    finally:
        task.cancel()
        await asyncio.wait([task])
        broker.kill()
    assert sorted(actor.acted) == sorted(each.message.meta.message_id for each in messages)


async def test_a_broker_killed_again_and_again_with_its_database_gets_every_message(
    tmp_path: Path,
) -> None:
    database = f"persistence true\npersistence_location {tmp_path}/\nautosave_on_changes true\n"
    broker = PlainBroker(tmp_path, extra=database + "autosave_interval 1")
    await broker.start()
    writer = Session("writer", "core", broker.address, limits=QUICK)
    confirmed: list[PublishError | None] = []
    async with running(writer):
        for round_ in range(3):
            for number in range(20):
                topic = f"t/{round_}/{number}"
                message = Outgoing(topic, b"x", qos=1, retain=True, done=confirmed.append)
                writer.post(message)
            await within(lambda round_=round_: len(confirmed) >= 20 * round_ + 5)
            broker.kill()
            await broker.start()
        await within(lambda: confirmed == [None] * 60)
    broker.send(signal.SIGTERM)
    assert broker._process is not None
    await asyncio.to_thread(broker._process.wait, DEADLINE_S)
    await broker.start()
    found: set[str] = set()

    async def take(packet: Packet) -> None:
        found.add(packet.topic)

    reader = Session("reader", "core", broker.address, filters=[Filter("t/#", 1)], on_packet=take)
    async with running(reader):
        # Not all: what was retained just before a kill is lost, which is why there is a ledger.
        await within(lambda: any(topic.startswith("t/2/") for topic in found))
    assert (writer.counters.shed, writer.counters.refused, writer.counters.expired) == (0, 0, 0)
    broker.kill()


@pytest.mark.req("S2-82", "S2-83")
async def test_a_slow_broker_costs_background_messages_and_never_control(tmp_path: Path) -> None:
    broker = PlainBroker(tmp_path)
    await broker.start()
    texts: list[bytes] = []

    async def take(packet: Packet) -> None:
        texts.append(packet.payload[:2])

    reader = Session(
        "reader", "core", broker.address, filters=[Filter("t/#", 1)], on_packet=take, limits=QUICK
    )
    limits = Limits(outgoing=20, unsent=4, in_flight=2)
    writer = Session("writer", "core", broker.address, limits=limits)
    async with running(reader, writer):
        broker.send(signal.SIGSTOP)
        for number in range(300):
            priority, text = ("control", b"c ") if number % 30 == 0 else ("background", b"b ")
            writer.post(Outgoing("t/x", text + b"x" * 4_000, qos=1, priority=priority))
            await asyncio.sleep(0)
            assert writer.backlog <= 20 + 2
        broker.send(signal.SIGCONT)
        await within(lambda: writer.backlog == 0)
        await within(lambda: len(texts) == writer.counters.published)
    assert texts.count(b"c ") == 10
    assert writer.counters.shed == 300 - writer.counters.published > 0
    broker.kill()


@pytest.mark.req("S2-82", "S2-83")
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_peer_that_reads_a_byte_a_second_costs_background_messages_and_never_control(
    tmp_path: Path, qos: int
) -> None:
    broker = PlainBroker(tmp_path)
    await broker.start()
    texts: list[bytes] = []

    async def take(packet: Packet) -> None:
        texts.append(packet.payload[:4])

    reader = Session(
        "reader", "core", broker.address, filters=[Filter("t/#", 1)], on_packet=take, limits=QUICK
    )
    limits = Limits(
        outgoing=20, unsent=4, in_flight=2, keepalive_s=1, timeout_s=1,
        backoff_base_ms=20, backoff_cap_ms=100,
    )  # fmt: skip
    async with bending(broker.address) as proxy:
        writer = Session("writer", "core", proxy.address, limits=limits)
        async with running(reader, writer):
            proxy.slow = True
            results: list[PublishError | None] = []
            for number in range(300):
                control = number % 30 == 0
                writer.post(
                    Outgoing(
                        "t/x", (b"c%03d" if control else b"b%03d") % number + b"x" * 16_000,
                        qos=1 if control else qos, priority="control" if control else "background",
                        done=results.append,
                    )
                )  # fmt: skip
                await asyncio.sleep(0)
                assert writer.backlog <= 20 + 2
            with pytest.raises(PublishTimeoutError):
                await writer.publish("t/x", b"late", qos=1, deadline_s=0.3)
            # A link that answers no ping is dead, and one whose CONNECT takes a minute is none.
            await within(lambda: not writer.connected and writer.counters.failures > 1)
            assert writer.trouble
            proxy.slow = False
            await within(lambda: writer.connected and writer.backlog == 0)
            assert writer.trouble is None
            await writer.publish("t/x", b"done", qos=1)
            await within(lambda: texts[-1:] == [b"done"])
    seen = list(dict.fromkeys(text for text in texts if text.startswith(b"c")))
    assert seen == [b"c%03d" % number for number in range(0, 300, 30)]
    assert results.count(None) + writer.counters.shed >= 300
    assert sum(error is not None for error in results) == writer.counters.shed > 200
    broker.kill()


async def test_a_message_larger_than_the_broker_takes_is_refused_and_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = PlainBroker(tmp_path, extra="max_packet_size 2000")
    await broker.start()
    writer = Session("writer", "core", broker.address, limits=QUICK)
    async with running(writer):
        with pytest.raises(PublishError, match="the broker takes 2000"):
            await writer.publish("t/x", b"x" * 2_000, qos=1, expiry_ms=60_000)
        await writer.publish("t/x", b"x" * (2_000 - 3 - 18), qos=1, expiry_ms=60_000)
    assert (writer.counters.refused, writer.counters.reconnects) == (1, 0)
    assert "t/x not sent" in caplog.text
    broker.kill()


async def test_a_reader_whose_queue_at_the_broker_is_full_goes_on_with_what_was_kept(
    tmp_path: Path,
) -> None:
    """Mosquitto drops the newest, and says so only in $SYS: see `nervus doctor`."""
    broker = PlainBroker(tmp_path, extra="max_queued_messages 5\nsys_interval 1")
    await broker.start()
    texts: list[bytes] = []
    dropped: list[int] = []
    go = asyncio.Event()

    async def take(packet: Packet) -> None:
        await go.wait()
        texts.append(packet.payload)

    async def count(packet: Packet) -> None:
        dropped.append(int(packet.payload))

    reader = Session(
        "reader", "core", broker.address, filters=[Filter("t/#", 1)], on_packet=take,
        limits=Limits(receive_maximum=2),
    )  # fmt: skip
    watcher = Session(
        "watcher", "core", broker.address, on_packet=count,
        filters=[Filter("$SYS/broker/publish/messages/dropped", 0)],
    )  # fmt: skip
    writer = Session("writer", "core", broker.address, limits=QUICK)
    async with running(reader, watcher, writer):
        for number in range(30):
            await writer.publish("t/x", b"%d" % number, qos=1)
        await within(lambda: dropped and dropped[-1] > 0)
        go.set()
        await within(lambda: len(texts) == 30 - dropped[-1])
        await writer.publish("t/x", b"after", qos=1)
        await within(lambda: texts[-1] == b"after")
    assert texts[:-1] == [b"%d" % number for number in range(len(texts) - 1)]
    assert reader.counters.reconnects == 0
    broker.kill()
