"""Topics as data: what a topic is, and how a value becomes a level of one."""

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

LEVEL_LIMIT = 64
_CONTROL = frozenset(map(chr, (*range(32), 127)))


class LevelError(ValueError):
    """A value cannot be a topic level: it is empty, or longer than 64 characters encoded."""


@dataclass(frozen=True, slots=True, eq=False)
class TopicSpec:
    """One row of topics.json; ttl_ms is what our own parts give a message to live."""

    name: str
    template: str
    dotted: str
    contract: str
    brokers: tuple[str, ...]
    retained: bool
    qos: int
    critical_qos: int
    expires: bool
    ttl_ms: int | None
    max_bytes: int
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    board_scope_is_device: bool = False
    spinal_publish: tuple[str, ...] | None = None

    def publishers(self, broker: str) -> tuple[str, ...]:
        """The roles that may publish on one broker."""
        if broker == "spinal" and self.spinal_publish is not None:
            return self.spinal_publish
        return self.publish

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the variable levels, in order."""
        return tuple(part[1:-1] for part in self.template.split("/") if part[:1] == "{")

    def filter(self, **levels: str) -> str:
        """The subscription filter: `+` for each variable level that is not given."""
        parts = [
            level(levels[part[1:-1]]) if part[1:-1] in levels else "+" if part[:1] == "{" else part
            for part in self.template.split("/")
        ]
        return "/".join(parts)


# Not frozen: each action has its own, and a frozen one takes thrice as long to make.
@dataclass(slots=True)
class Address:
    """A concrete topic: its row, its text, and its variable levels decoded."""

    spec: TopicSpec
    topic: str
    levels: dict[str, str]


@lru_cache(maxsize=4096)
def level(text: str) -> str:
    """Percent-encode a value as one topic level (`[A-Za-z0-9_:-]` stay); raises LevelError.

    As in the contracts, no ASCII control characters.
    """
    if not _CONTROL.isdisjoint(text):
        raise LevelError(f"{text!r}: a topic level has no control characters")
    # quote() also leaves '.' and '~', which brokers that people scale out to take amiss
    encoded = quote(text, safe=":").replace(".", "%2E").replace("~", "%7E")
    if not 1 <= len(encoded) <= LEVEL_LIMIT:
        raise LevelError(f"{text!r}: a topic level has 1 to {LEVEL_LIMIT} characters when encoded")
    return encoded


@lru_cache(maxsize=4096)
def unlevel(encoded: str) -> str:
    """The value of a topic level; raises LevelError unless it is encoded as `level` does it."""
    try:
        text = unquote(encoded, errors="strict")
    except UnicodeDecodeError as error:
        raise LevelError(f"{encoded!r}: not UTF-8 when decoded") from error
    if level(text) != encoded:
        raise LevelError(f"{encoded!r}: a topic level is written {level(text)!r}")
    return text
