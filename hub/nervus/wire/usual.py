"""A quicker reading of messages that look like those before them.

Who sends on a topic sends the same fields time and again, and pydantic spends up to a quarter of a
reading on those that are absent. So once the messages of a topic have had the same fields for a
while, a validator is made that knows no others. It takes nothing that the whole reading would not
take, and what it does not take is read wholly: no verdict is another, it only comes sooner.
"""

from functools import lru_cache
from typing import Final

from nervus.wire.model import Contract
from nervus.wire.narrow import Fields, Narrow, fields_of, narrowed

_WHILE: Final = 8
"""So many messages with the same fields make them usual, unless another topic's are so already. To
make a validator takes as long as reading 20 messages: who sends others each time gains little."""
_EACH: Final = 4
"""Beyond so many messages one of these is looked at: a look takes a third of a reading."""
_KEPT: Final = 256


class Habit:
    """What fields the messages of one topic had lately."""

    __slots__ = ("_count", "_fields", "_mixed", "_times")

    def __init__(self) -> None:
        self._fields: Fields | None = None
        self._mixed = False
        self._times = 0
        self._count = 0

    def after(self, message: Contract, usual: Narrow | None) -> Narrow | None:
        """What is usual once `message` was read wholly and found right, and was so before it."""
        self._count += 1
        if self._count > _WHILE and self._count % _EACH:
            return usual
        fields, before = fields_of(message), self._fields
        if before is not None and fields != before and fields.but_lists == before.but_lists:
            # Only items differ: now of one kind, now of another. From here on they may be of any.
            self._mixed = True
        fields = _same(fields.but_lists if self._mixed else fields)
        if fields is not before:
            self._fields, self._times = fields, 0
        self._times += 1
        key = type(message), fields
        if message.errors is not None or (
            self._times < _WHILE and (usual is not None or key not in _MADE)
        ):
            return usual
        self._times = 0
        if key not in _MADE:
            if len(_MADE) >= _KEPT:
                _MADE.clear()
            _MADE[key] = narrowed(*key)
        return _MADE[key]


# Shared by all topics: a validator takes 50 KiB.
_MADE: Final[dict[tuple[type[Contract], Fields], Narrow]] = {}


@lru_cache(maxsize=_KEPT)
def _same(fields: Fields) -> Fields:
    """The first that was equal to these: ten thousand topics keep the same few."""
    return fields
