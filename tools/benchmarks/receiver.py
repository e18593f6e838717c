"""A process that takes the flood: brainstem as its service runs it, or a bare subscriber.

Started as `python -m benchmarks.receiver brainstem|paho|mosquitto STATE`; prints "ready" once
subscribed, runs until its stdin ends, then prints what it has seen as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.timing import percentiles
from nervus.brainstem import Brainstem, BrainstemSettings
from nervus.brainstem.machine import IDENTITY, TAKES
from nervus.bus import BrokerAddress, Session, Shell, subscriptions
from nervus.runtime.identity import Authority
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder
from nervus.wire import Accepted, Guard, Mint, RejectLane, topics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nervus.runtime.state import BrokerName

_STAMP: Final = re.compile(rb'"t_ms":(\d+)')
_LAG_EVERY: Final = 10
_RATE: Final = 10_000
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
    kind, folder = sys.argv[1:]
    state = StateFolder.open(Path(folder))
    if kind == "brainstem":
        report = asyncio.run(_brainstem(state))
    else:
        report = {"paho": _paho, "mosquitto": _mosquitto}[kind](state)
    print(json.dumps(report), flush=True)


async def _brainstem(state: StateFolder) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), stop.set)
    mint = Mint(IDENTITY, "brainstem", seed=time.time_ns(), boot=int(time.time()))
    sessions = [
        Session(IDENTITY, "spinal", _address(state, "spinal"), filters=subscriptions(TAKES)),
        Session(IDENTITY, "core", _address(state, "core")),
    ]
    settings = BrainstemSettings(source_rate=_RATE, source_burst=_RATE)
    core = Watched(Brainstem(settings, mint))
    grants = {each.name: each.scope for each in Authority(state).identities()}
    guard = Guard(TAKES, granted=grants.get)
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


def _paho(state: StateFolder) -> dict[str, Any]:
    lags_ms: list[float] = []
    received = 0

    def take(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        nonlocal received
        received += 1
        if received % _LAG_EVERY == 0 and (found := _STAMP.search(message.payload)):
            lags_ms.append(time.time_ns() / 1e6 - int(found[1]))

    client = Client(CallbackAPIVersion.VERSION2, IDENTITY)
    address = _address(state, "spinal")
    client.tls_set_context(address.tls)
    client.on_message = take
    client.on_subscribe = lambda *_: _tell_ready()
    client.connect(address.host, address.port)
    client.subscribe([(each.topic, each.qos) for each in subscriptions(TAKES)])
    client.loop_start()
    sys.stdin.read()
    client.loop_stop()
    return _report(lags_ms, received)


def _mosquitto(state: StateFolder) -> dict[str, Any]:
    """mosquitto_sub writes a line for each message; it tells neither lag nor when it is ready."""
    address, identity = _address(state, "spinal"), Authority(state).get(IDENTITY)
    command = ["mosquitto_sub", "-V", "5", "-h", address.host, "-p", str(address.port), "-F", "x"]
    command += [
        *("--cafile", str(identity.ca), "--cert", str(identity.cert), "--key", str(identity.key))
    ]
    for each in subscriptions(TAKES):
        command += ["-t", each.topic, "-q", str(each.qos)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as subscriber:  # noqa: S603 - of our own words
        time.sleep(_CONNECTED_S)
        _tell_ready()
        sys.stdin.read()
        subscriber.terminate()
        output, _ = subscriber.communicate(timeout=_ENDS_S)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    received = output.count(b"\n")
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


def _address(state: StateFolder, broker: BrokerName) -> BrokerAddress:
    listener = Settings.load(state.settings_file).brokers.get(broker)
    tls = Authority(state).get(IDENTITY).ssl_context()
    return BrokerAddress(listener.connect_host, listener.port, tls)


if __name__ == "__main__":
    main()
