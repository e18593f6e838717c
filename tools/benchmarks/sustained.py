"""How many afferents a second one receiver sustains: no loss, and 99 of 100 within 100 ms."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.house import house
from benchmarks.messages import ROOMS
from benchmarks.table import Goal, Row
from benchmarks.timing import DidNotHappenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.house import House

BOARDS: Final = 20
LAG_LIMIT_MS: Final = 100.0
_LADDER: Final = (1_000, 2_000, 4_000, 6_000, 8_000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000)
_PACE: Final = 0.97
_SECONDS: Final = 3.0
_BISECTIONS: Final = 2
_QUICK_RATE: Final = 300
_QUICK_SECONDS: Final = 0.5
_SETTLE_S: Final = 0.5
_DEADLINE_S: Final = 30.0
_GOALS: Final = {("brainstem", 0): 50_000.0, ("brainstem", 1): 40_000.0}
_WHAT: Final = {
    "brainstem": "brainstem service, validated, deduplicated, windowed",
    "node": "mqtt.js + ajv, validated, deduplicated, windowed",
    "paho": "bare paho subscriber, counting only",
    "mosquitto": "bare mosquitto_sub (C), a line for each",
}
_PEER: Final = Path(__file__).with_name("peer.mjs")
_PACKAGES: Final = Path(__file__).parents[2] / "tests" / "node" / "node_modules"


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, held for some seconds."""

    rate: float
    sent: int
    received: int
    sent_rate: float
    lag_p99_ms: float | None
    cpu_s: float

    @property
    def sustained(self) -> bool:
        """Whether everything came, in time, at the rate that was asked for."""
        whole = self.received == self.sent and self.sent_rate >= _PACE * self.rate
        return whole and (self.lag_p99_ms is None or self.lag_p99_ms <= LAG_LIMIT_MS)


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Find the rates of all receivers, at both qualities of service, over one TLS broker."""
    boards = {f"b{n}": f"room/r{n % ROOMS}" for n in range(BOARDS)}
    kinds = [kind for kind in _WHAT if kind != "node" or _PACKAGES.is_dir()]
    if "node" not in kinds:
        tell("mqtt.js + ajv are left out: tools/setup --test installs them")
    rows = []
    async with house(boards=boards, parts={}, services=False) as hub:
        for qos in (0, 1):
            best = {}
            for kind in kinds:
                best[kind] = await _search(hub, kind, qos, quick=quick, tell=tell)
                rows += _rows(kind, qos, best[kind])
            rows += [_ratio(best, kind, qos) for kind in kinds if kind != "brainstem"]
    return rows


def _ratio(best: dict[str, Step], kind: str, qos: int) -> Row:
    ratio = best["brainstem"].rate / best[kind].rate
    goals = (Goal("≥", 1.0, "ratio"),) if kind == "node" else ()
    name = f"sustained qos{qos} to {kind}"
    what = f"brainstem to {_WHAT[kind].split(',')[0]}, QoS {qos}"
    return Row(name, what, "times", {"ratio": ratio}, 2, goals, "same run, same broker")


def _rows(kind: str, qos: int, step: Step) -> list[Row]:
    limit = _GOALS.get((kind, qos))
    goals = (Goal("≥", limit, "sustained"),) if limit else ()
    lag_goals = (Goal("≤", LAG_LIMIT_MS, "p99"),) if limit else ()
    name = f"sustained qos{qos} {kind}"
    cpu_us = 1e6 * step.cpu_s / max(1, step.received)
    note = f"TLS, {BOARDS} boards, QoS {qos}; {cpu_us:.0f} µs of CPU each"
    rates = {"sustained": step.rate}
    rows = [Row(name, _WHAT[kind], "messages/s", rates, step.received, goals, note)]
    if step.lag_p99_ms is not None:
        values = {"p99": step.lag_p99_ms}
        rows.append(
            Row(f"{name} lag", "… its lag at that rate", "ms", values, step.received, lag_goals)
        )
    return rows


async def _search(
    hub: House, kind: str, qos: int, *, quick: bool, tell: Callable[[str], None]
) -> Step:
    if quick:
        return await _try(hub, kind, qos, _QUICK_RATE, _QUICK_SECONDS)
    best, failed = None, None
    for rate in _LADDER:
        step = await _try_twice(hub, kind, qos, rate, tell)
        if not step.sustained:
            failed = step
            break
        best = step
    if best is None:
        raise DidNotHappenError(f"{kind} does not even sustain {_LADDER[0]} messages/s")
    for _ in range(_BISECTIONS if failed else 0):
        middle = (best.rate + (failed.rate if failed else 0)) / 2
        step = await _try_twice(hub, kind, qos, middle, tell)
        best, failed = (step, failed) if step.sustained else (best, step)
    return best


async def _try_twice(
    hub: House, kind: str, qos: int, rate: float, tell: Callable[[str], None]
) -> Step:
    """One bad moment of a shared machine must not end the search."""
    step = await _try(hub, kind, qos, rate, _SECONDS)
    tell(_told(kind, qos, step))
    if not step.sustained:
        step = await _try(hub, kind, qos, rate, _SECONDS)
        tell(_told(kind, qos, step))
    return step


def _told(kind: str, qos: int, step: Step) -> str:
    lost = step.sent - step.received
    word = "holds" if step.sustained else "does not hold"
    lag = "lag unknown" if step.lag_p99_ms is None else f"p99 {step.lag_p99_ms:.0f} ms"
    return (
        f"{kind} {word} {step.rate:,.0f}/s at QoS {qos}: {lost} lost, "
        f"{lag}, sent at {step.sent_rate:,.0f}/s"
    )


async def _try(hub: House, kind: str, qos: int, rate: float, seconds: float) -> Step:
    receiver = await _receiver(hub, kind)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            if await _line(receiver) != "ready":
                raise DidNotHappenError(f"{kind} was not ready; what it wrote stands above")
            sent = await _flood(hub, qos, rate, seconds)
            await asyncio.sleep(_SETTLE_S)
            if receiver.stdin is not None:
                receiver.stdin.close()
            output, _ = await receiver.communicate()
    finally:
        if receiver.returncode is None:
            receiver.kill()
            await receiver.wait()
    seen = json.loads(output)
    if not seen["received"]:
        raise DidNotHappenError(f"{kind} received nothing at {rate:,.0f}/s")
    lag = seen["lag_ms"]["p99"] if seen["lag_ms"] else None
    sent_rate = sent["sent"] / sent["seconds"]
    return Step(rate, sent["sent"], seen["received"], sent_rate, lag, seen["cpu_s"])


async def _receiver(hub: House, kind: str) -> asyncio.subprocess.Process:
    if kind != "node":
        return await _start(sys.executable, "-m", "benchmarks.receiver", kind, str(hub.state.path))
    listener = hub.settings.brokers.spinal
    url = f"mqtts://{listener.connect_host}:{listener.port}"
    return await _start("node", str(_PEER), url, str(hub.authority.get("brainstem").folder))


async def _flood(hub: House, qos: int, rate: float, seconds: float) -> dict[str, Any]:
    listener = hub.settings.brokers.spinal
    boards = {f"b{n}": str(hub.authority.get(f"b{n}").folder) for n in range(BOARDS)}
    plan = {
        "host": listener.connect_host,
        "port": listener.port,
        "boards": boards,
        "rate": rate,
        "seconds": seconds,
        "qos": qos,
    }
    flood = await _start(sys.executable, "-m", "benchmarks.flood", json.dumps(plan))
    try:
        output, _ = await flood.communicate()
    finally:
        if flood.returncode is None:
            flood.kill()
            await flood.wait()
    if flood.returncode != 0:
        raise DidNotHappenError("the flood ended early; what it wrote stands above")
    sent: dict[str, Any] = json.loads(output)
    return sent


async def _start(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def _line(process: asyncio.subprocess.Process) -> str:
    if process.stdout is None:
        return ""
    return (await process.stdout.readline()).decode().strip()
