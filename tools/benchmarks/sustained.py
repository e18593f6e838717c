"""How many afferents a second one receiver sustains: no loss, and 99 of 100 within 100 ms."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.house import house
from benchmarks.messages import ROOMS
from benchmarks.table import Goal, Row
from benchmarks.timing import DidNotHappenError
from nervus.wire import topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.house import House

BOARDS: Final = 100
LAG_LIMIT_MS: Final = 100.0
_FIRST: Final = 2_000.0
_BEYOND: Final = 3.0
"""Times the limit of lag, and percents of loss, beyond which a rate was not missed by bad luck."""
_LAST: Final = 128_000.0
_BISECTIONS: Final = 3
_PACE: Final = 0.97
_SECONDS: Final = 3.0
_QUICK_RATE: Final = 300.0
_QUICK_SECONDS: Final = 0.5
_QUICK_BOARDS: Final = 5
_PLAN: Final = {"plain": (0, 1), "tls": (0, 1)}
_QUICK_PLAN: Final = {"plain": (0,), "tls": (1,)}
_SETTLE_S: Final = 0.5
_DEADLINE_S: Final = 60.0
_INSTALL_S: Final = 180.0
_GOALS: Final = {0: 50_000.0, 1: 40_000.0}
_RATIOS: Final = {"node": 1.0, "node-red": 4.0}
_WHAT: Final = {
    "brainstem": "brainstem, validated, deduplicated, windowed, bundled",
    "node": "mqtt.js + ajv, validated, deduplicated, windowed",
    "node-red": "Node-RED, deduplicated, windowed",
    "mosquitto": "bare mosquitto_sub (C), a line for each",
}
_HERE: Final = Path(__file__).parent
_PACKAGES: Final = _HERE.parents[1] / "tests" / "node" / "node_modules"
_NODE_RED: Final = _HERE.parents[1] / ".tools" / "node-red"
_NODE_RED_VERSION: Final = "4.1"


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, held for some seconds."""

    rate: float
    sent: int
    received: int
    refused: int
    sent_rate: float
    lag_p99_ms: float | None
    cpu_s: float

    @property
    def hopeless(self) -> bool:
        """Whether the rate was missed by so much that another try is in vain."""
        lag_ms = self.lag_p99_ms or 0.0
        return (
            self.sent - self.received > _BEYOND / 100 * self.sent or lag_ms > _BEYOND * LAG_LIMIT_MS
        )

    @property
    def trouble(self) -> str | None:
        """Why the rate that was asked for was not held; None when it was."""
        if self.sent_rate < _PACE * self.rate:
            return f"the broker took no more than {self.sent_rate:,.0f}/s"
        if self.received != self.sent:
            return f"{self.sent - self.received} of {self.sent} were lost"
        if self.refused:
            return f"{self.refused} of {self.sent} were refused"
        if self.lag_p99_ms is not None and self.lag_p99_ms > LAG_LIMIT_MS:
            return f"p99 lag {self.lag_p99_ms:,.0f} ms"
        return None


@dataclass(frozen=True, slots=True)
class Found:
    """The highest rate that was held, and why the next one was not."""

    best: Step
    beyond: str | None


async def measure(quick: bool, tell: Callable[[str], None]) -> list[Row]:  # noqa: FBT001 - every benchmark has this one signature
    """Find the rates of all receivers, at both qualities of service, over plain TCP and TLS."""
    kinds = list(_WHAT)
    if not _PACKAGES.is_dir():
        tell("mqtt.js + ajv are left out: tools/setup --test installs them")
        kinds.remove("node")
    without_node_red = "a quick run does not install it" if quick else await _install_node_red(tell)
    if without_node_red:
        kinds.remove("node-red")
    rows = []
    boards = {f"b{n}": f"room/r{n % ROOMS}" for n in range(_QUICK_BOARDS if quick else BOARDS)}
    for link, qualities in (_QUICK_PLAN if quick else _PLAN).items():
        async with house(boards=boards, parts={}, services=False, tls=link == "tls") as hub:
            for qos in qualities:
                found = {}
                for kind in kinds:
                    found[kind] = await _search(hub, kind, qos, quick=quick, tell=tell)
                    rows += _rows(kind, link, qos, found[kind])
                rows += [_ratio(found, kind, link, qos) for kind in kinds if kind != "brainstem"]
    if without_node_red and not quick:
        rows.append(Row("sustained node-red", _WHAT["node-red"], "", {}, 0, (), without_node_red))
    return rows


async def flood(
    hub: House, qos: int, rate: float, seconds: float, *, urgent_of: str | None = None
) -> dict[str, Any]:
    """Send afferents of all boards, or urgent ones of one, from a process of its own.

    Returns:
        What `benchmarks.flood` prints.

    Raises:
        DidNotHappenError: It ended early.
    """
    listener = hub.settings.brokers.spinal
    boards = [each for each in hub.authority.identities() if each.role == "board"]
    plan = {
        "host": listener.connect_host,
        "port": listener.port,
        "boards": {
            each.name: (each.scope, str(each.folder) if hub.tls else None)
            for each in boards
            if urgent_of in (None, each.name)
        },
        "rate": rate,
        "seconds": seconds,
        "qos": qos,
        "urgent": urgent_of is not None,
    }
    process = await _start(sys.executable, "-m", "benchmarks.flood", json.dumps(plan))
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise DidNotHappenError("the flood ended early; what it wrote stands above")
    sent: dict[str, Any] = json.loads(output)
    return sent


def _ratio(found: dict[str, Found], kind: str, link: str, qos: int) -> Row:
    ratio = found["brainstem"].best.rate / found[kind].best.rate
    cpu = _cpu_us(found[kind].best) / _cpu_us(found["brainstem"].best)
    goals = (Goal("≥", _RATIOS[kind], "sustained"),) if kind in _RATIOS else ()
    name = f"sustained {link} qos{qos} to {kind}"
    what = f"brainstem to {_WHAT[kind].split(',')[0]}, QoS {qos}, {link}"
    values = {"sustained": ratio, "CPU": cpu}
    return Row(name, what, "times", values, 2, goals, "same run, same broker")


def _rows(kind: str, link: str, qos: int, found: Found) -> list[Row]:
    step = found.best
    ours = kind == "brainstem"
    goals = (Goal("≥", _GOALS[qos], "sustained"),) if ours else ()
    lag_goals = (Goal("≤", LAG_LIMIT_MS, "p99"),) if ours else ()
    name = f"sustained {link} qos{qos} {kind}"
    note = f"{link}, {BOARDS} boards, QoS {qos}; {_cpu_us(step):.0f} µs of CPU each"
    if found.beyond:
        note += f"; beyond it {found.beyond}"
    rates = {"sustained": step.rate}
    rows = [Row(name, _WHAT[kind], "messages/s", rates, step.received, goals, note)]
    if step.lag_p99_ms is not None:
        values = {"p99": step.lag_p99_ms}
        rows.append(
            Row(f"{name} lag", "… its lag at that rate", "ms", values, step.received, lag_goals)
        )
    return rows


def _cpu_us(step: Step) -> float:
    return 1e6 * step.cpu_s / max(1, step.received)


async def _search(
    hub: House, kind: str, qos: int, *, quick: bool, tell: Callable[[str], None]
) -> Found:
    """Double the rate until it is not held, then halve the distance."""
    if quick:
        return Found(await _try(hub, kind, qos, _QUICK_RATE, _QUICK_SECONDS), None)
    rate, best, failed = _FIRST, None, None
    while failed is None and rate <= _LAST:
        step = await _try_twice(hub, kind, qos, rate, tell)
        if step.trouble is None:
            best, rate = step, 2 * rate
        else:
            failed = step
    if best is None:
        raise DidNotHappenError(f"{kind} does not even sustain {_FIRST:,.0f} messages/s")
    for _ in range(_BISECTIONS if failed else 0):
        middle = (best.rate + (failed.rate if failed else 0)) / 2
        step = await _try_twice(hub, kind, qos, middle, tell)
        best, failed = (best, step) if step.trouble else (step, failed)
    return Found(best, failed.trouble if failed else None)


async def _try_twice(
    hub: House, kind: str, qos: int, rate: float, tell: Callable[[str], None]
) -> Step:
    """One bad moment of a shared machine must not end the search; what is far off is far off."""
    step = await _try(hub, kind, qos, rate, _SECONDS)
    tell(_told(hub, kind, qos, step))
    if step.trouble and not step.hopeless:
        step = await _try(hub, kind, qos, rate, _SECONDS)
        tell(_told(hub, kind, qos, step))
    return step


def _told(hub: House, kind: str, qos: int, step: Step) -> str:
    held = f"does not hold: {step.trouble}" if step.trouble else "holds"
    lag = "" if step.lag_p99_ms is None else f", p99 {step.lag_p99_ms:.0f} ms"
    link = "TLS" if hub.tls else "plain TCP"
    return f"{link}, QoS {qos}, {step.rate:,.0f}/s: {kind} {held}{lag}, {_cpu_us(step):.0f} µs each"


async def _try(hub: House, kind: str, qos: int, rate: float, seconds: float) -> Step:
    with tempfile.TemporaryDirectory(prefix="nervus-bench-") as folder:
        receiver = await _start(*_command(hub, kind, folder))
        try:
            async with asyncio.timeout(_DEADLINE_S):
                if await _line(receiver) != "ready":
                    raise DidNotHappenError(f"{kind} was not ready; what it wrote stands above")
                sent = await flood(hub, qos, rate, seconds)
                await asyncio.sleep(_SETTLE_S)
                if receiver.stdin is not None:
                    receiver.stdin.close()
                output, _ = await receiver.communicate()
        except TimeoutError as error:
            doing = f"{kind} at {rate:,.0f}/s, QoS {qos}"
            raise DidNotHappenError(f"{doing}: not over after {_DEADLINE_S:g} s") from error
        finally:
            if receiver.returncode is None:
                receiver.kill()
                await receiver.wait()
    seen = json.loads(output)
    if not seen["received"]:
        raise DidNotHappenError(f"{kind} received nothing at {rate:,.0f}/s")
    lag = seen["lag_ms"]["p99"] if seen["lag_ms"] else None
    sent_rate = sent["sent"] / sent["seconds"]
    refused = seen.get("rejected", 0)
    return Step(rate, sent["sent"], seen["received"], refused, sent_rate, lag, seen["cpu_s"])


def _command(hub: House, kind: str, folder: str) -> list[str]:
    if kind in ("brainstem", "mosquitto"):
        link = "tls" if hub.tls else "plain"
        return [sys.executable, "-m", "benchmarks.receiver", kind, str(hub.state.path), link]
    listener = hub.settings.brokers.spinal
    url = f"mqtt{'s' if hub.tls else ''}://{listener.connect_host}:{listener.port}"
    identity = [str(hub.authority.get("brainstem").folder)] if hub.tls else []
    if kind == "node":
        return ["node", str(_HERE / "peer.mjs"), url, *identity]
    own = [str(_NODE_RED), folder, url, topics.AFFERENT.filter()]
    return ["node", str(_HERE / "node_red.mjs"), *own, *identity]


async def _install_node_red(tell: Callable[[str], None]) -> str | None:
    """Install the peer for this benchmark alone; returns why it is left out, if it is."""
    if (_NODE_RED / "node_modules" / "node-red").is_dir():
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "left out: no npm here"
    tell(f"Node-RED {_NODE_RED_VERSION} is installed into {_NODE_RED}, once")
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    process = await _start(
        npm, "install", "--prefix", str(_NODE_RED), *options, f"node-red@{_NODE_RED_VERSION}"
    )
    try:
        async with asyncio.timeout(_INSTALL_S):
            await process.communicate()
    except TimeoutError:
        return f"left out: npm did not install it within {_INSTALL_S:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return None if process.returncode == 0 else "left out: npm could not install it"


async def _start(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def _line(process: asyncio.subprocess.Process) -> str:
    if process.stdout is None:
        return ""
    return (await process.stdout.readline()).decode().strip()
