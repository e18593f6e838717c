"""The store: what returned is on the disk, what failed failed alone."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from nervus.store import Store, StoreClosedError, StoreError, StoreFullError

SCHEMA = ["CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"]


def insert(number: int, text: str = "x") -> object:
    return lambda connection: (
        connection.execute("INSERT INTO item (id, text) VALUES (?, ?)", (number, text)).lastrowid
    )


def count(connection: sqlite3.Connection) -> int:
    (rows,) = connection.execute("SELECT count(*) FROM item").fetchone()
    return int(rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plane.db"


async def test_a_write_returns_its_result_and_is_read_at_once(path: Path) -> None:
    async with Store(path, SCHEMA) as store:
        assert await store.write(insert(7)) == 7
        assert await store.read(count) == 1


async def test_the_database_is_durable_and_private(path: Path) -> None:
    async with Store(path, SCHEMA) as store:
        assert await store.write(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
        assert await store.write(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)
        await store.write(insert(1))
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "plane.db-wal" in modes


async def test_writes_that_wait_are_committed_together(path: Path) -> None:
    async with Store(path, SCHEMA) as store:
        entered, release = threading.Event(), threading.Event()

        def slow(_: sqlite3.Connection) -> None:
            entered.set()
            assert release.wait(5)

        first = asyncio.create_task(store.write(slow))
        await asyncio.to_thread(entered.wait, 5)
        rest = [asyncio.create_task(store.write(insert(n))) for n in range(200)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, *rest)
        assert store.counters.writes == 201
        assert store.counters.commits == 2
        assert store.counters.largest_group == 200
        assert await store.read(count) == 200


async def test_what_comes_while_a_commit_gathers_shares_it(path: Path) -> None:
    async with Store(path, SCHEMA, gather_s=1.0) as store:
        gathers, go_on, waits = threading.Event(), threading.Event(), list[float | None]()

        def wait(timeout: float | None = None) -> bool:
            waits.append(timeout)
            gathers.set()
            return go_on.wait(5)

        store._closing.wait = wait  # type: ignore[method-assign]
        first = asyncio.create_task(store.write(insert(1)))
        # By itself the first would be on the disk by now.
        assert await asyncio.to_thread(gathers.wait, 5)
        second = asyncio.create_task(store.write(insert(2)))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, second)
        assert waits == [1.0]
        assert (store.counters.commits, store.counters.largest_group) == (1, 2)


async def test_closing_ends_the_gathering_and_loses_nothing(path: Path) -> None:
    async with asyncio.timeout(10), Store(path, SCHEMA, gather_s=60.0) as store:
        written = asyncio.create_task(store.write(insert(1)))
        await asyncio.wait([written], timeout=0.1)
    await written
    assert store.counters.commits == 1


async def test_a_job_that_fails_fails_alone(path: Path) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO item VALUES (100, 'half')")
        raise LookupError("changed my mind")

    async with Store(path, SCHEMA) as store:
        results = await asyncio.gather(
            store.write(insert(1)),
            store.write(half_done),
            store.write(insert(1)),
            store.write(insert(2)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            int, LookupError, sqlite3.IntegrityError, int,
        ]  # fmt: skip
        ids = await store.read(lambda c: c.execute("SELECT id FROM item ORDER BY id").fetchall())
        assert ids == [(1,), (2,)]
        assert (store.counters.writes, store.counters.failed) == (2, 2)


async def test_a_group_whose_commit_fails_fails_together(path: Path) -> None:
    parent = "CREATE TABLE parent (id INTEGER PRIMARY KEY)"
    child = "CREATE TABLE child (p INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"
    async with Store(path, [*SCHEMA, f"{parent};{child}"]) as store:
        entered, release = threading.Event(), threading.Event()

        def slow(_: sqlite3.Connection) -> None:
            entered.set()
            assert release.wait(5)

        first = asyncio.create_task(store.write(slow))
        await asyncio.to_thread(entered.wait, 5)
        group = [
            asyncio.create_task(store.write(work))
            for work in (insert(1), lambda c: c.execute("INSERT INTO child VALUES (9)"))
        ]
        await asyncio.sleep(0)
        release.set()
        await first
        results = await asyncio.gather(*group, return_exceptions=True)
        assert [type(result) for result in results] == [StoreError, StoreError]
        assert await store.read(count) == 0
        assert await store.write(insert(2)) == 2


async def test_a_full_disk_is_told_to_everyone_who_waited_and_nothing_is_half_written(
    path: Path,
) -> None:
    async with Store(path, SCHEMA) as store:
        await store.write(lambda c: c.execute("PRAGMA max_page_count = 8"))
        results = await asyncio.gather(
            *(store.write(insert(n, "x" * 3_000)) for n in range(20)), return_exceptions=True
        )
        succeeded = sum(isinstance(result, int) for result in results)
        assert succeeded < 20
        assert await store.read(count) == succeeded
        await store.write(lambda c: c.execute("PRAGMA max_page_count = 1000"))
        assert await store.write(insert(100, "y" * 3_000)) == 100


async def test_a_full_queue_is_told_by_the_deadline(path: Path) -> None:
    async with Store(path, SCHEMA, queue_limit=1, deadline_s=0.05) as store:
        release = threading.Event()
        first = asyncio.create_task(store.write(lambda _: release.wait(5)))
        await asyncio.sleep(0)
        with pytest.raises(StoreFullError):
            await store.write(insert(1))
        release.set()
        assert await first is True
        assert await store.write(insert(1)) == 1


async def test_a_cancelled_wait_gives_its_place_back(path: Path) -> None:
    async with Store(path, SCHEMA, queue_limit=1) as store:
        waiting = asyncio.create_task(store.write(insert(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await store.write(insert(2)) == 2


async def test_closing_finishes_what_waits(path: Path) -> None:
    store = Store(path, SCHEMA)
    writes = [asyncio.create_task(store.write(insert(n))) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(await asyncio.gather(*writes)) == list(range(50))
    await store.close()
    with pytest.raises(StoreClosedError):
        await store.write(insert(99))
    with pytest.raises(StoreClosedError):
        await store.read(count)
    async with Store(path, SCHEMA) as again:
        assert await again.read(count) == 50


async def test_reading_cannot_write(path: Path) -> None:
    async with Store(path, SCHEMA) as store:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await store.read(insert(1))


async def test_a_newer_schema_is_applied_once_and_keeps_the_data(path: Path) -> None:
    async with Store(path, SCHEMA) as store:
        await store.write(insert(1, "kept"))
    newer = [*SCHEMA, "ALTER TABLE item ADD COLUMN color TEXT; CREATE INDEX c ON item (color)"]
    for _ in range(2):
        async with Store(path, newer) as store:
            row = await store.read(lambda c: c.execute("SELECT text, color FROM item").fetchone())
            assert row == ("kept", None)
    with pytest.raises(StoreError, match="newer version"):
        Store(path, SCHEMA)


async def test_a_migration_that_fails_leaves_the_old_schema(path: Path) -> None:
    async with Store(path, SCHEMA) as store:
        await store.write(insert(1))
    with pytest.raises(StoreError, match="nonsense"):
        Store(path, [*SCHEMA, "CREATE TABLE good (id INTEGER); nonsense"])
    async with Store(path, SCHEMA) as store:
        tables = await store.read(
            lambda c: c.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        )
        assert tables == [("item",)]


async def test_a_store_has_one_owner(path: Path) -> None:
    async with Store(path, SCHEMA):
        with pytest.raises(StoreError, match="another process"):
            Store(path, SCHEMA)


@pytest.mark.parametrize("spoil", [b"this is no database, but long enough to be read as one" * 9])
def test_a_damaged_database_is_told(path: Path, spoil: bytes) -> None:
    path.write_bytes(spoil)
    with pytest.raises(StoreError, match=r"cannot be used \(.*\); restore it from a backup"):
        Store(path, SCHEMA)


async def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be opened \(No such file.*nervus doctor"):
        Store(tmp_path / "nowhere" / "plane.db", SCHEMA)


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from nervus.store import Store

    async def write_on(store, worker):
        for number in range(worker, 10**9, 8):
            await store.write(lambda c: c.execute("INSERT INTO item VALUES (?, 'x')", (number,)))
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()

    async def main():
        schema = ["CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"]
        store = Store(Path(sys.argv[1]), schema)
        await asyncio.gather(*(write_on(store, worker) for worker in range(8)))

    asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(5))
def test_what_was_acknowledged_survives_sigkill(path: Path, seed: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.01, 0.3))  # noqa: S311  a moment
        writer.send_signal(signal.SIGKILL)
        output = first + writer.stdout.read()
    complete = output[: output.rfind(b"\n") + 1].split()
    assert len(complete) > 0
    assert {int(line) for line in complete} <= asyncio.run(sound_ids(path))


async def sound_ids(path: Path) -> set[int]:
    async with Store(path, SCHEMA) as store:
        assert await store.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
        return await store.read(lambda c: {n for (n,) in c.execute("SELECT id FROM item")})
