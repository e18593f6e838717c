"""Tasks that are cancelled and waited for."""

import asyncio
from contextlib import suppress

import pytest

from nervus.tasks import cancel_and_wait


async def forever() -> None:
    await asyncio.Event().wait()


async def test_all_have_ended_when_it_returns_also_one_that_takes_its_time() -> None:
    async def slow() -> None:
        with suppress(asyncio.CancelledError):
            await forever()
        for _ in range(3):
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(slow()), asyncio.create_task(forever())]
    await asyncio.sleep(0)
    await cancel_and_wait(*tasks)
    assert [task.done() for task in tasks] == [True, True]


async def test_what_one_failed_with_is_raised_once_all_have_ended() -> None:
    async def fail() -> None:
        raise LookupError("lost")

    tasks = [asyncio.create_task(forever()), asyncio.create_task(fail())]
    await asyncio.sleep(0)
    with pytest.raises(LookupError, match="lost"):
        await cancel_and_wait(*tasks)
    assert tasks[0].cancelled()


async def test_whoever_waits_can_be_cancelled_too() -> None:
    end = asyncio.Event()

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await forever()
        await end.wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait(task))
    # Once for it to cancel, once for the task to take that.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not task.done()
    end.set()
    await task
