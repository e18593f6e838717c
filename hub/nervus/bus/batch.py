"""What a step leaves to be done: committed, then published, then acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from nervus.bus.session import Delivery
from nervus.wire import Hold, Packet, Publish, Release


@dataclass(slots=True)
class ShellCounters:
    """What a shell has done since it was made.

    `unheld` packets were acknowledged before what comes of them was out: too many were held.
    """

    packets: int = 0
    steps: int = 0
    rejected: int = 0
    dropped: int = 0
    published: int = 0
    unpublished: int = 0
    commits: int = 0
    unheld: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step had as effects, and the packet it was stepped with.

    `commit` gives the topics of states that are another's by now, and not to be published.
    `released` are packets of steps before, held until what this one publishes is out.
    """

    commit: asyncio.Future[Collection[str]] | None
    publishes: tuple[Publish, ...]
    delivery: Delivery | None
    released: Sequence[Packet] = ()


class Unacknowledged:
    """Packets that are not acknowledged yet, for what they cause is not out.

    A part that is killed before has neither acknowledged nor lost them: they come again. Those of
    a connection that broke come again to the part that lives: a copy takes the place of the first.

    Args:
        limit: How many may be held for a later step; each takes a place among those that a broker
            sends at once.
    """

    def __init__(self, limit: int, counters: ShellCounters) -> None:
        self._limit = limit
        self._counters = counters
        self._waiting: dict[Packet, Delivery] = {}
        self._held: dict[int, list[Packet]] = {}
        self._holding = 0

    def take(
        self, effect: Hold | Release, delivery: Delivery | None, released: list[Packet]
    ) -> Delivery | None:
        """Hold a packet, or add to `released` what was held.

        Returns:
            What is to be acknowledged with the step: nothing of it when it is held.
        """
        if isinstance(effect, Release):
            released += self._release(effect.number)
        elif delivery is not None and delivery.qos and self._hold(effect.number, delivery):
            return None
        return delivery

    def _hold(self, number: int, delivery: Delivery) -> bool:
        if self._holding >= self._limit:
            self._counters.unheld += 1
            return False
        self._holding += 1
        self._held.setdefault(number, []).append(delivery.packet)
        self._wait(delivery)
        return True

    def _release(self, number: int) -> list[Packet]:
        released = self._held.pop(number, [])
        self._holding -= len(released)
        return released

    def until(
        self, messages: int, delivery: Delivery | None, released: Sequence[Packet]
    ) -> "Confirmations":
        """Settle a packet, and what it releases, once it is known of so many how that went."""
        if delivery is None:
            return Confirmations(self, messages, released)
        self._wait(delivery)
        return Confirmations(self, messages, (delivery.packet, *released))

    def settle(self, packets: Sequence[Packet]) -> None:
        """Acknowledge them, each as it came last."""
        for packet in packets:
            delivery = self._waiting.pop(packet, None)
            if delivery is not None:
                delivery.acknowledge()

    def renew(self, copy: Delivery) -> bool:
        """Take the copy of a packet in its place; False when that one does not wait any longer."""
        if copy.packet not in self._waiting:
            return False
        self._wait(copy)
        return True

    def _wait(self, delivery: Delivery) -> None:
        before = self._waiting.get(delivery.packet)
        if before is not None:
            before.acknowledge()
        self._waiting[delivery.packet] = delivery


class Confirmations:
    """Settles packets once it is known of each QoS 1 message they caused how that went."""

    __slots__ = ("_left", "_packets", "_unacknowledged")

    def __init__(
        self, unacknowledged: Unacknowledged, left: int, packets: Sequence[Packet]
    ) -> None:
        self._unacknowledged = unacknowledged
        self._left = left
        self._packets = packets

    def __call__(self, _: object) -> None:
        """Take the news of one message."""
        self._left -= 1
        if not self._left:
            self._unacknowledged.settle(self._packets)


async def durable(
    works: Sequence[Callable[[], Awaitable[object]]],
    record: Callable[[], Awaitable[Collection[str]]] | None,
) -> Collection[str]:
    """Do all of it; returns the topics of states that are another's by now.

    What is cancelled before it began has begun none of it.
    """
    if record is None:
        if len(works) == 1:
            # Nearly always; to gather it would be a task more.
            await works[0]()
        else:
            await asyncio.gather(*(work() for work in works))
        return ()
    recorded = asyncio.ensure_future(record())
    await asyncio.gather(recorded, *(work() for work in works))
    return recorded.result()
