"""Shards: several services of a kind, each the only owner of its scopes, by a static map."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nervus.bus.address import Filter, subscriptions
from nervus.wire import TopicSpec
from nervus.wire.topic_parser import parse


def numbered(name: str, number: int) -> str:
    """Return the name of one of several of a kind: relay, relay-1 and so on."""
    return f"{name}-{number}" if number else name


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several services of a kind.

    Each shard but the first owns the scopes that the map names for it; the first owns all others.
    Every scope has exactly one owner, whichever shards run.

    Args:
        number: Which; 0 is the first.
        scopes: What each shard after the first owns, as level/name.
    """

    number: int = 0
    scopes: tuple[frozenset[str], ...] = ()

    def owns(self, scope: str) -> bool:
        """Whether a scope, as level/name, is this shard's."""
        if self.number:
            return scope in self.scopes[self.number - 1]
        return not any(scope in owned for owned in self.scopes)

    def filters(self, specs: Iterable[TopicSpec]) -> list[Filter]:
        """What to subscribe to, so that the broker sends no more than it has to.

        For each topic with a scope one filter for each scope it owns; the first shard, and topics
        without a scope, take a wildcard: `wants` then says what is its own.
        """
        filters: list[Filter] = []
        for spec in specs:
            if not self.number or "scope" not in spec.variables:
                filters += subscriptions([spec])
                continue
            for scope in sorted(self.scopes[self.number - 1]):
                level, _, name = scope.partition("/")
                filters += subscriptions([spec], scope_level=level, scope=name)
        return filters

    def wants(
        self, specs: Sequence[TopicSpec], granted: Callable[[str], str | None] = lambda _: None
    ) -> Callable[[str], bool] | None:
        """What tells by its topic whether a message is this shard's; None if all are.

        Args:
            specs: The topics that are shared out among the shards; all others are everybody's.
            granted: The scope of a device, for topics that name a device and no scope.
        """
        if not self.scopes:
            return None
        names = {spec.name for spec in specs}

        def wanted(topic: str) -> bool:
            address = parse(topic)
            if address is None or address.spec.name not in names:
                # What is no topic at all, the first refuses, so that it is refused once.
                return address is not None or not self.number
            levels = address.levels
            if "scope" in levels:
                return self.owns(f"{levels['scope_level']}/{levels['scope']}")
            return self.owns(granted(levels["device_id"]) or f"device/{levels['device_id']}")

        return wanted
