"""What a flood or a stalled reader does to control traffic: pairs, without it and with it."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks import messages
from benchmarks.house import house
from benchmarks.round_trips import connected
from benchmarks.table import Goal, Row
from benchmarks.timing import DidNotHappenError, percentiles
from nervus.bus import Outgoing, Session, subscriptions
from nervus.wire import Accepted, Guard, Mint, Packet, topics
from nervus.wire.contracts import RelayBundle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from benchmarks.house import House

_CONSUMER: Final = "lamp-logic"
_DEAF: Final = "deaf"
_PAIRS: Final = 10
_QUICK_PAIRS: Final = 1
_SECONDS: Final = 2.0
_QUICK_SECONDS: Final = 0.3
_RATE: Final = 100
_RATIO: Final = 10
_LIMIT: Final = 1.5
_WAIT_S: Final = 15.0
_ROOM: Final = topics.relay_bundle("room", "r0", "somatic")
_SETTINGS: Final = "[thalamus]\ngatekeeper = false\nscope_rate = 100\nscope_burst = 200\n"
_WHAT: Final = {
    "low priority": f"{_RATIO} background drivers for each of control",
    "hostile": f"{_RATIO} messages that break the contract for each of control",
    "slow consumer": "a consumer beside that reads nothing",
}


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Time control through the relay's process, over one TLS broker."""
    pairs, seconds = (_QUICK_PAIRS, _QUICK_SECONDS) if quick else (_PAIRS, _SECONDS)
    rows = []
    parts = {_CONSUMER: "consumer", _DEAF: "consumer"}
    async with (
        house(boards={}, parts=parts, settings=_SETTINGS, services=False) as hub,
        _relay(hub),
        _Stand(hub).running() as stand,
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
        before = await stand.control(seconds, "")
        after = await stand.control(seconds, kind)
        ratios.append(percentiles(after)["p99"] / percentiles(before)["p99"])
        quiet += before
        pressed += after
    await stand.all_told()
    p99 = {name: percentiles(times)["p99"] for name, times in (("q", quiet), ("p", pressed))}
    note = f"p99 {p99['q']:.2f} → {p99['p']:.2f} ms over all; each of {stand.flooded} accounted for"
    return Row(
        f"control beside {kind}", f"control's p99 beside {_WHAT[kind]}", "times",
        {"median": median(ratios), "least": min(ratios), "most": max(ratios)}, pairs,
        (Goal("≤", _LIMIT),), note,
    )  # fmt: skip


class _Stand:
    """Speaks as brainstem, listens as a consumer and as reflect."""

    def __init__(self, hub: House) -> None:
        self.flooded = 0
        self._hub = hub
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

    async def control(self, seconds: float, kind: str) -> list[float]:
        """Send control at an even pace, with something beside it; returns milliseconds each."""
        if kind == "slow consumer":
            async with _deaf(self._hub):
                return await self._paced(seconds, "")
        return await self._paced(seconds, kind)

    async def all_told(self) -> None:
        """Wait until each message of the flood was relayed or its refusal was told.

        Raises:
            DidNotHappenError: Some were lost without a word.
        """
        await self._until(lambda: self._accounted >= self.flooded)
        if self._accounted != self.flooded:
            raise DidNotHappenError(f"{self._accounted} of {self.flooded} were accounted for")

    async def _paced(self, seconds: float, kind: str) -> list[float]:
        self._took_ms = []
        total = int(seconds * _RATE)
        began = time.perf_counter()
        for number in range(total):
            await asyncio.sleep(max(0.0, began + number / _RATE - time.perf_counter()))
            for _ in range(_RATIO if kind else 0):
                self._flood(kind)
            self._send()
        await self._until(lambda: not self._sent_ns)
        if self._sent_ns:
            raise DidNotHappenError(f"{len(self._sent_ns)} of {total} control messages were lost")
        return self._took_ms

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait until then, or for long enough."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT_S):
                while not done():
                    self._news.clear()
                    await self._news.wait()

    def _send(self) -> None:
        publish = self._bundle("control")
        self._sent_ns[publish.message.meta.message_id] = time.perf_counter_ns()
        self._post(publish.data, publish.qos)

    def _flood(self, kind: str) -> None:
        self.flooded += 1
        data = self._bundle("background").data
        if kind == "hostile":
            data = data.replace(b'"window_ms":1000', b'"window_ms":"long"')
        self._post(data, 0)

    def _bundle(self, priority: str) -> Any:
        payload = messages.bundle_payload(next(self._numbers))
        now_ms = time.time_ns() // 1_000_000
        return self._mint.full(RelayBundle, _ROOM, payload, now_ms, priority=priority)

    def _post(self, data: bytes, qos: int) -> None:
        # Of one priority here: what is shed is to be shed by the relay, and counted there.
        self._driver.post(Outgoing(_ROOM.topic, data, qos, priority="control"))

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
