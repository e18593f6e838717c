"""Rejects are on the rejecting part's own disk before reflect hears of them (K-15)."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from fault.kept_part import BAD, NOW_MS, QUICK, Watcher, bad, living, rejected, rows
from hub.plain_broker import PlainBroker, running, within
from hub.shell_stand import Stand
from nervus.bus import Filter, Origin, Session, reject_log, subscriptions
from nervus.bus.reject_log import RejectLog
from nervus.bus.session import Delivery
from nervus.thalamus import ThalamusSettings, build
from nervus.wire import Accepted, Guard, Packet, refuse, topics
from support import DIES_WITH_US, reaping

LANE = "/X/reflect/event/room/hall/lane/reject"
CHILD = """
import asyncio, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from fault.kept_part import living, rejected
from nervus.bus import BrokerAddress

async def main():
    nowhere = SimpleNamespace(address=BrokerAddress("127.0.0.1", int(sys.argv[3])))
    async with living(nowhere, Path(sys.argv[2]), connected=False) as part:
        rejected(part)
        while not part.rejects.stored:
            await asyncio.sleep(0.01)
        print("stored", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
ROWS = "SELECT topic, sent FROM bus_rejects ORDER BY number"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PlainBroker]:
    one = PlainBroker(tmp_path)
    await one.start()
    yield one
    one.kill()


@pytest.fixture
async def writer(broker: PlainBroker) -> AsyncIterator[Session]:
    session = Session("writer", "core", broker.address, limits=QUICK)
    async with running(session):
        yield session


@pytest.mark.req("S0-7", "S0-84")
async def test_a_reject_is_on_disk_before_it_is_told_and_nothing_waits_for_that(
    broker: PlainBroker, tmp_path: Path, writer: Session
) -> None:
    watcher = Watcher(broker)
    async with running(watcher.session), living(broker, tmp_path) as part:
        with closing(sqlite3.connect(tmp_path / "part.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the disk is busy
            for _ in range(20):
                await writer.publish(BAD.format("hall"), b"{]", qos=1)
            # All of them are judged, answered and acknowledged meanwhile.
            await within(lambda: part.shell.counters.rejected == 20)
            await within(lambda: broker.log().count("Received PUBACK from part") == 20)
            assert watcher.payloads(LANE) == []
            other.execute("ROLLBACK")
        await within(lambda: watcher.payloads(LANE))
        assert part.rejects.stored == 1
        part.now_ms += 6_000
        await within(lambda: len(watcher.payloads(LANE)) == 2)
        await within(lambda: rows(tmp_path, ROWS) == [(LANE, 1), (LANE, 1)])
    first, rest = map(json.loads, watcher.payloads(LANE))
    assert "count" not in first["payload"]
    assert rest["payload"]["count"] == 19


@pytest.mark.req("S1-71")
async def test_rejects_are_qos_0_to_whoever_does_not_ask_for_more(
    broker: PlainBroker, tmp_path: Path
) -> None:
    heard: dict[str, list[Delivery]] = {"observer": [], "reflect": []}
    filters = {
        "observer": subscriptions([topics.REJECT]),
        "reflect": [Filter(topics.REJECT.filter(), 1)],
    }
    readers = [
        Session(name, "core", broker.address, filters=filters[name], limits=QUICK) for name in heard
    ]
    for session in readers:
        session.attach(heard[session.identity].append)
    async with running(*readers), living(broker, tmp_path) as part:
        rejected(part)
        await within(lambda: all(heard.values()))
    ((seen,), (kept,)) = heard.values()
    assert seen.packet == kept.packet
    assert (seen.qos, kept.qos) == (0, 1)


@pytest.mark.req("S1-71")
async def test_a_part_without_a_store_says_its_rejects_at_qos_0() -> None:
    stand = Stand(build(ThalamusSettings(), Origin(1, 1, "home"), lambda _: None), NOW_MS)
    stand.deliver(Packet("core", BAD.format("hall"), b"{]"), 1)
    await stand.steps()
    assert [(sent.topic, sent.qos) for sent in stand.sent] == [(LANE, 0)]
    assert stand.acknowledged == [1]


async def test_what_could_not_be_told_is_told_by_the_next_process(
    broker: PlainBroker, tmp_path: Path
) -> None:
    broker.kill()
    async with living(broker, tmp_path, connected=False) as part:
        rejected(part)
        await within(lambda: rows(tmp_path, ROWS) == [(LANE, 0)])
    await broker.start()
    stored = json.loads(rows(tmp_path, "SELECT message FROM bus_rejects")[0][0])
    later = NOW_MS + 3_600_000
    watcher = Watcher(broker)
    async with running(watcher.session):
        async with living(broker, tmp_path, later) as part:
            await within(lambda: watcher.payloads(LANE))
            await within(lambda: rows(tmp_path, ROWS) == [(LANE, 1)])
        async with living(broker, tmp_path, later) as part:
            rejected(part)
            await within(lambda: len(watcher.payloads(LANE)) == 2)
    told, fresh = map(json.loads, watcher.payloads(LANE))
    assert told["payload"] == stored["payload"]
    assert told["meta"]["message_id"] == stored["meta"]["message_id"]
    assert told["meta"]["historical"] is True
    assert fresh["meta"]["message_id"] != told["meta"]["message_id"]
    # Reflect takes it an hour later, once.
    guard = Guard([topics.REJECT])
    packet = Packet("core", LANE, watcher.payloads(LANE)[0])
    assert isinstance(accepted := guard.judge(packet, later), Accepted)
    again = guard.judge(packet, later)
    assert not isinstance(again, Accepted)
    assert refuse(accepted, "duplicate", "dedupe", "").message_id == told["meta"]["message_id"]


async def test_a_reject_survives_the_kill_of_its_part(broker: PlainBroker, tmp_path: Path) -> None:
    broker.kill()
    child = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), str(tmp_path),
        str(broker.address.port), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with reaping() as lives, asyncio.timeout(15):
        lives.append(child)
        assert child.stdout is not None
        assert await child.stdout.readline() == b"stored\n"
    await broker.start()
    async with running((watcher := Watcher(broker)).session), living(broker, tmp_path):
        await within(lambda: watcher.payloads(LANE))
    told = json.loads(watcher.payloads(LANE)[0])
    assert told["meta"]["historical"] is True
    assert told["payload"]["input_ref"]["source"] == "hall"


async def test_a_reject_that_expired_in_the_outbox_goes_out_when_the_broker_is_back(
    broker: PlainBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reject_log, "_AGAIN_S", 0.1)
    watcher = Watcher(broker)
    async with living(broker, tmp_path) as part, running(watcher.session):
        broker.kill()
        await within(lambda: not part.session.connected)
        rejected(part)
        await within(lambda: part.rejects.stored == 1 and part.session.backlog == 1)
        part.now_ms += 120_000
        await broker.start()
        await within(lambda: rows(tmp_path, ROWS)[0] == (LANE, 1))
        assert part.session.counters.expired == 1


async def test_what_nobody_listened_to_is_told_once_somebody_does(
    broker: PlainBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reject_log, "_FLUSH_S", 0.02)
    monkeypatch.setattr(reject_log, "_AGAIN_S", 0.2)
    async with living(broker, tmp_path) as part:
        for number in range(50):
            rejected(part, f"room-{number}")
        # Told, and then tried with one of them: not all of them again and again.
        await within(lambda: part.shell.counters.published >= 53)
        await within(lambda: part.session.backlog == 0)
        tried = part.shell.counters.published
        await within(lambda: part.shell.counters.published >= tried + 3)
        assert part.shell.counters.published < tried + 50
        assert part.rejects.sent == 0
        assert rows(tmp_path, "SELECT DISTINCT sent FROM bus_rejects") == [(0,)]
        watcher = Watcher(broker)
        async with running(watcher.session):
            await within(lambda: part.rejects.sent == 50)
            await within(lambda: rows(tmp_path, "SELECT DISTINCT sent FROM bus_rejects") == [(1,)])
    ids = [json.loads(packet.payload)["meta"]["message_id"] for packet in watcher.packets]
    assert len(ids) == len(set(ids)) == 50


async def test_rows_and_bytes_are_bounded_and_only_what_was_never_told_counts_as_dropped(
    broker: PlainBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RejectLog, "row_limit", 10)
    async with living(broker, tmp_path) as part, running(Watcher(broker).session):
        for number in range(8):
            rejected(part, f"told-{number}")
        await within(lambda: part.rejects.sent == 8)
        broker.kill()
        await within(lambda: not part.session.connected)
        told = part.rejects.sent
        for number in range(30):
            rejected(part, f"new-{number}")
            await within(lambda number=number: part.rejects.stored > number)
        await within(lambda: len(rows(tmp_path, ROWS)) <= 10)
        left = rows(tmp_path, ROWS)
        assert part.rejects.dropped == part.rejects.stored - told - len(left)
        assert all(sent == 0 for _, sent in left)
    monkeypatch.setattr(RejectLog, "row_limit", 4_096)
    monkeypatch.setattr(RejectLog, "byte_limit", 2_000)
    async with living(broker, tmp_path, connected=False) as part:
        rejected(part)
        await within(lambda: part.rejects.dropped > 0)
        size = "SELECT SUM(LENGTH(message)) FROM bus_rejects"
        assert rows(tmp_path, size)[0][0] <= 2_000


async def test_more_than_may_wait_is_dropped_and_counted(
    broker: PlainBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RejectLog, "waiting_limit", 3)
    async with living(broker, tmp_path) as part:
        for number in range(5):
            rejected(part, f"room-{number}")
        assert part.rejects.dropped == 2
        await within(lambda: part.rejects.stored == 3)


async def test_a_full_disk_costs_the_durability_of_rejects_and_not_the_part(
    broker: PlainBroker, tmp_path: Path, writer: Session, caplog: pytest.LogCaptureFixture
) -> None:
    async with living(broker, tmp_path) as part, running((watcher := Watcher(broker)).session):
        assert part.shell.reject_log is not None
        store = part.shell.reject_log._store
        # SQLite answers what it answers on a full disk.
        await store.write(
            lambda connection: connection.execute("PRAGMA max_page_count = 1") and None
        )
        (pages,) = await store.read(lambda c: c.execute("PRAGMA page_count").fetchone())
        for number in range(40):
            await writer.publish(BAD.format("hall"), bad(f"source-{number}"), qos=1)
        await within(lambda: len(watcher.payloads(LANE)) == 40)
        assert part.rejects.unstored > 0
        assert part.rejects.stored + part.rejects.unstored == 40
        (after,) = await store.read(lambda c: c.execute("PRAGMA page_count").fetchone())
        assert after == pages
    assert "database or disk is full" in caplog.text
