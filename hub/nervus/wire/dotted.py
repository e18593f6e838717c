"""Topics as dotted names, `domain.subdomain.verb`, for buses that name them so; and back."""

from nervus.wire.topic import Address, LevelError, level, unlevel
from nervus.wire.topics import TOPICS

_WORDS = 3


def dotted(address: Address) -> str:
    """The dotted name of a topic: what topics.json calls it, then its variable levels in order.

    `/E/outcome/event/room/kitchen/action/01J…` is `e.outcome.report.room.kitchen.01J…`. A level
    is encoded as in a topic, so it holds no dot.
    """
    return ".".join((address.spec.dotted, *map(level, address.levels.values())))


def undotted(name: str) -> Address | None:
    """The topic of a dotted name; None when topics.json has no such topic."""
    words = name.split(".")
    spec = _SPECS.get(".".join(words[:_WORDS]))
    if spec is None or len(words) - _WORDS != len(spec.variables):
        return None
    given = words[_WORDS:]
    try:
        levels = dict(zip(spec.variables, map(unlevel, given), strict=True))
    except LevelError:
        return None
    return Address(spec, spec.filter(**levels), levels)


_SPECS = {spec.dotted: spec for spec in TOPICS}
