"""What many boards and a flood cost brainstem and thalamus: memory, and work for each message."""

import gc
import itertools
import json
import sys
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from random import Random

import jiter
import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.brainstem_inputs import brainstem
from hub.plane_inputs import NOW_MS
from nervus.brainstem import BrainstemSettings
from nervus.brainstem import build as build_brainstem
from nervus.brainstem.machine import TAKES
from nervus.brainstem.rate import Rate
from nervus.bus import Machine, Origin
from nervus.bus.machine import TICK_MS
from nervus.thalamus import ThalamusSettings
from nervus.thalamus import build as build_relay
from nervus.wire import Accepted, Guard, Packet, Publish, Rejected, topics
from simulation.boards import Board

pytestmark = pytest.mark.usefixtures("unmeasured")

SOURCES = 2_000
"""What is kept of each is the same when there are 10,000, which take half a minute to trace."""

ROOMS = 100
WHOLE_BYTES = 2_200
"""Of each source, with what the guard remembers of its topic and message: 30 MB for 10,000."""

CORE_BYTES = 700
FEW = 1_000
MANY = 1_000
ORIGIN = Origin(seed=1, boot=1, house="home")


Speech = Iterator[tuple[Packet, int]]


def speech(count: int, every_ms: float, rooms: int = ROOMS) -> Speech:
    """Boards that speak in turn, and when."""
    boards = [Board(f"b{n}", f"room{n % rooms}", ("temperature",), "hub") for n in range(count)]
    random = Random(1)  # noqa: S311 - nothing is secret here
    for board in boards:
        board.start(NOW_MS, random)
    for number in itertools.count():
        now_ms = NOW_MS + int(number * every_ms)
        sample = boards[number % count].sample("temperature", now_ms, 0, random)
        yield Packet("spinal", sample.topic, sample.payload), now_ms


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.timeout(60)  # each allocation is traced
def test_a_source_takes_so_little_that_there_may_be_ten_thousand() -> None:
    core, guard, bundles = brainstem(), Guard(TAKES), 0
    packets = list(islice(speech(SOURCES, 1.4), SOURCES))
    tracemalloc.start()
    try:
        idle = held()
        for packet, now_ms in packets:
            verdict = guard.judge(packet, now_ms)
            assert isinstance(verdict, Accepted)
            effects = core.step(verdict, now_ms)
            bundles += len(effects)
        with_core = held()
        most = tracemalloc.get_traced_memory()[1] - idle
        assert len(core._sources) == SOURCES
        assert bundles > ROOMS
        assert core.intake.over_rate == 0
        del core, verdict, effects
        of_core = with_core - held()
    finally:
        tracemalloc.stop()
    assert CORE_BYTES / 10 < of_core / SOURCES < CORE_BYTES
    assert most / SOURCES < WHOLE_BYTES


class Planes:
    """Both planes and what lies between them, with guards that remember few ids."""

    def __init__(self) -> None:
        self.rejects = self.relayed = 0
        granted = {f"b{n}": f"room/room{n % ROOMS}" for n in range(ROOMS)}.get
        self.brainstem = build_brainstem(BrainstemSettings(), ORIGIN, granted)
        self.relay = build_relay(ThalamusSettings(), ORIGIN, granted)
        for machine in (self.brainstem, self.relay):
            machine.guard._generation = FEW // 20

    def take(self, packet: Packet, now_ms: int) -> None:
        for publish in self._pass(self.brainstem, packet, now_ms):
            if publish.address.spec is topics.RELAY_BUNDLE:
                bundle = Packet("core", publish.address.topic, publish.data)
                self.relayed += len(self._pass(self.relay, bundle, now_ms))

    def _pass(self, machine: Machine, packet: Packet, now_ms: int) -> list[Publish]:
        verdict = machine.guard.judge(packet, now_ms)
        took = [verdict] if isinstance(verdict, Rejected) else machine.core.step(verdict, now_ms)
        rejects = [each for each in took if isinstance(each, Rejected)]
        self.rejects += len(rejects)
        sent = [each for each in took if isinstance(each, Publish)]
        for reject in rejects:
            sent += machine.lane.step(reject, now_ms)
        if now_ms % TICK_MS == 0:
            sent += [*machine.core.tick(now_ms), *machine.lane.tick(now_ms)]
        return sent


def flood() -> Speech:
    """A message every 2 ms: every second one of one board, some broken, some from nobody."""
    one, many = speech(1, 2), speech(ROOMS, 2)
    for number, ((packet, now_ms), (other, _)) in enumerate(zip(one, many, strict=True)):
        if number % 2:
            yield packet, now_ms
        elif number % 20 == 4:
            broken = other.payload.replace(b'"v1"', b'"v%d"' % number)
            yield other._replace(payload=broken), now_ms
        elif number % 20 == 8:
            stranger = topics.afferent("room", f"r{number % 23}", "temperature", "b1")
            yield other._replace(topic=stranger.topic), now_ms
        else:
            yield other, now_ms


def fill_parsers() -> None:
    """Let both JSON parsers remember as many texts as they ever do: 16,384, found by a hash."""
    texts = json.dumps([f"{number:026}" for number in range(100_000)]).encode()
    for parse in (jiter.from_json, pydantic_core.from_json):
        parse(texts)


def test_a_flood_ten_times_as_long_takes_no_more_memory() -> None:
    fill_parsers()
    planes, packets = Planes(), flood()
    blocks = []
    for count in (FEW, 9 * FEW):
        for packet, now_ms in islice(packets, count):
            planes.take(packet, now_ms)
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    assert planes.rejects > 4 * FEW
    assert planes.relayed > FEW / 2
    # Seconds written as text and such are remembered, each some; of a message or a reject nothing.
    assert blocks[1] - blocks[0] < FEW


def calls_a_message(sources: int) -> float:
    """How many functions guard and core call for a message of boards that are known."""
    core, guard, calls = brainstem(), Guard(TAKES), 0
    packets = list(islice(speech(sources, 1_000 / sources, sources // 10), sources + MANY))

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def take(some: list[tuple[Packet, int]]) -> None:
        for packet, now_ms in some:
            verdict = guard.judge(packet, now_ms)
            assert isinstance(verdict, Accepted)
            core.step(verdict, now_ms)

    take(packets[:sources])
    sys.setprofile(count)
    try:
        take(packets[sources:])
    finally:
        sys.setprofile(None)
    assert core.counters.bundles >= MANY / 20
    return calls / MANY


def test_a_message_of_one_of_a_thousand_costs_as_much_as_one_of_ten() -> None:
    few, many = calls_a_message(10), calls_a_message(MANY)
    assert many < few * 1.05


RATES = st.sampled_from([0.001, 0.5, 1, 3, 7.7, 50, 333, 1_000])


@given(RATES, st.integers(1, 300), st.integers(0, 10**7))
def test_at_once_there_is_a_burst_whatever_the_rate(rate: float, burst: int, late_ms: int) -> None:
    held_to, whole_ms, taken = Rate(rate, burst), 0.0, 0
    now_ms = NOW_MS + late_ms
    for _ in range(burst + 5):
        after_ms = held_to.take(whole_ms, now_ms)
        if after_ms is not None:
            taken, whole_ms = taken + 1, after_ms
    assert taken == burst


@given(RATES, st.integers(1, 20), st.lists(st.integers(0, 3_000), max_size=100))
def test_a_rate_is_that_of_a_bucket_of_tokens(rate: float, burst: int, gaps: list[int]) -> None:
    held_to, whole_ms, now_ms = Rate(rate, burst), 0.0, NOW_MS
    tokens = Fraction(burst)
    for gap_ms in gaps:
        now_ms += gap_ms
        tokens = min(Fraction(burst), tokens + Fraction(rate) * gap_ms / 1_000)
        after_ms = held_to.take(whole_ms, now_ms)
        if after_ms is None:
            assert tokens < Fraction(6, 10)
        else:
            assert tokens > Fraction(4, 10)
            whole_ms, tokens = after_ms, tokens - 1


@pytest.mark.parametrize("burst", [1, 100])
def test_what_is_spent_comes_back_at_the_rate(burst: int) -> None:
    held_to, whole_ms, now_ms = Rate(50, burst), 0.0, NOW_MS
    taken = 0
    for now_ms in range(NOW_MS, NOW_MS + 60_000):
        after_ms = held_to.take(whole_ms, now_ms)
        if after_ms is not None:
            taken, whole_ms = taken + 1, after_ms
    assert abs(taken - (50 * 60 + burst)) <= 1
