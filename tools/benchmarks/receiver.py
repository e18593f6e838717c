"""A process that takes the flood: brainstem as its service runs it, or a bare subscriber.

Started as `python -m benchmarks.receiver brainstem|mosquitto STATE tls|plain`; prints "ready" once
subscribed, runs until its stdin ends, then prints what it has seen as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.timing import percentiles
from nervus.brainstem import Brainstem, BrainstemSettings
from nervus.brainstem.machine import IDENTITY, TAKES
from nervus.bus import BrokerAddress, Session, Shell, subscriptions
from nervus.runtime.grants import Grants
from nervus.runtime.identity import Authority
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder
from nervus.wire import Accepted, Guard, Mint, RejectLane, topics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nervus.runtime.state import BrokerName

_LAG_EVERY: Final = 10
_RATE: Final = 100_000
_CONNECTED_S: Final = 1.0
_ENDS_S: Final = 10.0


@dataclass(slots=True)
class _Starting:
    cpu_s: float = 0.0


_starting: Final = _Starting()


class Watched:
    """A core that notes how old every tenth afferent is when it has been taken in."""

    def __init__(self, core: Brainstem) -> None:
        self.lags_ms: list[float] = []
        self.afferents = 0
        self.publishes = 0
        self._core = core

    @property
    def due_ms(self) -> int:
        """As the core's."""
        return self._core.due_ms

    def step(self, event: Any, now_ms: int, /) -> Sequence[Any]:
        """As the core, watched."""
        effects = self._core.step(event, now_ms)
        if isinstance(event, Accepted) and event.address.spec is topics.AFFERENT:
            self.afferents += 1
            # As of the others: to look at each would be a part of what is measured.
            if self.afferents % _LAG_EVERY == 0:
                self.lags_ms.append(time.time_ns() / 1e6 - event.message.meta.t_ms)
        self.publishes += len(effects)
        return effects

    def tick(self, now_ms: int, /) -> Sequence[Any]:
        """As the core."""
        effects = self._core.tick(now_ms)
        self.publishes += len(effects)
        return effects


def main() -> None:
    """Run what the command line names."""
    kind, folder, link = sys.argv[1:]
    state, tls = StateFolder.open(Path(folder)), link == "tls"
    report = asyncio.run(_brainstem(state, tls)) if kind == "brainstem" else _mosquitto(state, tls)
    print(json.dumps(report), flush=True)


async def _brainstem(state: StateFolder, tls: bool) -> dict[str, Any]:  # noqa: FBT001 - of the link
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), stop.set)
    mint = Mint(IDENTITY, "brainstem", seed=time.time_ns(), boot=int(time.time()))
    sessions = [
        Session(IDENTITY, "spinal", _address(state, "spinal", tls), filters=subscriptions(TAKES)),
        Session(IDENTITY, "core", _address(state, "core", tls)),
    ]
    # What a flood is refused for must not make it cheaper.
    settings = BrainstemSettings(
        source_rate=_RATE, source_burst=_RATE, scope_rate=_RATE, scope_burst=_RATE
    )
    core = Watched(Brainstem(settings, mint))
    grants = Grants(state)

    def granted(device_id: str) -> str | None:
        return grants.grants().get(device_id)

    guard = Guard(TAKES, granted=granted)
    shell = Shell(core, sessions, guard, RejectLane(mint, "home"))
    running = asyncio.create_task(shell.run(_tell_ready))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return _report(core.lags_ms, core.afferents) | {
        "rejected": shell.counters.rejected,
        "bundles": core.publishes,
    }


def _mosquitto(state: StateFolder, tls: bool) -> dict[str, Any]:  # noqa: FBT001 - of the link
    """mosquitto_sub writes a line for each message; it tells neither lag nor when it is ready."""
    address, identity = _address(state, "spinal", tls), Authority(state).get(IDENTITY)
    command = ["mosquitto_sub", "-V", "5", "-h", address.host, "-p", str(address.port), "-F", "x"]
    command += ["-i", IDENTITY]
    if tls:
        files = {"--cafile": identity.ca, "--cert": identity.cert, "--key": identity.key}
        command += [word for name, path in files.items() for word in (name, str(path))]
    for each in subscriptions(TAKES):
        command += ["-t", each.topic, "-q", str(each.qos)]
    # Into a file: a pipe that nobody reads is full after 32,768 lines, and it would stand still.
    with (
        tempfile.TemporaryFile() as lines,
        subprocess.Popen(command, stdout=lines) as subscriber,  # noqa: S603 - of our own words
    ):
        time.sleep(_CONNECTED_S)
        _tell_ready()
        sys.stdin.read()
        subscriber.terminate()
        subscriber.wait(timeout=_ENDS_S)
        lines.seek(0)
        received = lines.read().count(b"\n")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"received": received, "lag_ms": None, "cpu_s": used.ru_utime + used.ru_stime}


def _report(lags_ms: list[float], received: int) -> dict[str, Any]:
    lag = percentiles(lags_ms) if lags_ms else None
    cpu_s = time.process_time() - _starting.cpu_s
    return {"received": received, "lag_ms": lag, "cpu_s": cpu_s}


def _tell_ready() -> None:
    gc.collect()
    gc.freeze()  # as the runtime does once a service is ready
    _starting.cpu_s = time.process_time()
    print("ready", flush=True)


def _address(state: StateFolder, broker: BrokerName, tls: bool) -> BrokerAddress:  # noqa: FBT001 - of the link
    listener = Settings.load(state.settings_file).brokers.get(broker)
    context = Authority(state).get(IDENTITY).ssl_context() if tls else None
    return BrokerAddress(listener.connect_host, listener.port, context)


if __name__ == "__main__":
    main()
