"""States that several parts may retain in turn, and what a part was told and knows again."""

import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from fault.bending_proxy import PUBACK, bending
from fault.kept_part import NOW_MS, Part, Watcher, alert, rows, serving
from hub.plain_broker import PlainBroker, running, within
from hub.plane_inputs import judged
from hub.test_shell import driver
from nervus.bus import KEPT, REMEMBERED, Memory, Outgoing, Ownership, Session
from nervus.store import Store
from nervus.wire import Accepted, Connected, encode

TURNS = "CREATE TABLE IF NOT EXISTS turn (one INTEGER PRIMARY KEY, holder TEXT NOT NULL)"
TAKE = "INSERT OR REPLACE INTO turn VALUES (1, ?)"
KITCHEN = alert("kitchen").address.topic


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PlainBroker]:
    one = PlainBroker(tmp_path)
    await one.start()
    yield one
    one.kill()


class Turn:
    """One of two parts that retain the same states, by turns that the store knows."""

    def __init__(self, broker: PlainBroker, folder: Path, name: str, *, believes: bool) -> None:
        self.name, self.believes = name, believes
        self.store = Store(folder / "part.db", (TURNS, KEPT), shared=True)
        ownership = Ownership("both", lambda _: self.believes, self._lost)
        self.part = Part(broker, self.store, name=name, ownership=ownership)

    async def take(self) -> None:
        """Take the turn; only the store is told."""
        await self.store.write(lambda connection: connection.execute(TAKE, (self.name,)) and None)

    def _lost(self, connection: sqlite3.Connection, topics: Collection[str]) -> Collection[str]:
        ((holder,),) = connection.execute("SELECT holder FROM turn").fetchall()
        return () if holder == self.name else topics


def kept(folder: Path) -> list[Any]:
    return rows(folder, "SELECT part, topic, payload FROM bus_retained")


async def test_one_whose_turn_is_over_writes_nothing_and_its_successor_stands_for_what_it_left(
    broker: PlainBroker, tmp_path: Path
) -> None:
    first = Turn(broker, tmp_path, "first", believes=True)
    second = Turn(broker, tmp_path, "second", believes=False)
    watcher = Watcher(broker)
    mine, late = alert("kitchen"), alert("kitchen", state="quiet_hours")
    async with first.store, second.store, running(watcher.session), serving(first.part):
        await first.take()
        await first.part.shell.offer(mine)
        await within(lambda: watcher.payloads(KITCHEN) == [encode(mine.message)])
        # Stood still for too long: another has the turn, and it does not know.
        await second.take()
        await first.part.shell.offer(late)
        await within(lambda: first.part.shell.counters.unpublished == 1)
        assert kept(tmp_path) == [("both", KITCHEN, encode(mine.message))]
        first.believes, second.believes = False, True
        async with serving(second.part):
            # What was left is the successor's now, whose connection brings it again.
            await within(lambda: len(watcher.payloads(KITCHEN)) == 2)
            await second.part.shell.offer(late)
            await within(lambda: watcher.payloads(KITCHEN)[2:] == [encode(late.message)])
            # Time goes by for both; who has no turn erases nothing and forgets.
            first.part.now_ms += 120_000
            assert first.part.shell.ledger is not None
            ledger = first.part.shell.ledger
            await within(lambda: len(ledger) == 0)
            assert kept(tmp_path) == [("both", KITCHEN, encode(late.message))]
            assert len(watcher.payloads(KITCHEN)) == 3
            second.part.now_ms += 120_000
            await within(lambda: watcher.payloads(KITCHEN)[3:] == [b""])
            await within(lambda: kept(tmp_path) == [])


class Listener:
    """A core that notes what it is stepped with."""

    due_ms = 0

    def __init__(self) -> None:
        self.heard: list[str] = []

    def step(self, event: Any, _: int) -> Sequence[Any]:
        if isinstance(event, Connected):
            self.heard.append("connected")
        elif isinstance(event, Accepted):
            self.heard.append(event.message.meta.message_id)
        return ()

    def tick(self, _: int) -> Sequence[Any]:
        return ()


async def test_what_still_holds_is_known_again_before_anything_else_and_acknowledged_once_kept(
    broker: PlainBroker, tmp_path: Path
) -> None:
    messages = [driver(NOW_MS) for _ in range(4)]
    ids = [each.message.meta.message_id for each in messages]
    # The second takes the place of the first; the fourth is not to be kept.
    keys = dict(zip(ids, ("a", "a", "b", None), strict=True))

    def key_of(event: Accepted) -> str | None:
        return keys[event.message.meta.message_id]

    async def life(now_ms: int, *, talking: bool = True) -> Listener:
        core = Listener()
        async with Store(tmp_path / "part.db", (KEPT, REMEMBERED)) as store:
            memory = Memory(store, "part", key_of)
            part = Part(broker, store, now_ms, core=core, memory=memory)
            async with serving(part):
                await within(lambda: "connected" in core.heard)
                if talking:
                    for each in messages:
                        topic = each.address.topic
                        writer.post(Outgoing(topic, encode(each.message), qos=1))
                    await within(lambda: core.heard[1:] == ids)
                    await within(lambda: broker.log().count("Received PUBACK from part") == 4)
        return core

    writer = Session("writer", "core", broker.address)
    async with running(writer):
        await life(NOW_MS)
        assert rows(tmp_path, "SELECT key FROM bus_memory ORDER BY 1") == [("a",), ("b",)]
        assert (await life(NOW_MS, talking=False)).heard == [ids[1], ids[2], "connected"]
        assert (await life(NOW_MS + 3_600_000, talking=False)).heard == ["connected"]


class Answerer(Listener):
    """A core that says something to each packet."""

    def step(self, event: Any, now_ms: int) -> Sequence[Any]:
        super().step(event, now_ms)
        return [alert("kitchen")] if isinstance(event, Accepted) else ()


async def test_a_packet_is_acknowledged_once_the_broker_has_what_it_caused(
    broker: PlainBroker, tmp_path: Path
) -> None:
    core = Answerer()
    writer = Session("writer", "core", broker.address)
    async with Store(tmp_path / "part.db", (KEPT,)) as store, bending(broker.address) as proxy:
        through: Any = proxy
        async with running(writer), serving(Part(through, store, core=core)):
            # It takes the answer, and its word of that gets lost.
            proxy.bend = lambda kind, packet: None if kind == PUBACK else packet
            message = driver(NOW_MS)
            await writer.publish(message.address.topic, encode(message.message), qos=1)
            await within(lambda: "Received PUBLISH from part" in broker.log())
            await writer.publish("t/x", b"what part said before has been read by now", qos=1)
            assert "Received PUBACK from part" not in broker.log()


async def test_more_than_it_may_keep_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "limit", 2)
    async with Store(tmp_path / "part.db", (REMEMBERED,)) as store:
        memory = Memory(store, "part", lambda event: event.message.meta.message_id)
        events = [judged(driver(NOW_MS), NOW_MS) for _ in range(4)]
        kept = [memory.key(each, NOW_MS) for each in events[:3]]
        assert [key is not None for key in kept] == [True, True, False]
        assert memory.missed == 1
        # What has ended makes room.
        assert memory.key(events[3], NOW_MS + 3_600_000) is not None
