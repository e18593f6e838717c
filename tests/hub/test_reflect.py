"""Reflect: what was rejected is kept, counted, bounded, and readable from outside."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hub.command_inputs import NOW_MS, judged
from nervus.bus import KEPT
from nervus.reflect import (
    EraseRetained,
    Keep,
    NoQuarantineError,
    Quarantine,
    Reflect,
    ReflectSettings,
    service,
)
from nervus.reflect.quarantine import ONCE, SCHEMA, QuarantineError, keep
from nervus.runtime.services import ServiceContext
from nervus.store import Store
from nervus.wire import Accepted, Connected, Mint, Publish, topics
from nervus.wire.contracts import InputRef, RejectEvent, RejectEventPayload
from nervus.wire.times import NEVER
from support import DEADLINE_S, House
from system.command_clients import Client, beside, now_ms, until

MINT = Mint("brainstem", "brainstem", seed=1, boot=1)


def reject(source: str | None = "device:b1", **fields: Any) -> Publish:
    payload = RejectEventPayload(
        reason_code="schema_invalid",
        stage="schema",
        input_ref=InputRef(source=source, source_topic="/sc/x", contract="AfferentSignal"),
        observed_at=NOW_MS,
        **fields,
    )
    publish = MINT.full(RejectEvent, topics.reject("house", "home"), payload, NOW_MS)
    return Publish(publish.address, publish.message, publish.expiry_ms, "core")


def event(*arguments: Any, **fields: Any) -> Accepted:
    return judged(reject(*arguments, **fields), NOW_MS)


@pytest.fixture
def database(tmp_path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(tmp_path / "reflect.db", isolation_level=None)
    database.executescript(f"{SCHEMA}{ONCE}; PRAGMA user_version = 2")
    return database


@pytest.mark.req("S0-7")
def test_a_reject_is_kept_with_all_that_was_told_of_it(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    core = Reflect(ReflectSettings())
    fields = {"reason": "payload.value", "sample": "{}", "sha256": "0" * 64}
    (effect,) = core.step(event(count=7, window_ms=5_000, **fields), NOW_MS)
    assert isinstance(effect, Keep)
    assert core.tick(NOW_MS) == []
    keep(database, effect.rejects, effect.limit)
    with Quarantine.open(tmp_path / "reflect.db") as quarantine:
        (kept,) = quarantine.latest(10)
        assert quarantine.counts() == {"schema_invalid": 7}
        assert quarantine.counts_by_source() == {"device:b1": 7}
        assert quarantine.counts(since_ms=NOW_MS + 1) == {}
    assert (kept.source, kept.reporter, kept.count) == ("device:b1", "brainstem", 7)
    assert (kept.reason, kept.sample, kept.sha256) == tuple(fields.values())
    assert (kept.source_topic, kept.contract, kept.window_ms) == ("/sc/x", "AfferentSignal", 5_000)


def test_what_a_reporter_tells_again_is_one_row_and_what_is_alike_is_not(
    database: sqlite3.Connection, tmp_path: Path
) -> None:
    first, alike = event(), event()
    for told in (first, alike, first):
        # Each time another core: one that crashed remembers nothing.
        (effect,) = Reflect(ReflectSettings()).step(told, NOW_MS)
        assert isinstance(effect, Keep)
        keep(database, effect.rejects, effect.limit)
    with Quarantine.open(tmp_path / "reflect.db") as quarantine:
        assert quarantine.counts() == {"schema_invalid": 2}


async def test_an_older_quarantine_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "reflect.db"
    (effect,) = Reflect(ReflectSettings()).step(event(), NOW_MS)
    async with Store(path, (SCHEMA,)) as store:
        old = (
            "INSERT INTO rejects (received_ms, reason_code, stage, count, reporter)"
            " VALUES (1, 'x', 's', 3, 'r')"
        )
        await store.write(lambda connection: connection.execute(old) and None)
    async with Store(path, (SCHEMA, KEPT, ONCE)) as store:
        assert isinstance(effect, Keep)
        await store.write(lambda connection: keep(connection, effect.rejects, effect.limit))
    assert _counts(path) == {"x": 3, "schema_invalid": 1}


def test_the_oldest_rows_go_first(database: sqlite3.Connection, tmp_path: Path) -> None:
    core = Reflect(ReflectSettings())
    for number in range(5):
        for effect in core.step(event(f"device:b{number}"), NOW_MS + number):
            assert isinstance(effect, Keep)
            keep(database, effect.rejects, limit=2)
    with Quarantine.open(tmp_path / "reflect.db") as quarantine:
        assert [each.source for each in quarantine.latest(9)] == ["device:b4", "device:b3"]


def test_invented_sources_cost_no_memory() -> None:
    core = Reflect(ReflectSettings())
    for number in range(1_500):
        core.step(event(f"device:{number}"), NOW_MS)
    assert len(core.sources) <= 1_025
    assert core.sources["*"] == 1_500 - 1_024
    assert core.reasons["schema_invalid"] == 1_500


def retained(topic: str) -> Accepted:
    payload = RejectEventPayload(
        reason_code="retained_event",
        stage="topic",
        input_ref=InputRef(source_topic=topic),
        observed_at=NOW_MS,
    )
    publish = MINT.full(RejectEvent, topics.reject("house", "home"), payload, NOW_MS)
    return judged(Publish(publish.address, publish.message, publish.expiry_ms, "core"), NOW_MS)


@pytest.mark.req("S0-18")
def test_events_that_were_retained_are_erased_now_and_then_by_topic() -> None:
    core = Reflect(ReflectSettings())
    for room in ("hall", "kitchen"):
        core.step(retained(topics.afferent("room", room, "motion", "b1").topic), NOW_MS)
    core.step(retained("/not/ours"), NOW_MS)
    assert core.due_ms <= NOW_MS
    assert core.tick(NOW_MS) == [EraseRetained((topics.AFFERENT,))]
    assert core.due_ms == NEVER
    core.step(retained(topics.ping("b1").topic), NOW_MS + 1)
    assert core.due_ms == NOW_MS + 10_000
    assert core.tick(NOW_MS + 9_999) == []
    assert core.tick(NOW_MS + 10_000) == [EraseRetained((topics.PING,))]


def test_a_reject_without_a_source_is_counted_and_a_connection_is_not() -> None:
    core = Reflect(ReflectSettings())
    assert core.step(Connected("core"), NOW_MS) == []
    core.step(event(None), NOW_MS)
    assert core.sources == {"": 1}


def test_a_quarantine_that_is_not_there_or_not_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "reflect.db"
    with pytest.raises(NoQuarantineError, match="no quarantine yet"):
        Quarantine.open(path)
    # As reflect leaves it for the moment between making the file and what is in it.
    path.touch()
    with pytest.raises(NoQuarantineError, match="no quarantine yet"):
        Quarantine.open(path)
    path.write_bytes(b"not a database")
    with pytest.raises(QuarantineError, match="not a database"):
        Quarantine.open(path)


@pytest.mark.req("S0-7")
async def test_rejects_of_both_brokers_reach_the_store_and_a_bad_one_causes_no_other(
    running_house: House,
) -> None:
    house, ready = running_house, asyncio.Event()
    house.authority.issue("reflect", "reflect")
    house.authority.issue("b1", "board", "room/kitchen")
    house.join("brainstem", "brainstem")
    context = ServiceContext("reflect", house.settings, house.state, 1, 1, ready.set)
    hub, board = Client(house, "brainstem", "core"), Client(house, "b1", "spinal")
    board_mint = Mint("device:b1", "spinal", seed=3, boot=1)
    payload = reject().message.payload.model_copy(update={"reason_code": "decode_error"})
    async with beside(service.run(context), hub.session.run(), board.session.run()):
        for waited in (ready.wait(), hub.session.wait_connected(), board.session.wait_connected()):
            async with asyncio.timeout(DEADLINE_S):
                await waited
        fresh = Mint("brainstem", "brainstem", seed=4, boot=1)
        address = topics.reject("house", "home")
        good = fresh.full(RejectEvent, address, reject().message.payload, now_ms())
        hub.send(good)
        hub.send(good)
        address = topics.reject("device", "b1")
        board.send(board_mint.compact(RejectEvent, address, payload, now_ms()))
        path = house.state.data / "reflect.db"
        await until(lambda: len(_counts(path)) == 2)
        await asyncio.sleep(0.5)
    # The second copy was a duplicate: refused, and nothing was made of that.
    assert _counts(path) == {"decode_error": 1, "schema_invalid": 1}


def _counts(path: Path) -> dict[str, int]:
    with Quarantine.open(path) as quarantine:
        return quarantine.counts()
