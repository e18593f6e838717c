"""What a flood or a stalled reader does to control traffic: pairs, without it and with it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from itertools import count
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.flooder import ROOM, bundle
from benchmarks.house import house
from benchmarks.messages import FEATURES
from benchmarks.round_trips import connected
from benchmarks.table import Goal, Row
from benchmarks.timing import DidNotHappenError, percentiles
from nervus.bus import Filter, Outgoing, Session, subscriptions
from nervus.wire import Accepted, Guard, Mint, Packet, topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from benchmarks.house import House

_CONSUMER: Final = "lamp-logic"
_DEAF: Final = "deaf"
_FLOODER: Final = "flooder"
_WATCHER: Final = "watcher"
_PARTS: Final = {
    _CONSUMER: "consumer", _DEAF: "consumer", _FLOODER: "brainstem", _WATCHER: "observer",
}  # fmt: skip
_PAIRS: Final = 10
_QUICK_PAIRS: Final = 1
_SECONDS: Final = 4.0
_QUICK_SECONDS: Final = 0.4
_SLICES: Final = 8
"""Of each half of a pair, in turn, so that what else the machine does falls on both alike."""
_RATE: Final = 100
_RATIO: Final = 10
_LIMIT: Final = 1.5
_WAIT_S: Final = 15.0
_STUFFING: Final = 2_000
_STUFFED_FEATURES: Final = 12
_AT_ONCE: Final = 100
_DROPPED: Final = "$SYS/broker/publish/messages/dropped"
_SLOW: Final = "slow consumer"
_SETTINGS: Final = "[thalamus]\ngatekeeper = false\nscope_rate = 100\nscope_burst = 200\n"
_WHAT: Final = {
    "low priority": f"{_RATIO} background drivers for each of control",
    "hostile": f"{_RATIO} messages that break the contract for each of control",
    _SLOW: "a consumer beside that reads nothing, its queue full",
}


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Time control through the relay's process, over one TLS broker."""
    pairs, seconds = (_QUICK_PAIRS, _QUICK_SECONDS) if quick else (_PAIRS, _SECONDS)
    rows = []
    async with (
        house(boards={}, parts=_PARTS, settings=_SETTINGS, services=False) as hub,
        _relay(hub),
        _flooder(hub) as flooder,
        _Stand(hub, flooder).running() as stand,
    ):
        for kind, what in _WHAT.items():
            tell(f"control traffic beside {what}, {pairs} pairs of {2 * seconds:g} s")
            rows.append(await _row(stand, kind, pairs, seconds))
    return rows


async def _row(stand: _Stand, kind: str, pairs: int, seconds: float) -> Row:
    ratios = []
    quiet: list[float] = []
    pressed: list[float] = []
    for _ in range(pairs):
        before, after = await stand.pair(kind, seconds)
        ratios.append(percentiles(after)["p99"] / percentiles(before)["p99"])
        quiet += before
        pressed += after
    told = await (stand.dropped() if kind == _SLOW else stand.all_told())
    was, now = percentiles(quiet), percentiles(pressed)
    note = f"p50 {was['p50']:.2f} → {now['p50']:.2f}, p99 {was['p99']:.2f} → {now['p99']:.2f} ms"
    return Row(
        f"control beside {kind}", f"control's p99 beside {_WHAT[kind]}", "times",
        {"median": median(ratios), "least": min(ratios), "most": max(ratios)}, pairs,
        (Goal("≤", _LIMIT),), f"{note} over all; {told}",
    )  # fmt: skip


class _Stand:
    """Speaks as brainstem, listens as a consumer and as reflect."""

    def __init__(self, hub: House, flooder: asyncio.subprocess.Process) -> None:
        self._hub = hub
        self._flooder = flooder
        self._flooded = 0
        # At no fixed distance to the flood's own pace.
        self._random = Random(1)  # noqa: S311 - no secret
        self._mint = Mint("brainstem", "brainstem", seed=time.time_ns(), boot=int(time.time()))
        self._driver = Session("brainstem", "core", hub.address("brainstem", "core"))
        taken = (topics.GATED_RELAY, topics.ROUTE_DECISION)
        self._consumer = Session(
            _CONSUMER, "core", hub.address(_CONSUMER, "core"),
            filters=subscriptions(taken[:1]), on_packet=self._arrived,
        )  # fmt: skip
        self._reflect = Session(
            "reflect", "core", hub.address("reflect", "core"),
            filters=subscriptions([topics.REJECT]), on_packet=self._refused,
        )  # fmt: skip
        self._guard = Guard((*taken, topics.REJECT))
        self._sent_ns: dict[str, int] = {}
        self._took_ms: list[float] = []
        self._accounted = 0
        self._numbers = count()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[_Stand]:
        """Connected, until left."""
        async with connected(self._driver), connected(self._consumer), connected(self._reflect):
            end = time.monotonic() + _WAIT_S
            while not self._took_ms and time.monotonic() < end:
                # Until the relay is there to take it.
                self._send()
                await asyncio.sleep(0.2)
            self._sent_ns.clear()
            yield self

    async def pair(self, kind: str, seconds: float) -> tuple[list[float], list[float]]:
        """Send control at an even pace, without and with something beside it.

        Returns:
            Milliseconds of each message, without and with.
        """
        quiet: list[float] = []
        pressed: list[float] = []
        if kind == _SLOW:
            # As long as its queue takes to fill, it cannot come and go with each slice.
            quiet += await self._paced(seconds)
            async with _deaf(self._hub):
                await self._stuff()
                pressed += await self._paced(seconds)
            return quiet, pressed
        for _ in range(_SLICES):
            quiet += await self._paced(seconds / _SLICES)
            pressed += await self._beside_flood(kind, seconds / _SLICES)
        return quiet, pressed

    async def all_told(self) -> str:
        """Wait until each message of the floods was relayed or its refusal was told.

        Raises:
            DidNotHappenError: Some were lost without a word.
        """
        await self._until(lambda: self._accounted >= self._flooded)
        if self._accounted != self._flooded:
            raise DidNotHappenError(f"{self._accounted} of {self._flooded} were accounted for")
        return f"each of {self._flooded} accounted for"

    async def dropped(self) -> str:
        """Ask the broker what it dropped.

        Raises:
            DidNotHappenError: Nothing: nobody's queue was full.
        """
        found: asyncio.Queue[int] = asyncio.Queue()

        async def take(packet: Packet) -> None:
            found.put_nowait(int(packet.payload))

        address, filters = self._hub.address(_WATCHER, "core"), [Filter(_DROPPED, 1)]
        async with connected(Session(_WATCHER, "core", address, filters=filters, on_packet=take)):
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    return f"the broker counts {await found.get()} as dropped"
        raise DidNotHappenError("the broker dropped nothing: no consumer's queue was full")

    async def _beside_flood(self, kind: str, seconds: float) -> list[float]:
        reader, writer = self._flooder.stdout, self._flooder.stdin
        assert reader is not None  # noqa: S101 - both were asked for
        assert writer is not None  # noqa: S101
        writer.write(f"{kind} {_RATE * _RATIO} {seconds}\n".encode())
        took = await self._paced(seconds)
        async with asyncio.timeout(_WAIT_S):
            self._flooded += int(await reader.readline())
        return took

    async def _paced(self, seconds: float) -> list[float]:
        self._took_ms = []
        began = time.perf_counter()
        for number in range(int(seconds * _RATE)):
            due = began + (number + self._random.random()) / _RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._send()
        await self._all_arrived()
        return self._took_ms

    async def _stuff(self) -> None:
        """Send more than the broker keeps for one who does not read."""
        for number in range(_STUFFING):
            self._send(_STUFFED_FEATURES)
            if number % _AT_ONCE == 0:
                # Or the queues of those who do read would overflow first.
                await self._all_arrived()
        await self._all_arrived()

    async def _all_arrived(self) -> None:
        await self._until(lambda: not self._sent_ns)
        if self._sent_ns:
            raise DidNotHappenError(f"{len(self._sent_ns)} control messages were lost")

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait until then, or for long enough."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                while not done():
                    self._news.clear()
                    await self._news.wait()

    def _send(self, features: int = FEATURES) -> None:
        publish = bundle(self._mint, next(self._numbers), "control", features)
        self._sent_ns[publish.message.meta.message_id] = time.perf_counter_ns()
        self._driver.post(Outgoing(ROOM.topic, publish.data, publish.qos, priority="control"))

    async def _arrived(self, packet: Packet) -> None:
        now_ns = time.perf_counter_ns()
        self._news.set()
        verdict = self._guard.judge(packet, time.time_ns() // 1_000_000)
        if not isinstance(verdict, Accepted):
            raise DidNotHappenError(f"the consumer's guard: {verdict}")
        meta = verdict.message.meta
        sent_ns = self._sent_ns.pop(meta.parent_id, None)
        if sent_ns is None:
            self._accounted += 1
        else:
            self._took_ms.append((now_ns - sent_ns) / 1e6)

    async def _refused(self, packet: Packet) -> None:
        self._news.set()
        verdict = self._guard.judge(packet, time.time_ns() // 1_000_000)
        if isinstance(verdict, Accepted):
            self._accounted += verdict.message.payload.count or 1


@asynccontextmanager
async def _relay(hub: House) -> AsyncIterator[None]:
    """The relay's own process, until left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nervus", "run", "thalamus", "--state", str(hub.state.path),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        await process.communicate()


@asynccontextmanager
async def _flooder(hub: House) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process that floods, connected, until left."""
    listener = hub.settings.brokers.core
    folder = str(hub.authority.get(_FLOODER).folder)
    where = {"host": listener.connect_host, "port": listener.port}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.flooder",
        json.dumps(where | {"identity": _FLOODER, "folder": folder}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        async with asyncio.timeout(_WAIT_S):
            if not await process.stdout.readline():
                raise DidNotHappenError("the flooder did not connect; what it wrote stands above")
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@asynccontextmanager
async def _deaf(hub: House) -> AsyncIterator[None]:
    """A consumer that has subscribed to everything and reads nothing, until left."""
    identity, listener = hub.authority.get(_DEAF), hub.settings.brokers.core
    process = await asyncio.create_subprocess_exec(
        "stdbuf", "-oL", "mosquitto_sub", "-V", "5",
        "-h", listener.connect_host, "-p", str(listener.port),
        "--cafile", str(identity.ca), "--cert", str(identity.cert), "--key", str(identity.key),
        "-q", "1", "-t", "/th/relay/#", "-d", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        async with asyncio.timeout(_WAIT_S):
            while b"SUBACK" not in await process.stdout.readline():
                pass
        process.send_signal(signal.SIGSTOP)
        yield
    finally:
        process.kill()
        await process.communicate()
