"""The hub's cores and its store, without a network."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import messages
from benchmarks.messages import NOW_MS
from benchmarks.table import Goal, Row
from benchmarks.timing import Case, DidNotHappenError, interleaved, percentiles
from nervus.brainstem import Brainstem, BrainstemSettings
from nervus.store import Store
from nervus.thalamus import Gate, Relay, ThalamusSettings, judge
from nervus.wire import Accepted, Guard, Mint, Packet, Publish, topics

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

_TOGETHER: Final = 16
"""Packets that are judged before the first of them is stepped, as a shell does it."""
_ROUNDS: Final = 9
_QUICK_ROUNDS: Final = 2
_AFFERENTS: Final = 10_000
_BUNDLES: Final = 2_000
_JUDGEMENTS: Final = 20_000
_SOURCES: Final = (10, 100, 1_000, 10_000)
_EACH_S: Final = 3
_FLAT_ROUNDS: Final = 5
_FLAT: Final = 1.5
_QUICK_COUNT: Final = 100
_RATE: Final = 10_000
_SCHEMA: Final = ("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT NOT NULL)",)
_RECORD: Final = "x" * 400
_ALONE: Final = 300
_IN_FLIGHT: Final = 256
_EACH: Final = 40


def cores(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - as `measure`
    """Guard and core of brainstem and thalamus, and the gate algebra alone."""
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    tell(f"cores in process, {rounds} rounds")
    cases = [
        _brainstem(_QUICK_COUNT if quick else _AFFERENTS),
        _thalamus(_QUICK_COUNT if quick else _BUNDLES),
        _gate(_QUICK_COUNT if quick else _JUDGEMENTS),
    ]
    spreads = interleaved(cases, rounds)
    counts = {case.name: case.count * rounds for case in cases}
    sustained = (Goal("≥", 50_000),)
    return [
        Row("brainstem in process", "guard + brainstem core, compact afferents", "messages/s",
            spreads["brainstem"].rates(), counts["brainstem"], sustained,
            "one core, in process"),
        Row("thalamus in process", "guard + relay core + JSON of what it sends", "bundles/s",
            spreads["thalamus"].rates(), counts["thalamus"], (Goal("≥", 20_000),),
            "one core, in process; two messages out for each"),
        Row("gate decision", "gate algebra, one living gate", "µs",
            spreads["gate"].values(), counts["gate"], (Goal("≤", 5.0),)),
    ]  # fmt: skip


def flat(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - as `measure`
    """What an afferent costs guard and core by how many boards there are, ten to a room.

    Each sends one a second, so that windows and bundles have as much to do for each message; its
    first is not counted.
    """
    sources = _SOURCES[:2] if quick else _SOURCES
    rounds, count = (1, _QUICK_COUNT) if quick else (_FLAT_ROUNDS, _EACH_S * _SOURCES[-1])
    tell(f"cost of a message at {sources[0]} to {sources[-1]:,} sources, {rounds} rounds")
    settings = BrainstemSettings()
    cases = [
        _taking(
            f"at {boards:,}",
            messages.afferents(count + boards, boards, 1_000 / boards, rooms=max(1, boards // 10)),
            settings,
            known=boards,
        )
        for boards in sources
    ]
    costs = {name: spread.median for name, spread in interleaved(cases, rounds).items()}
    most = max(costs.values()) / costs[cases[0].name]
    return [
        Row("brainstem by sources", "guard + brainstem core, an afferent by number of sources",
            "µs", costs, count * rounds, (), "one a second and source, ten to a room"),
        Row("brainstem flat", f"… the dearest to that at {sources[0]}", "times", {"ratio": most},
            count * rounds, (Goal("≤", _FLAT, "ratio"),), "what it grows by are cache misses"),
    ]  # fmt: skip


def _brainstem(count: int) -> Case:
    settings = BrainstemSettings(source_rate=_RATE, source_burst=_RATE)
    return _taking("brainstem", messages.afferents(count), settings)


def _taking(
    name: str,
    afferents: Sequence[tuple[Publish, int]],
    settings: BrainstemSettings,
    known: int = 0,
) -> Case:
    """Judging and taking all but the first so many."""
    packets = [(messages.packet(publish), now_ms) for publish, now_ms in afferents]

    def prepare() -> Callable[[], int]:
        core = Brainstem(settings, Mint("brainstem", "brainstem", seed=1, boot=1))
        guard = Guard([topics.AFFERENT])

        def run(some: Sequence[tuple[Packet, int]] = packets[known:]) -> int:
            taken = 0
            for at in range(0, len(some), _TOGETHER):
                judged = [(guard.judge(*each), each[1]) for each in some[at : at + _TOGETHER]]
                for verdict, now_ms in judged:
                    if isinstance(verdict, Accepted):
                        core.step(verdict, now_ms)
                        taken += 1
            return taken

        run(packets[:known])
        return run

    return Case(name, len(packets) - known, prepare)


def _thalamus(count: int) -> Case:
    mint = Mint("brainstem", "brainstem", seed=5, boot=1)
    packets = [messages.packet(messages.bundle(mint, number)) for number in range(count)]

    def prepare() -> Callable[[], int]:
        # All at one moment: the budgets would shed most of it.
        settings = ThalamusSettings(gatekeeper=False, scope_burst=_BUNDLES, relay_burst=_BUNDLES)
        relay = Relay(settings, Mint("relay", "thalamus", seed=1, boot=1), "home")
        guard = Guard([topics.RELAY_BUNDLE])

        def run() -> int:
            relayed = 0
            for at in range(0, len(packets), _TOGETHER):
                judged = [guard.judge(each, NOW_MS) for each in packets[at : at + _TOGETHER]]
                for verdict in judged:
                    if not isinstance(verdict, Accepted):
                        continue
                    for effect in relay.step(verdict, NOW_MS):
                        if isinstance(effect, Publish) and effect.data:
                            relayed += effect.address.spec is topics.GATED_RELAY
            return relayed

        return run

    return Case("thalamus", count, prepare)


def _gate(count: int) -> Case:
    gates = (Gate(0.5),)

    def run() -> int:
        return sum(
            judge("normal", gates, gatekeeper=True).decision == "attenuate" for _ in range(count)
        )

    return Case("gate", count, lambda: run)


async def store(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - as `measure`
    """Durable writes, one after the other and 256 at once."""
    alone, each = (20, 1) if quick else (_ALONE, _EACH)
    tell("store commits, each on the disk before it is answered")
    with tempfile.TemporaryDirectory(prefix="nervus-bench-") as folder:
        async with Store(Path(folder) / "bench.db", _SCHEMA) as opened:
            times = []
            for _ in range(alone):
                began = time.perf_counter()
                await opened.write(_insert)
                times.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            await asyncio.gather(*(_write(opened, each) for _ in range(_IN_FLIGHT)))
            seconds = time.perf_counter() - began
            kept = await opened.read(lambda c: c.execute("SELECT COUNT(*) FROM t").fetchone()[0])
            group = opened.counters.largest_group
    many = _IN_FLIGHT * each
    if kept != alone + many:
        raise DidNotHappenError(f"the store kept {kept} of {alone + many} records")
    return [
        Row("store alone", "durable write, one in flight", "ms", percentiles(times), alone,
            (Goal("≤", 1.0, "p50"),), "synchronous=FULL, this machine's temporary folder"),
        Row("store grouped", f"durable writes, {_IN_FLIGHT} in flight", "writes/s",
            {"rate": many / seconds}, many, (Goal("≥", 4_000, "rate"),),
            f"up to {group} in one commit"),
    ]  # fmt: skip


async def _write(opened: Store, count: int) -> None:
    for _ in range(count):
        await opened.write(_insert)


def _insert(connection: sqlite3.Connection) -> Any:
    return connection.execute("INSERT INTO t (v) VALUES (?)", (_RECORD,)).rowcount
