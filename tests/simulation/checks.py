"""What the rules of all planes share: how one is held, and what is said when it does not hold."""

from collections import Counter
from collections.abc import Mapping

from nervus.wire import Accepted, Removed

Scope = tuple[str, str]
"""scope_level and scope."""

Target = tuple[str, str]
"""target_kind and target_id."""


class Violation(AssertionError):  # noqa: N818  what failed, in its own words
    """An invariant does not hold."""


class Checks:
    """Counts what was held; raises `Violation` at the first that does not."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def hold(self, name: str, holds: object, *about: object) -> None:
        """A rule holds; `about` is told where it does not."""
        self.counts[name] += 1
        if not holds:
            raise Violation(f"{name}: {' '.join(map(str, about))}")


def scope_of(event: Accepted | Removed) -> Scope:
    """The scope of a topic."""
    levels: Mapping[str, str] = event.address.levels
    return levels["scope_level"], levels["scope"]


def target_of(event: Accepted | Removed) -> Target:
    """What a gate or a proposal is about."""
    levels: Mapping[str, str] = event.address.levels
    return levels["target_kind"], levels["target_id"]
