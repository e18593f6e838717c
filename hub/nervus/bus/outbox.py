"""Messages on their way to the broker: bounded, in order, the lowest priority shed first."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from nervus.bus.errors import PublishError

Done = Callable[[PublishError | None], None]

_RANKS = {"background": 0, "normal": 1, "critical": 2, "control": 3}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for the broker.

    Args:
        topic: Where it goes.
        payload: Its bytes.
        qos: 0 or 1.
        retain: Whether the broker keeps it.
        priority: One of the wire's four priorities.
        expires_ms: When its life ends, unix milliseconds; None if it does not.
        done: Called once: with None when the broker has it, or with what went wrong.
        heard: Whether it went wrong when the broker has nobody to give it to.
        awaited: Whether who waits for `done` says what a refusal means: the log then does not.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    priority: str = "normal"
    expires_ms: int | None = None
    done: Done | None = None
    heard: bool = False
    awaited: bool = False

    def finish(self, error: PublishError | None) -> None:
        """Tell whoever asked how it went."""
        if self.done is not None:
            self.done(error)


class Outbox:
    """A bounded queue that keeps order and sheds the oldest of the lowest priority."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._next = 0
        self._first = -1
        self._entries: OrderedDict[int, Outgoing] = OrderedDict()
        self._by_rank: tuple[deque[int], ...] = tuple(deque() for _ in _RANKS)

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, message: Outgoing) -> Outgoing | None:
        """Add a message at the end; returns the one that was shed for it, if any."""
        self._entries[self._next] = message
        self._by_rank[_RANKS[message.priority]].append(self._next)
        self._next += 1
        return self._shed()

    def put_back(self, message: Outgoing) -> Outgoing | None:
        """Add a message at the front, to be sent again; returns the one shed for it, if any."""
        self._entries[self._first] = message
        self._entries.move_to_end(self._first, last=False)
        self._by_rank[_RANKS[message.priority]].appendleft(self._first)
        self._first -= 1
        return self._shed()

    def pop(self) -> Outgoing:
        """Take the message at the front; raises KeyError when there is none."""
        _, message = self._entries.popitem(last=False)
        # In order overall means first of its own priority, too.
        self._by_rank[_RANKS[message.priority]].popleft()
        return message

    def _shed(self) -> Outgoing | None:
        if len(self._entries) <= self._limit:
            return None
        lowest = next(rank for rank in self._by_rank if rank)
        return self._entries.pop(lowest.popleft())
