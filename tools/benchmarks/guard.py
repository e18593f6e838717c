"""`tools/bench guard`: what one message costs at the ingress and at the egress of a part.

The goals are held to the *least* of many short rounds of CPU time. What else a machine does can
only add to what a round takes (a neighbour in the caches or on the other half of a core, a clock
that slows down), never take from it; so the least says what the code costs, and the median how
busy the machine was. Each round takes the next of many messages, made anew as a session makes
them of what it received. The topics of boards and bundles were seen before; each action has its
own, which was not.

*Compact* is a board's measurement. *Full* is the core profile: the goal was set by prototypes'
envelopes of 432 bytes, shorter than any message of today's wire with the full profile, whose
metadata alone take that much. Nearest to it is the progress of an action (521 bytes); beside it
stand what a consumer asks for and a bundle with three sensors' features, more than twice as long,
held to the same.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Final

from benchmarks import messages
from benchmarks.messages import NOW_MS
from benchmarks.table import Goal, Row
from benchmarks.timing import Case, interleaved
from nervus.wire import Accepted, Guard, Mint, encode, topics
from nervus.wire.contracts import CONTRACTS, RelayBundle
from nervus.wire.decode import decode
from nervus.wire.ids import MessageIds
from nervus.wire.narrow import fields_of, narrowed
from nervus.wire.reader import reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nervus.wire import Packet, Publish

_BATCH: Final = 100
_ROUNDS: Final = 300
_QUICK_BATCH: Final = 20
_QUICK_ROUNDS: Final = 3
_DIFFERENT: Final = 2_000
_REMEMBERED: Final = 1_000
"""Ids that a guard remembers here: half of them for certain, so that what comes again long after
is no duplicate and one guard can judge all rounds."""
_ACCEPTS: Final = (
    topics.AFFERENT, topics.RELAY_BUNDLE, topics.COMMAND_REQUEST, topics.ACTION_PROGRESS,
)  # fmt: skip
_GOALS: Final = {
    "compact afferent": 8.0,
    "full progress": 15.0,
    "full command request": 15.0,
    "full bundle": 15.0,
}
_STEPS: Final = {
    "decode + guard": "",
    "reading alone": "the one pass of pydantic within it",
    "two passes": "what reading would take that decodes first",
}
_EGRESS: Final = {
    "id": "a message id",
    "mint": "minting a full bundle: envelope and validation",
    "mint + encode": "minting a full bundle and writing its JSON",
}


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Time every step in interleaved rounds."""
    batch, rounds = (_QUICK_BATCH, _QUICK_ROUNDS) if quick else (_BATCH, _ROUNDS)
    tell(f"{rounds} rounds of {batch} messages each")
    each = min(_DIFFERENT, batch * rounds)
    kinds = {
        "compact afferent": [publish for publish, _ in messages.afferents(each)],
        # Of these no topic comes again: as many as are judged.
        "full progress": _progress(batch * rounds),
        "full command request": _requests(batch * rounds),
        "full bundle": _bundles(each),
    }
    # One kind after the other: what a part is sent is a stream of one.
    spreads = interleaved(_egress(batch), rounds)
    for kind, publishes in kinds.items():
        spreads |= interleaved(_ingress(kind, publishes, batch), rounds)
    rows = []
    for kind, publishes in kinds.items():
        size = len(encode(publishes[0].message))
        for step, what in _STEPS.items():
            name = f"{kind}: {step}"
            goals = () if what else (Goal("≤", _GOALS[kind], "least"),)
            values = spreads[name].values()
            note = what or f"{size} bytes"
            rows.append(Row(name, name, "µs", values, batch * rounds, goals, note))
    for name, what in _EGRESS.items():
        goals = (Goal("≤", 1.0, "least"),) if name == "id" else ()
        rows.append(Row(name, what, "µs", spreads[name].values(), batch * rounds, goals))
    return rows


def _ingress(kind: str, publishes: Sequence[Publish], batch: int) -> list[Case]:
    packets = [messages.packet(publish) for publish in publishes]
    contract = CONTRACTS[publishes[0].address.spec.contract]
    strictly = reader(contract).strictly
    usually = narrowed(contract, fields_of(publishes[0].message)).plainly
    judge = Guard(_ACCEPTS, dedupe_limit=_REMEMBERED).judge

    def judging(part: Sequence[Packet]) -> int:
        passed = 0
        for packet in part:
            passed += type(judge(packet, NOW_MS + 1_000)) is Accepted
        return passed

    # Nothing that was read is kept: to free it would be timed with the next.
    def reading(part: Sequence[Packet]) -> int:
        for packet in part:
            usually(packet.payload)
        return len(part)

    def twice(part: Sequence[Packet]) -> int:
        for packet in part:
            strictly(decode(packet.payload))
        return len(part)

    def case(step: str, run: Callable[[Sequence[Packet]], int]) -> Case:
        parts = cycle([packets[at : at + batch] for at in range(0, len(packets), batch)])
        return Case(f"{kind}: {step}", batch, lambda: partial(run, _received(next(parts))))

    return [case(*each) for each in zip(_STEPS, (judging, reading, twice), strict=True)]


def _received(packets: Sequence[Packet]) -> list[Packet]:
    """The packets as a session hands them on: bytes and texts just made, and never hashed."""
    return [
        packet._replace(
            topic=packet.topic.encode().decode(), payload=bytes(bytearray(packet.payload))
        )
        for packet in packets
    ]


def _egress(count: int) -> list[Case]:
    payload = messages.bundle_payload(0)
    address = topics.relay_bundle("room", "r0", "somatic")

    def identifying() -> Callable[[], int]:
        following = MessageIds(1).next
        return lambda: len({following(NOW_MS) for _ in range(count)})

    def minting() -> Callable[[], int]:
        full = _mint().full

        def run() -> int:
            # Nothing is kept: to free a thousand messages at once would be timed with the next.
            made = (full(RelayBundle, address, payload, NOW_MS) for _ in range(count))
            return deque(enumerate(made, 1), maxlen=1)[0][0]

        return run

    def encoding() -> Callable[[], int]:
        full = _mint().full

        def run() -> int:
            made = (
                encode(full(RelayBundle, address, payload, NOW_MS).message) for _ in range(count)
            )
            return sum(len(data) > 0 for data in made)

        return run

    return [
        Case("id", count, identifying),
        Case("mint", count, minting),
        Case("mint + encode", count, encoding),
    ]


def _bundles(count: int) -> list[Publish]:
    mint = _mint()
    return [messages.bundle(mint, number) for number in range(count)]


def _requests(count: int) -> list[Publish]:
    mint = Mint("lamp-logic", "consumer", seed=3, boot=1)
    return [messages.request(mint, NOW_MS, number % 2 == 0) for number in range(count)]


def _progress(count: int) -> list[Publish]:
    mint = Mint("reliable", "reliable", seed=4, boot=1)
    return [messages.progress(mint, NOW_MS) for _ in range(count)]


def _mint() -> Mint:
    return Mint("brainstem", "brainstem", seed=2, boot=1)
