"""When a shell wakes up: once something is due, and now and then to look at the clock."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hub.plain_broker import within
from hub.plane_inputs import bundle
from hub.shell_stand import Stand
from nervus.bus import Machine
from nervus.bus.clock import Clock
from nervus.bus.machine import TICK_MS
from nervus.wire import Accepted, Guard, Mint, Packet, RejectLane, encode, topics, unix_ms
from nervus.wire.rejects import FOLD_MS
from nervus.wire.times import NEVER

NOW_MS = unix_ms("2026-11-20T12:00:00.000Z")


class Waiting:
    """A core that has nothing to do until `due_ms`; `told` may change that."""

    def __init__(self, due_ms: int = NEVER) -> None:
        self.due_ms = due_ms
        self.events: list[Any] = []
        self.ticks: list[int] = []
        self.told: Callable[[], None] = lambda: None

    def step(self, event: Any, _: int) -> Sequence[Any]:
        self.events.append(event)
        self.told()
        return ()

    def tick(self, now_ms: int) -> Sequence[Any]:
        self.ticks.append(now_ms)
        return ()


@asynccontextmanager
async def running(core: Waiting) -> AsyncIterator[Stand]:
    """A shell without brokers, its own task at work."""
    lane = RejectLane(Mint("part", "brainstem", seed=1, boot=1), "home")
    stand = Stand(Machine(core, Guard([topics.RELAY_BUNDLE]), lane), NOW_MS)
    task = asyncio.create_task(stand.shell._consume())
    try:
        yield stand
    finally:
        task.cancel()


async def seen(stand: Stand, core: Waiting, event: str) -> None:
    """Offer an event and wait until it was stepped, and time passed after it."""
    await stand.shell.offer(event)
    await within(lambda: event in core.events)
    await asyncio.sleep(0)


def driver() -> Packet:
    event = bundle(now_ms=NOW_MS)
    return Packet("core", event.address.topic, encode(event.message))


async def test_what_is_always_due_is_ticked_again_after_50_ms_and_not_before() -> None:
    core = Waiting(0)
    async with running(core) as stand:
        await within(lambda: core.ticks == [NOW_MS])
        for n in range(1, 4):
            stand.now_ms = NOW_MS + n * TICK_MS - 1
            await seen(stand, core, f"{n}")
            assert len(core.ticks) == n
            stand.now_ms += 1
            await within(lambda n=n: len(core.ticks) == n + 1)


async def test_a_core_is_ticked_once_it_is_due_and_not_before() -> None:
    core = Waiting(NOW_MS + 500)
    async with running(core) as stand:
        stand.now_ms = NOW_MS + 499
        await seen(stand, core, "early")
        assert not core.ticks
        stand.now_ms = NOW_MS + 500
        await within(lambda: core.ticks == [NOW_MS + 500])
        core.due_ms = NEVER
        stand.now_ms = NOW_MS + 60_000
        await seen(stand, core, "late")
        assert len(core.ticks) == 1


async def test_what_a_packet_makes_due_is_not_waited_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nervus.bus.clock.LONGEST_MS", 3_600_000)
    core = Waiting()
    async with running(core) as stand:
        await seen(stand, core, "first")
        core.told = lambda: setattr(core, "due_ms", NOW_MS)
        stand.deliver(driver(), 0)
        stand.wires["core"].read()
        assert isinstance(core.events[-1], Accepted)
        await within(lambda: core.ticks == [NOW_MS])


async def test_what_was_refused_is_told_in_the_end_though_the_core_has_nothing_to_do() -> None:
    core = Waiting()
    async with running(core) as stand:
        for _ in range(2):
            stand.deliver(Packet("core", driver().topic, b"{"), 0)
        stand.wires["core"].read()
        assert len(stand.sent) == 1
        stand.now_ms = NOW_MS + FOLD_MS
        await within(lambda: len(stand.sent) == 2)
        assert core.ticks == [NOW_MS + FOLD_MS]


async def test_who_has_nothing_to_do_wakes_up_to_look_at_the_clock_and_for_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nervus.bus.clock.LONGEST_MS", 200)
    looks = 0

    def look(_: Clock) -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(Clock, "check", look)
    began = time.monotonic()
    core = Waiting()
    async with running(core):
        await within(lambda: looks >= 2)
    # A machine that is slow lets it wake up less often, never more often.
    assert looks <= (time.monotonic() - began) / 0.2 + 1
    assert not core.ticks


async def test_a_clock_that_was_set_back_a_little_is_waited_for_without_haste() -> None:
    rings = 0

    def ring() -> None:
        nonlocal rings
        rings += 1

    now_ms = NOW_MS
    clock = Clock(lambda: now_ms, ring)
    assert clock.now_ms() == NOW_MS
    now_ms = NOW_MS - 5_000
    assert clock.now_ms() == NOW_MS
    clock.check()
    clock.ring_by(NOW_MS + 1)
    # Not in 1 ms, when its own time would stand where it stands now.
    assert clock.rings_ms == NOW_MS - 4_000
    clock.ring_by(NOW_MS + 1)
    clock.ring_by(NOW_MS - 4_999)
    assert clock.rings_ms == NOW_MS - 4_999
    await within(lambda: rings == 1)
    # It rang although its clock did not get that far: it can be asked to again.
    clock.ring_by(NOW_MS - 4_999)
    await within(lambda: rings == 2)
    clock.ring_by(NOW_MS - 4_999)
    clock.stop()
    await asyncio.sleep(0.02)
    assert rings == 2
