"""What is shed when more comes than is worth relaying: the lowest priority first, control never."""

from collections import Counter
from typing import Final

from nervus.thalamus.gate import Priority
from nervus.thalamus.lease import Scope
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire.bucket import TokenBucket

LEAST: Final[dict[Priority, float]] = {"background": 0.5, "normal": 0.0, "critical": -1.0}
"""Which share of a budget each priority leaves to those above it. Control asks nobody."""


class Admission:
    """A budget of drivers for each scope, and one for all.

    Background gives way when half of a budget is spent, normal when all of it is; critical may
    overdraw it by as much again; control always passes and costs nothing. So a flood in one scope
    takes nothing from another, and a flood of one priority nothing from a higher one.
    """

    def __init__(self, settings: ThalamusSettings) -> None:
        self.shed: Counter[Priority] = Counter()
        self._settings = settings
        self._all: TokenBucket | None = None
        self._scopes: dict[Scope, TokenBucket] = {}

    def admits(self, scope: Scope, priority: Priority, now_ms: int) -> bool:
        """Whether a driver is taken; counts it in `shed` if not."""
        if priority == "control":
            return True
        settings = self._settings
        if self._all is None:
            self._all = TokenBucket(settings.relay_rate, settings.relay_burst, now_ms)
        bucket = self._scopes.get(scope)
        if bucket is None and len(self._scopes) < settings.stream_limit:
            bucket = TokenBucket(settings.scope_rate, settings.scope_burst, now_ms)
            self._scopes[scope] = bucket
        least = LEAST[priority]
        # Without room for a budget of its own, a scope has what all have together.
        if (bucket is None or bucket.take(now_ms, least)) and self._all.take(now_ms, least):
            return True
        self.shed[priority] += 1
        return False

    def forget(self, now_ms: int) -> None:
        """Forget the budgets nothing was taken from for long enough to be whole again."""
        for scope in [s for s, one in self._scopes.items() if one.whole(now_ms)]:
            del self._scopes[scope]
