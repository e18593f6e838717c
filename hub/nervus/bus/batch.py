"""What a step leaves to be done: committed, then published, then acknowledged."""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass

from nervus.bus.session import Delivery
from nervus.wire import Publish


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step had as effects, and the packet it was stepped with.

    `commit` gives the topics of states that are another's by now, and not to be published.
    """

    commit: asyncio.Future[Collection[str]] | None
    publishes: tuple[Publish, ...]
    delivery: Delivery | None


class Confirmations:
    """Acknowledges a packet once it is known of each QoS 1 message it caused how that went.

    A part that is killed before has neither acknowledged nor lost it: it comes again.
    """

    __slots__ = ("_delivery", "_left")

    def __init__(self, delivery: Delivery, left: int) -> None:
        self._delivery = delivery
        self._left = left

    def __call__(self, _: object) -> None:
        """Take the news of one message."""
        self._left -= 1
        if not self._left:
            self._delivery.acknowledge()


async def durable(
    works: Sequence[Awaitable[object]], record: Awaitable[Collection[str]] | None
) -> Collection[str]:
    """Wait for all of it; returns the topics of states that are another's by now."""
    if record is None:
        if len(works) == 1:
            # Nearly always; to gather it would be a task more.
            await works[0]
        else:
            await asyncio.gather(*works)
        return ()
    recorded = asyncio.ensure_future(record)
    await asyncio.gather(recorded, *works)
    return recorded.result()
