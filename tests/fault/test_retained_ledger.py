"""What a part retains: back after the broker lost it, gone once nobody stands for it."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from fault.kept_part import NOW_MS, QUICK, Watcher, alert, living, rows
from hub.plain_broker import PlainBroker, running, within
from nervus.bus import Session
from nervus.bus.ledger import Ledger
from nervus.wire import encode

LEGACY = "/bs/global/room/kitchen/alert"
TOPICS = "SELECT topic FROM bus_retained"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PlainBroker]:
    """A broker that keeps nothing on disk: whatever kills it takes what it retained."""
    one = PlainBroker(tmp_path)
    await one.start()
    yield one
    one.kill()


@pytest.mark.req("S0-19")
async def test_a_broker_that_lost_its_retained_states_gets_them_back(
    broker: PlainBroker, tmp_path: Path
) -> None:
    mine, newer = alert("kitchen"), alert("kitchen", state="quiet_hours")
    other = alert("hall")
    async with living(broker, tmp_path) as part:
        for state in (mine, other, newer):
            await part.shell.offer(state)
        await within(lambda: part.session.counters.published == 3)
        broker.kill()
        await within(lambda: not part.session.connected)
        await broker.start()
        await within(lambda: part.session.counters.published >= 5)
        watcher = Watcher(broker)
        async with running(watcher.session):
            await within(lambda: len(watcher.packets) == 2)
    assert all(packet.retain for packet in watcher.packets)
    assert watcher.payloads(newer.address.topic) == [encode(newer.message)]
    assert watcher.payloads(other.address.topic) == [encode(other.message)]


async def test_a_part_that_starts_again_publishes_what_is_alive_and_erases_what_expired(
    broker: PlainBroker, tmp_path: Path
) -> None:
    brief, lasting = alert("hall", life_ms=60_000), alert("kitchen", life_ms=600_000)
    watcher = Watcher(broker)
    async with running(watcher.session):
        async with living(broker, tmp_path) as part:
            for state in (brief, lasting):
                await part.shell.offer(state)
            await within(lambda: len(watcher.packets) == 2)
        # Two minutes later by the part's clock; the broker's own has hardly moved.
        async with living(broker, tmp_path, NOW_MS + 120_000):
            await within(lambda: watcher.payloads(brief.address.topic)[1:] == [b""])
            await within(lambda: len(watcher.payloads(lasting.address.topic)) == 2)
            await within(lambda: rows(tmp_path, TOPICS) == [(lasting.address.topic,)])
    async with running((late := Watcher(broker)).session):
        await within(lambda: late.packets)
    assert [packet.topic for packet in late.packets] == [lasting.address.topic]


async def test_a_state_that_expires_is_erased_and_one_that_follows_stays(
    broker: PlainBroker, tmp_path: Path
) -> None:
    first, second = alert("hall", life_ms=1_000), alert("hall", life_ms=600_000)
    watcher = Watcher(broker)
    async with running(watcher.session), living(broker, tmp_path) as part:
        await part.shell.offer(first)
        await within(lambda: len(watcher.packets) == 1)
        part.now_ms += 2_000
        await within(lambda: watcher.payloads(first.address.topic)[1:] == [b""])
        await within(lambda: rows(tmp_path, TOPICS) == [])
        await part.shell.offer(second)
        await within(lambda: watcher.payloads(first.address.topic)[2:] == [encode(second.message)])
        part.now_ms += 2_000
        await within(lambda: part.session.backlog == 0)
    assert rows(tmp_path, TOPICS) == [(second.address.topic,)]


async def test_what_has_no_place_in_topics_json_any_more_is_erased_at_the_start(
    broker: PlainBroker, tmp_path: Path
) -> None:
    writer = Session("writer", "core", broker.address, limits=QUICK)
    async with running(writer):
        await writer.publish(LEGACY, b"of last year's version", qos=1, retain=True)
    async with living(broker, tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "part.db")) as connection, connection:
        connection.execute(
            "INSERT INTO bus_retained (part, broker, topic, payload, priority)"
            " VALUES ('part', 'core', ?, ?, 'normal'), ('part', 'spinal', ?, ?, 'normal')",
            (LEGACY, b"of last year's version") * 2,
        )
    async with running((watcher := Watcher(broker)).session):
        await within(lambda: len(watcher.packets) == 1)
        async with living(broker, tmp_path) as part:
            await within(lambda: watcher.payloads(LEGACY)[1:] == [b""])
            # The other is on a broker that the part does not reach: it stays on the list.
            query = "SELECT broker FROM bus_retained"
            await within(lambda: rows(tmp_path, query) == [("spinal",)])
            part.now_ms += 2_000
            await part.shell.offer(alert("hall"))
            await within(lambda: part.session.counters.published == 2)


async def test_a_state_is_in_the_ledger_before_it_is_published(
    broker: PlainBroker, tmp_path: Path
) -> None:
    state, watcher = alert("hall"), Watcher(broker)
    async with running(watcher.session), living(broker, tmp_path) as part:
        with closing(sqlite3.connect(tmp_path / "part.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the part's commit has to wait
            await part.shell.offer(state)
            await within(lambda: part.shell.counters.steps == 2)  # connected, offered
            await watcher.session.publish("/bs/marker", b"", qos=1)
            await within(lambda: watcher.payloads("/bs/marker"))
            assert watcher.payloads(state.address.topic) == []
            assert part.shell.counters.published == 0
            other.execute("ROLLBACK")
        await within(lambda: watcher.payloads(state.address.topic) == [encode(state.message)])


async def test_a_state_that_the_ledger_has_no_room_for_is_refused_and_counted(
    broker: PlainBroker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Ledger, "limit", 1)
    async with living(broker, tmp_path) as part:
        await part.shell.offer(alert("hall"))
        await within(lambda: part.session.counters.published == 1)
        await part.shell.offer(alert("kitchen"))
        await part.shell.offer(alert("hall", state="quiet_hours"))
        await within(lambda: part.session.counters.published == 2)
        assert part.shell.counters.unpublished == 1
        assert part.shell.ledger is not None
        assert len(part.shell.ledger) == 1
    assert "/kitchen/alert: not published, the ledger of states is full" in caplog.text
