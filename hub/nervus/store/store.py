"""One writer thread, and as many writes to a commit as are waiting."""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from nervus.store.database import open_reader, open_writer, own, unusable
from nervus.store.errors import StoreClosedError, StoreError, StoreFullError

T = TypeVar("T")

QUEUE_LIMIT: Final = 4_096
GROUP_LIMIT: Final = 512


@dataclass(slots=True)
class StoreCounters:
    """What a store has done since it was opened."""

    writes: int = 0
    failed: int = 0
    commits: int = 0
    largest_group: int = 0


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Store:
    """A database of one process.

    WAL and synchronous=FULL: a commit is on the disk before it is answered. Writes that wait while
    a commit runs become one transaction (group commit), each in its own savepoint, so that one
    failing job fails alone. SQL is kept portable.

    Args:
        path: The database file; its folder exists.
        schema: One script for each schema version, oldest first.
        queue_limit: Writes that may wait.
        deadline_s: Longest wait for a place in the queue.
        shared: Other processes write it too, each in short transactions; only to agree on
            something, as on a lease.
        gather_s: How long a commit waits for further writes to share it.

    Raises:
        StoreError: It cannot be opened, or another process has it.
    """

    def __init__(
        self,
        path: Path,
        schema: Sequence[str] = (),
        *,
        queue_limit: int = QUEUE_LIMIT,
        deadline_s: float = 5.0,
        shared: bool = False,
        gather_s: float = 0.0,
    ) -> None:
        self.path = path
        self.counters = StoreCounters()
        self._deadline_s = deadline_s
        self._gather_s = gather_s
        self._lock = own(path, wait=shared)
        try:
            self._connection = open_writer(path, schema)
        except StoreError:
            os.close(self._lock)
            raise
        if shared:
            # It was only to keep two processes from creating the same tables.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._reader = open_reader(path)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix=f"read {path.name}")
        self._places = asyncio.Semaphore(queue_limit)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._closing = threading.Event()
        self._writer = threading.Thread(
            target=self._write_all, name=f"write {path.name}", daemon=True
        )
        self._writer.start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction; returns its result once that is durable.

        `work` runs in the writer thread, after the writes that were asked for before it. It holds
        no BEGIN or COMMIT and keeps nothing but values.

        Raises:
            StoreFullError: No place in the queue by the deadline; nothing was written.
            StoreClosedError: The store is closed; nothing was written.
            StoreError: The commit failed; nothing was written.
            Exception: Whatever `work` raised; nothing of it was written.
        """
        if self._places.locked():
            await self._wait_for_place()
        else:
            # Nearly always: there is a place, and to take it needs no deadline.
            await self._places.acquire()
        if self._closed:
            self._places.release()
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        job.done.add_done_callback(lambda _: self._places.release())
        self._jobs.put(job)
        result: T = await job.done
        return result

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a read-only connection; sees every write that returned before.

        Raises:
            StoreClosedError: The store is closed.
            Exception: Whatever `work` raised.
        """
        if self._closed:
            raise self._closed_error()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, work, self._reader)

    async def close(self) -> None:
        """Finish what waits, then close. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._closing.set()
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._reader.close()
        self._connection.close()
        os.close(self._lock)

    async def _wait_for_place(self) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise StoreFullError(
                f"no write was done for {self._deadline_s:g} s",
                where=str(self.path),
                hint="is the disk full or failing?",
            ) from error

    def _closed_error(self) -> StoreClosedError:
        return StoreClosedError("the store is closed", where=str(self.path))

    def _write_all(self) -> None:
        while (first := self._jobs.get()) is not None:
            group = [first]
            last = self._gather(group)
            self._write_group(group)
            if last:
                return

    def _gather(self, group: list[_Job]) -> bool:
        """Add what waits or comes in time; returns whether the store closes after it."""
        if self._gather_s and self._jobs.qsize() < GROUP_LIMIT:
            # Woken for each that comes, this thread would take the loop's time from it.
            self._closing.wait(self._gather_s)
        while len(group) < GROUP_LIMIT:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return False
            if job is None:
                return True
            group.append(job)
        return False

    def _write_group(self, group: list[_Job]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                self._write_one(connection, job)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            lost = unusable("the transaction failed", self.path, error)
            for job in group:
                job.error = job.error or lost
        else:
            self.counters.commits += 1
            self.counters.largest_group = max(self.counters.largest_group, len(group))
        self.counters.writes += sum(job.error is None for job in group)
        self.counters.failed += sum(job.error is not None for job in group)
        _answer(group)

    @staticmethod
    def _write_one(connection: sqlite3.Connection, job: _Job) -> None:
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(connection)
        except BaseException as error:  # noqa: BLE001  handed to whoever asked for the write
            job.error = error
            # Some errors (disk full) have ended the whole transaction: then this raises, and the
            # group fails together.
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")


def _answer(group: list[_Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        # A loop that has ended has nobody waiting.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, jobs)


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.done.done():
            continue
        if job.error is not None:
            job.done.set_exception(job.error)
        else:
            job.done.set_result(job.result)
