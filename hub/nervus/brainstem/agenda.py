"""What falls due when: the only place where the core keeps time."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from nervus.wire import Publish, Release
from nervus.wire.times import NEVER

Due = Publish | Release
Action = Callable[[Any, int], Sequence[Due]]


class Agenda:
    """Actions by due time; equals in the order they were put down, so a replay takes it too.

    An action is called with its subject and the time it is now, which may be later than it was
    due. What became pointless meanwhile is its own to notice.
    """

    def __init__(self) -> None:
        self.next_ms = NEVER
        self._heap: list[tuple[int, int, Action, Any]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, due_ms: int, action: Action, subject: Any) -> None:
        """Call `action(subject, now_ms)` once it is `due_ms`."""
        self._number += 1
        heappush(self._heap, (due_ms, self._number, action, subject))
        self.next_ms = self._heap[0][0]

    def run(self, now_ms: int) -> list[Due]:
        """Do all that is due at `now_ms`; returns what comes of it."""
        effects: list[Due] = []
        while self.next_ms <= now_ms:
            _, _, action, subject = heappop(self._heap)
            self.next_ms = self._heap[0][0] if self._heap else NEVER
            effects += action(subject, now_ms)
        return effects
