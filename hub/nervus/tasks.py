"""Tasks that are ended by whoever started them."""

import asyncio
from typing import Any


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel one or more tasks, and return once all of them have ended.

    Raises:
        Exception: What the first of them failed with, if one did.
    """
    for task in tasks:
        task.cancel()
    # Not `await task` with its CancelledError suppressed: that might be our own.
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
