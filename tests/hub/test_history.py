"""History: every message once, in order, without gaps, and only as much as is wanted."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.plane_inputs import NOW_MS, bundle_payload, gate, judged
from nervus.history import (
    Archive,
    ArchiveError,
    History,
    HistorySettings,
    Query,
    QueryError,
    Record,
    Trim,
)
from nervus.history.records import SCHEMA, record, trim
from nervus.wire import Accepted, Connected, Mint, Removed, cbor, topics
from nervus.wire.contracts import RelayBundle

RELAY = Mint("relay", "thalamus", seed=4, boot=1)
ALL = 1 << 62


def gated(now_ms: int = NOW_MS, scope: str = "kitchen", channel: str = "somatic") -> Accepted:
    address = topics.gated_relay("room", scope, channel)
    return judged(RELAY.full(RelayBundle, address, bundle_payload(channel=channel), now_ms), now_ms)


def rows(
    count: int, *, scope: str = "kitchen", at_ms: int = NOW_MS, size: int = 10
) -> list[Record]:
    return [
        Record("room", scope, at_ms + n, "RelayBundle", "somatic", "/th", "relay",
               f"{scope}{at_ms}{n}", f'{{"meta":{{}},"payload":"{"x" * size}"}}')
        for n in range(count)
    ]  # fmt: skip


class Table:
    """The tables on disk, with a transaction for each call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)

    def record(self, one: Record) -> int | None:
        return record(self.connection, one)

    def fill(self, *records: Record) -> list[int | None]:
        self.connection.execute("BEGIN")
        sequences = [self.record(one) for one in records]
        self.connection.execute("COMMIT")
        return sequences

    def get(self, **fields: Any) -> list[Any]:
        with Archive.open(self.path) as archive:
            return archive.get(Query.of(**fields))


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    one = Table(tmp_path / "history.db")
    yield one
    one.connection.close()


def test_a_message_becomes_one_record() -> None:
    core = History(HistorySettings())
    event = gated()
    (one,) = core.step(event, NOW_MS + 5)
    assert isinstance(one, Record)
    assert (one.scope_level, one.scope, one.channel) == ("room", "kitchen", "somatic")
    assert (one.source, one.message_id) == ("relay", event.message.meta.message_id)
    assert (one.recorded_ms, one.contract) == (NOW_MS + 5, "RelayBundle")
    assert RelayBundle.model_validate_json(one.message) == event.message


def test_a_record_holds_what_came_and_json_of_what_came_otherwise() -> None:
    core, event = History(HistorySettings()), gated()
    # Spelt as nobody here spells it, and as guard and query read it all the same.
    spaced = event._replace(data=event.data.replace(b'":', b'": '))
    bytes_of = cbor.dumps(event.message.model_dump(mode="json", exclude_none=True))
    (as_it_came,) = core.step(spaced, NOW_MS)
    (written_anew,) = core.step(event._replace(data=bytes_of), NOW_MS)
    assert isinstance(as_it_came, Record)
    assert isinstance(written_anew, Record)
    assert as_it_came.message == spaced.data.decode()
    assert json.loads(written_anew.message) == json.loads(as_it_came.message)


def test_a_state_without_a_channel_is_recorded_and_its_removal_counted() -> None:
    core = History(HistorySettings())
    state = gate(0.5)
    (one,) = core.step(state, NOW_MS)
    assert isinstance(one, Record)
    assert one.channel is None
    assert core.step(Removed(state.address, "core"), NOW_MS) == []
    assert core.step(Connected("core"), NOW_MS) == []
    assert (core.counters.messages, core.counters.removed) == (1, 1)


def test_trimming_is_asked_for_now_and_then() -> None:
    core = History(HistorySettings(keep_days=1, limit_mib=2, trim_ms=1_000, slice_rows=7))
    assert core.tick(NOW_MS) == [Trim(NOW_MS - 86_400_000, 2 << 20, 7)]
    assert core.tick(NOW_MS + 999) == []
    assert len(core.tick(NOW_MS + 1_000)) == 1


@pytest.mark.req("S4-41")
def test_the_sequence_rises_by_one_within_a_scope(table: Table) -> None:
    kitchen, hall = rows(3), rows(2, scope="hall")
    assert table.fill(kitchen[0], hall[0], kitchen[1], kitchen[2], hall[1]) == [1, 1, 2, 3, 2]


def test_what_comes_again_is_recorded_once_and_leaves_no_gap(table: Table) -> None:
    first, second = rows(2)
    assert table.fill(first, first, second, first) == [1, None, 2, None]
    assert [one.sequence for one in table.get()] == [1, 2]


def test_a_transaction_that_dies_gives_no_number_away(table: Table) -> None:
    first, second = rows(2)
    table.connection.execute("BEGIN")
    assert table.record(first) == 1
    table.connection.execute("ROLLBACK")
    assert table.fill(second) == [1]


def test_age_goes_in_slices_from_the_oldest(table: Table) -> None:
    table.fill(*rows(30))
    assert trim(table.connection, Trim(NOW_MS + 20, ALL, 8)) == 8
    assert trim(table.connection, Trim(NOW_MS + 20, ALL, 100)) == 12
    assert trim(table.connection, Trim(NOW_MS + 20, ALL, 100)) == 0
    assert [one.sequence for one in table.get()] == list(range(21, 31))


def test_a_clock_set_back_leaves_no_holes(table: Table) -> None:
    table.fill(*rows(5), *rows(5, at_ms=NOW_MS - 10_000))
    assert trim(table.connection, Trim(NOW_MS - 5_000, ALL, 100)) == 0
    assert [one.sequence for one in table.get()] == list(range(1, 11))


def test_size_goes_too_and_the_file_stops_growing(table: Table) -> None:
    wanted = Trim(0, 1 << 20, 200)
    for turn in range(40):
        table.fill(*rows(100, at_ms=NOW_MS + turn * 1_000, size=1_000))
        while trim(table.connection, wanted):
            pass
    (pages,) = table.connection.execute("PRAGMA page_count").fetchone()
    assert pages * 4_096 < 3 << 20
    left = [one.sequence for one in table.get(limit=10_000)]
    assert 100 < len(left) < 2_000
    assert left == list(range(4_001 - len(left), 4_001))


def test_no_number_is_given_twice_even_when_everything_went(table: Table) -> None:
    table.fill(*rows(3))
    assert trim(table.connection, Trim(ALL, ALL, 100)) == 3
    assert table.fill(*rows(1, at_ms=NOW_MS + 9)) == [4]


@pytest.mark.req("S4-43", "S4-44")
def test_a_query_returns_what_lies_strictly_inside(table: Table) -> None:
    table.fill(*rows(10))
    found = table.get(from_ms=NOW_MS + 3, to_ms=NOW_MS + 7)
    assert [one.recorded_ms - NOW_MS for one in found] == [3, 4, 5, 6]
    assert table.get(from_ms=NOW_MS + 10) == []


def test_a_query_narrows_by_scope_channel_and_contract(table: Table) -> None:
    core = History(HistorySettings())
    events = [gated(), gated(scope="hall"), gated(channel="auditory"), gate(0.5)]
    table.fill(*(one for event in events for one in core.step(event, NOW_MS)))  # type: ignore[misc]
    assert len(table.get()) == 4
    assert len(table.get(scope_level="room", scope="kitchen")) == 3
    assert [one.topic for one in table.get(channel="auditory")] == [events[2].address.topic]
    (state,) = table.get(contract="GateState")
    assert state.message["meta"]["sequence"] == 3
    assert state.message["payload"]["inhibition"] == 0.5


def test_pages_follow_each_other(table: Table) -> None:
    table.fill(*rows(25))
    with Archive.open(table.path) as archive:
        numbers = [one.sequence for one in archive.pages(Query.of(limit=10))]
        assert archive.last_number() == 25
    assert numbers == list(range(1, 26))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"from_ms": 5, "to_ms": 5}, "ends before it begins"),
        ({"limit": 10_001}, "limit: .*10000"),
        ({"from_ms": -1}, "from_ms"),
        ({"plane": "x"}, "plane: input should be 'bs', 'th', 'D', 'C' or 'E'"),
        ({"channel": "smell"}, "no channel 'smell'; one of auditory"),
        ({"contract": "Odor"}, "no contract 'Odor'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_impossible_query_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(QueryError, match=text):
        Query.of(**fields)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with pytest.raises(ArchiveError, match="nothing was recorded yet"):
        Archive.open(path)
    path.write_bytes(b"this is no database" * 100)
    with Archive.open(path) as archive:
        with pytest.raises(ArchiveError, match="cannot be read"):
            archive.get(Query.of())
        with pytest.raises(ArchiveError, match="cannot be read"):
            archive.last_number()
