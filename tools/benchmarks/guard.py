"""`tools/bench guard`: what one message costs at the ingress and at the egress of a part."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import messages
from benchmarks.messages import NOW_MS
from benchmarks.table import Goal, Row
from benchmarks.timing import Case, interleaved
from nervus.wire import Accepted, Guard, Mint, encode, topics
from nervus.wire.contracts import CONTRACTS, RelayBundle
from nervus.wire.decode import decode
from nervus.wire.ids import MessageIds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nervus.wire import Packet, Publish

_BATCH: Final = 2_000
_ROUNDS: Final = 15
_QUICK_BATCH: Final = 20
_QUICK_ROUNDS: Final = 3
_ACCEPTS: Final = (topics.AFFERENT, topics.RELAY_BUNDLE, topics.COMMAND_REQUEST)


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Time every step; medians of interleaved rounds."""
    batch, rounds = (_QUICK_BATCH, _QUICK_ROUNDS) if quick else (_BATCH, _ROUNDS)
    tell(f"{rounds} rounds of {batch} messages each")
    kinds = {
        "compact afferent": [publish for publish, _ in messages.afferents(batch)],
        "full bundle": _bundles(batch),
        "full command request": _requests(batch),
    }
    cases = [case for kind, publishes in kinds.items() for case in _ingress(kind, publishes)]
    cases += _egress(batch)
    spreads = interleaved(cases, rounds)
    rows = []
    for kind, publishes in kinds.items():
        size = len(encode(publishes[0].message))
        for step in ("decode + guard", "decode alone", "validation alone"):
            name = f"{kind}: {step}"
            seen = _SEEN.get(name, "")
            note = f"{size} bytes" if step == "decode + guard" else seen
            goals = (Goal("≤", _GOALS[kind]),) if step == "decode + guard" else ()
            rows.append(Row(name, name, "µs", spreads[name].values(), batch * rounds, goals, note))
    for case in cases[-3:]:
        goals = (Goal("≤", 1.0),) if case.name == "id" else ()
        what = _EGRESS[case.name]
        values = spreads[case.name].values()
        rows.append(Row(case.name, what, "µs", values, batch * rounds, goals))
    return rows


_GOALS: Final = {"compact afferent": 8.0, "full bundle": 15.0, "full command request": 15.0}
_SEEN: Final = {
    "compact afferent: validation alone": "pydantic; 2.5 µs seen",
    "full bundle: validation alone": "pydantic; 5.0 µs seen",
    "full command request: validation alone": "pydantic",
    "compact afferent: decode alone": "jiter, and what strict JSON adds",
}
_EGRESS: Final = {
    "id": "a message id",
    "mint": "minting a full bundle: envelope and validation",
    "mint + encode": "minting a full bundle and writing its JSON",
}


def _ingress(kind: str, publishes: Sequence[Publish]) -> list[Case]:
    packets = [messages.packet(publish) for publish in publishes]
    values = [decode(packet.payload) for packet in packets]
    contract = CONTRACTS[publishes[0].address.spec.contract]
    validate = contract.__pydantic_validator__.validate_python
    count = len(packets)

    def judging() -> Callable[[], int]:
        # New for each round, or all but the first round would be duplicates.
        return partial(_judge, Guard(_ACCEPTS), packets)

    def decoding() -> int:
        return len([decode(packet.payload) for packet in packets])

    def validating() -> int:
        return len([validate(value) for value in values])

    return [
        Case(f"{kind}: decode + guard", count, judging),
        Case(f"{kind}: decode alone", count, lambda: decoding),
        Case(f"{kind}: validation alone", count, lambda: validating),
    ]


def _judge(guard: Guard, packets: Sequence[Packet]) -> int:
    judge = guard.judge
    return sum(isinstance(judge(packet, NOW_MS + 1_000), Accepted) for packet in packets)


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


def _mint() -> Mint:
    return Mint("brainstem", "brainstem", seed=2, boot=1)
