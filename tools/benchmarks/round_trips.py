"""Latencies through the whole hub as `nervus up` runs it: two TLS brokers, a virtual board."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, Final

from benchmarks import messages
from benchmarks.house import house
from benchmarks.machine import stolen
from benchmarks.sustained import flood
from benchmarks.table import Goal, Row
from benchmarks.timing import DidNotHappenError, percentiles
from nervus.bus import Session, subscriptions
from nervus.simulator import Identity, VirtualBoard
from nervus.wire import Accepted, Guard, Mint, Packet, encode, topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from benchmarks.house import House

_CONSUMER: Final = "lamp-logic"
_SENSING: Final = "b1"
_ACTING: Final = "b0"
_LAMP_PIN: Final = 2
_PLAN: Final = ((50, 10.0), (200, 5.0), (1_000, 5.0))
_QUICK_PLAN: Final = ((20, 0.5),)
_COMMANDS: Final = 300
_QUICK_COMMANDS: Final = 3
_SETTLE_S: Final = 1.0
_WARM_RATE: Final = 200
_ONLINE_S: Final = 20.0
_OUTCOME_S: Final = 10.0
_SETTINGS: Final = """
[brainstem]
source_rate = 10000
source_burst = 10000
urgent_rate = 10000
urgent_burst = 1000
"""
_POLICY: Final = """
version = 1
[[rule]]
id = "lamp"
effect = "allow"
principals = ["lamp-logic"]
capabilities = ["actuator.set"]
targets = ["b0/lamp"]
reason = "it is measured"
"""


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Run the whole hub and send through it."""
    rows = []
    async with _hub() as hub:
        for rate, seconds in _QUICK_PLAN if quick else _PLAN:
            tell(f"urgent afferents to the consumer, {rate}/s for {seconds:g} s")
            rows.append(await _sense(hub, rate, seconds))
        count = _QUICK_COMMANDS if quick else _COMMANDS
        tell(f"{count} commands to a virtual board, one in flight")
        async with _consumer(hub) as consumer:
            rows.append(await _command(hub, consumer, count))
    if not quick:
        rate, seconds = _PLAN[-1]
        tell(f"urgent afferents, {rate}/s for {seconds:g} s, each service a process of its own")
        async with _hub(separate=True) as hub:
            row = await _sense(hub, rate, seconds)
            rows.append(replace(row, name=f"{row.name}, --separate"))
    return rows


def _hub(*, separate: bool = False) -> AbstractAsyncContextManager[House]:
    boards = {_ACTING: "room/r0", _SENSING: "room/r1"}
    parts = {_CONSUMER: "consumer"}
    return house(boards=boards, parts=parts, settings=_SETTINGS, policy=_POLICY, separate=separate)


class _Consumer:
    """Asks, and takes outcomes."""

    specs = (topics.OUTCOME,)

    def __init__(self, hub: House) -> None:
        self.outcomes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.mint = Mint(_CONSUMER, "consumer", seed=time.time_ns(), boot=int(time.time()))
        self._guard = Guard(self.specs)
        self.session = Session(
            _CONSUMER,
            "core",
            hub.address(_CONSUMER, "core"),
            filters=subscriptions(self.specs),
            on_packet=self._take,
        )

    async def _take(self, packet: Packet) -> None:
        message = _accepted(self._guard, packet, _now_ms())
        self.outcomes.put_nowait((message.meta.action_id, message.payload.status))


@asynccontextmanager
async def _consumer(hub: House) -> AsyncIterator[_Consumer]:
    consumer = _Consumer(hub)
    async with connected(consumer.session):
        yield consumer


@asynccontextmanager
async def connected(session: Session) -> AsyncIterator[None]:
    """Run a session until left.

    Raises:
        DidNotHappenError: It was not connected in time.
    """
    running = asyncio.create_task(session.run())
    up = asyncio.create_task(session.wait_connected())
    try:
        await asyncio.wait({running, up}, timeout=_ONLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if not session.connected:
            raise DidNotHappenError(f"{session.identity} did not connect")
        yield
        if running.done():
            await running
    finally:
        up.cancel()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _sense(hub: House, rate: float, seconds: float) -> Row:
    with tempfile.TemporaryFile() as lines:
        async with _subscriber(hub, lines):
            await _heard(hub, lines)
            began = lines.seek(0, os.SEEK_END)
            # Boards and consumer would be other machines: here each is a lean process of its own.
            taken, ticks = stolen()
            sent = await flood(hub, 1, rate, seconds, urgent_of=_SENSING)
            share = (stolen()[0] - taken) / max(1, stolen()[1] - ticks)
            await asyncio.sleep(_SETTLE_S)
        lines.seek(began)
        seen = _seen(lines)
    sent_ns = sent["sent_ns"]
    times = [(seen[number] - at_ns) / 1e6 for number, at_ns in enumerate(sent_ns) if number in seen]
    rate_sent = len(sent_ns) / sent["seconds"]
    note = f"{len(times)} of {len(sent_ns)} came, sent at {rate_sent:,.0f}/s"
    note += f"; the host took {share:.1%} of the time"
    what = f"urgent afferent → bundle → gate → consumer at {rate}/s, two TLS brokers"
    name = f"afferent to consumer at {rate}/s"
    return Row(name, what, "ms", percentiles(times), len(times), (Goal("≤", 5.0, "p99"),), note)


@asynccontextmanager
async def _subscriber(hub: House, lines: IO[bytes]) -> AsyncIterator[None]:
    """A consumer in C that writes a line for each message: when it came, topic, message."""
    identity, listener = hub.authority.get(_CONSUMER), hub.settings.brokers.core
    process = await asyncio.create_subprocess_exec(
        "stdbuf", "-oL", "mosquitto_sub", "-V", "5", "-F", "%U %t %p",
        "-h", listener.connect_host, "-p", str(listener.port),
        "--cafile", str(identity.ca), "--cert", str(identity.cert), "--key", str(identity.key),
        "-q", "1", "-t", topics.GATED_RELAY.filter(), stdout=lines,
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        await process.communicate()


async def _heard(hub: House, lines: IO[bytes]) -> None:
    """Wait until messages come through, and what they go through is warm."""
    async with asyncio.timeout(_ONLINE_S):
        while not lines.seek(0, os.SEEK_END):
            await flood(hub, 1, _WARM_RATE, 1.0, urgent_of=_SENSING)
            await asyncio.sleep(_SETTLE_S)


def _seen(lines: IO[bytes]) -> dict[int, int]:
    """When each numbered message came first, in unix nanoseconds; each must be a valid one."""
    guard = Guard([topics.GATED_RELAY])
    seen: dict[int, int] = {}
    for line in lines:
        at, topic, payload = line.split(b" ", 2)
        seconds, _, fraction = at.partition(b".")
        at_ns = int(seconds + fraction.ljust(9, b"0"))
        packet = Packet("core", topic.decode(), payload.rstrip(b"\n"), retain=False)
        message = _accepted(guard, packet, at_ns // 1_000_000)
        for feature in message.payload.summary_features:
            seen.setdefault(int(feature.last), at_ns)
    return seen


def _accepted(guard: Guard, packet: Packet, now_ms: int) -> Any:
    verdict = guard.judge(packet, now_ms)
    if not isinstance(verdict, Accepted):
        raise DidNotHappenError(f"the consumer's guard: {verdict}")
    return verdict.message


async def _command(hub: House, consumer: _Consumer, count: int) -> Row:
    identity = hub.authority.get(_ACTING).folder
    files = Identity(identity / "cert.der", identity / "key.der", identity / "ca.der")
    listener = hub.settings.brokers.spinal
    node = {
        "device_id": _ACTING,
        "scope_level": "room",
        "scope": "r0",
        "broker": {"host": listener.connect_host, "port": listener.port},
        "ping_s": 1,
        "actuators": [{"id": "lamp", "driver": "digital", "pin": _LAMP_PIN, "boot": 0}],
    }
    flash: Path = hub.state.path / "boards" / _ACTING
    async with VirtualBoard(flash, node, files) as board:
        await _first_success(consumer)
        times = []
        for number in range(count):
            value = number % 2 == 0
            times.append(await _outcome(consumer, value=value))
            if board.level("pin", _LAMP_PIN) != value:
                raise DidNotHappenError(f"the lamp is not {value} after its outcome")
    what = "command request → policy → reliable → board → outcome"
    return Row("command to outcome", what, "ms", percentiles(times), count, (), "one in flight")


async def _first_success(consumer: _Consumer) -> None:
    # A board obeys once it has the hub's time; before, commands end otherwise.
    async with asyncio.timeout(_ONLINE_S):
        while True:
            _, status = await _ask(consumer, value=False)
            if status == "succeeded":
                return
            await asyncio.sleep(0.2)


async def _outcome(consumer: _Consumer, *, value: bool) -> float:
    began = time.perf_counter()
    async with asyncio.timeout(_OUTCOME_S):
        action_id, status = await _ask(consumer, value=value)
    if status != "succeeded":
        raise DidNotHappenError(f"the command {action_id} {status}")
    return (time.perf_counter() - began) * 1e3


async def _ask(consumer: _Consumer, *, value: bool) -> tuple[str, str]:
    publish = messages.request(consumer.mint, _now_ms(), value)
    await consumer.session.publish(publish.address.topic, encode(publish.message), qos=publish.qos)
    wanted: Any = publish.message.meta.action_id
    while True:
        action_id, status = await consumer.outcomes.get()
        if action_id == wanted:
            return action_id, status


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
