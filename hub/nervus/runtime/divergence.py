"""Two runs of the same inputs, held against each other: where they part, and by how much."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from typing import Any, Final

from nervus.wire import Publish, encode

_DRAWN: Final = frozenset({"message_id", "input_refs", "parent_id", "trace_id", "span_id"})
"""Ids follow from how many were drawn before; what is said does not."""

Sent = tuple[int, Publish]


@dataclass(frozen=True, slots=True)
class Saying:
    """What one run sent, without its drawn ids: when (unix ms), where, and what."""

    at_ms: int
    kind: str
    topic: str
    payload: str

    @property
    def mark(self) -> bytes:
        """A digest of all of it."""
        text = f"{self.at_ms}\n{self.topic}\n{self.payload}"
        return blake2b(text.encode(), digest_size=8).digest()


@dataclass(slots=True)
class Second:
    """One second of both runs: how much each sent, and whether it was the same."""

    counts: list[int] = field(default_factory=lambda: [0, 0])
    _sums: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def differs(self) -> bool:
        """Whether the runs sent different things in it."""
        return self._sums[0] != self._sums[1] or self.counts[0] != self.counts[1]

    def add(self, side: int, mark: bytes) -> None:
        """Count what a side sent."""
        self.counts[side] += 1
        # Order within a second does not matter.
        self._sums[side] += int.from_bytes(mark)


@dataclass(slots=True)
class Divergence:
    """Two runs, `a` as it was and `b` with other parameters.

    Args:
        inputs: What both were given.
        same: Sent by both at the same time.
        kinds: By contract and what it says of itself (channel, decision): how many each sent.
        seconds: By unix second.
        first: The first place in which the logs differ: what each says there, None at its end.
    """

    inputs: int = 0
    same: int = 0
    kinds: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    seconds: dict[int, Second] = field(default_factory=lambda: defaultdict(Second))
    first: tuple[Saying | None, Saying | None] | None = None

    @property
    def sent(self) -> tuple[int, int]:
        """How many messages each run sent."""
        a, b = (sum(counts[side] for counts in self.kinds.values()) for side in (0, 1))
        return a, b

    @property
    def diverges(self) -> bool:
        """Whether anything differs."""
        return self.first is not None


def compare(a: Iterable[Sent], b: Iterable[Sent]) -> Divergence:
    """Hold what two runs sent against each other; both are read once, in step."""
    result = Divergence()
    marks: Counter[bytes] = Counter()
    for pair in zip_longest(_sayings(a), _sayings(b)):
        if result.first is None and pair[0] != pair[1]:
            result.first = pair
        for side, saying in enumerate(pair):
            if saying is None:
                continue
            mark = saying.mark
            result.kinds[saying.kind][side] += 1
            result.seconds[saying.at_ms // 1000].add(side, mark)
            _match(marks, mark, 1 if side == 0 else -1, result)
    return result


def _match(marks: Counter[bytes], mark: bytes, step: int, result: Divergence) -> None:
    # Above zero: sent by a alone so far; below: by b alone.
    if marks[mark] * step < 0:
        result.same += 1
    marks[mark] += step
    if not marks[mark]:
        del marks[mark]


def _sayings(sent: Iterable[Sent]) -> Iterator[Saying]:
    for at_ms, publish in sent:
        payload = json.loads(encode(publish.message))["payload"]
        contract = publish.message.meta.contract
        detail = payload.get("decision") or payload.get("reason_code") or payload.get("channel")
        kind = f"{contract} {detail}" if detail else contract
        text = json.dumps(_bare(payload), sort_keys=True, ensure_ascii=False)
        yield Saying(at_ms, kind, publish.address.topic, text)


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(one) for name, one in value.items() if name not in _DRAWN}
    if isinstance(value, list):
        return [_bare(one) for one in value]
    return value
