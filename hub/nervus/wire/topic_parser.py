"""From a topic string back to its row and levels."""

from functools import lru_cache

from nervus.wire.topic import Address, LevelError, TopicSpec, unlevel
from nervus.wire.topics import TOPICS

_Shape = tuple[TopicSpec, tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]


@lru_cache(maxsize=16384)
def parse(topic: str) -> Address | None:
    """The address of a topic, or None when topics.json has no such topic."""
    parts = topic.split("/")
    for spec, literals, variables in _SHAPES.get((len(parts), *parts[1:3]), ()):
        if all(parts[index] == text for index, text in literals):
            try:
                levels = {name: unlevel(parts[index]) for index, name in variables}
            except LevelError:
                return None
            return Address(spec, topic, levels)
    return None


def is_legacy(topic: str) -> bool:
    """Whether the topic is one of the older forms without `event` or `state` (K-1)."""
    parts = topic.split("/")
    return parts[:1] == [""] and tuple(parts[1:3]) in _BRANCHES and parts[3:4] not in _LIFECYCLES


def _shapes() -> dict[tuple[int | str, ...], list[_Shape]]:
    shapes: dict[tuple[int | str, ...], list[_Shape]] = {}
    for spec in TOPICS:
        parts = list(enumerate(spec.template.split("/")))
        literals = tuple((i, part) for i, part in parts if part[:1] != "{")
        variables = tuple((i, part[1:-1]) for i, part in parts if part[:1] == "{")
        shapes.setdefault((len(parts), *(part for _, part in parts[1:3])), []).append(
            (spec, literals, variables)
        )
    return shapes


_SHAPES = _shapes()
_BRANCHES = {tuple(spec.template.split("/")[1:3]) for spec in TOPICS}
_LIFECYCLES = (["event"], ["state"])
