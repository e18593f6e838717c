"""Urgent afferents that nobody has been told of yet, and a brainstem that dies."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fault.bending_proxy import BendingProxy, bending, disconnect
from hub.plain_broker import PlainBroker, running, within
from nervus.brainstem import BrainstemSettings, build
from nervus.bus import DURABLE, Filter, Origin, Session, Shell, subscriptions
from nervus.wire import Mint, Packet, encode, topics
from nervus.wire.contracts import AfferentSignal, AfferentSignalPayload


class Brainstem:
    """One life of brainstem: what it knows is gone with it."""

    def __init__(
        self, spinal: PlainBroker | BendingProxy, core: PlainBroker, life: int, **settings: Any
    ) -> None:
        made = build(
            BrainstemSettings(**settings), Origin(life, life, "home"), lambda _: "room/hall"
        )
        self.counters, self.intake = made.core.counters, made.core.intake
        self.up = Session("brainstem", "core", core.address, limits=DURABLE)
        self.down = Session(
            "brainstem", "spinal", spinal.address,
            filters=subscriptions([topics.AFFERENT]), limits=DURABLE,
        )  # fmt: skip
        self.shell = Shell(made.core, [self.down, self.up], made.guard, made.lane)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator["Brainstem"]:
        """Connected, until it dies."""
        ready = asyncio.Event()
        task = asyncio.create_task(self.shell.run(ready.set))
        try:
            await within(ready.is_set)
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[tuple[PlainBroker, PlainBroker]]:
    for name in ("spinal", "core"):
        (tmp_path / name).mkdir()
    spinal, core = (PlainBroker(tmp_path / name) for name in ("spinal", "core"))
    await spinal.start()
    await core.start()
    yield spinal, core
    spinal.kill()
    core.kill()


class Relay:
    """Who the bundles are for: knows which sensors it was told of."""

    def __init__(self, core: PlainBroker) -> None:
        self.told: list[str] = []
        self.session = Session(
            "relay", "core", core.address,
            filters=[Filter(topics.RELAY_BUNDLE.filter(), 1)], on_packet=self._take,
        )  # fmt: skip

    async def _take(self, packet: Packet) -> None:
        message = json.loads(packet.payload)
        assert message["meta"]["priority"] == "critical"
        self.told.extend(each["sensor_type"] for each in message["payload"]["summary_features"])


_board = Mint("device:b1", "spinal", seed=1, boot=1)


async def alarm(board: Session, sensor: str, *, ago_ms: int = 0, **fields: Any) -> None:
    """Send something urgent, that lives longer than any restart takes."""
    now_ms = time.time_ns() // 1_000_000
    address = topics.afferent("room", "hall", sensor, "b1")
    payload = AfferentSignalPayload(sensor_type=sensor, value=1)
    made = _board.compact(
        AfferentSignal, address, payload, now_ms,
        t_ms=now_ms - ago_ms, ttl_ms=3_600_000, priority="critical", **fields,
    )  # fmt: skip
    await board.publish(address.topic, encode(made.message), qos=1)


@pytest.mark.req("S1-68")
async def test_what_is_urgent_is_told_after_a_restart_when_its_bundle_got_nowhere(
    brokers: tuple[PlainBroker, PlainBroker],
) -> None:
    spinal, core = brokers
    relay, board = Relay(core), Session("b1", "spinal", spinal.address)
    async with running(board):
        async with Brainstem(spinal, core, 1).alive() as first:
            core.kill()
            await within(lambda: not first.up.connected)
            await alarm(board, "motion")
            await within(lambda: first.counters.bundles == 1)
        await core.start()
        async with running(relay.session), Brainstem(spinal, core, 2).alive():
            await within(lambda: relay.told == ["motion"])


# Its windows end ten seconds from now at the soonest, and it tells one urgent sample before.
SLOW = {"window_ms": 60_000, "lateness_ms": 10_000, "urgent_rate": 0.001, "urgent_burst": 1}


async def test_what_is_urgent_is_told_after_a_restart_when_its_window_was_open(
    brokers: tuple[PlainBroker, PlainBroker],
) -> None:
    spinal, core = brokers
    relay, board = Relay(core), Session("b1", "spinal", spinal.address)
    async with running(board, relay.session):
        async with Brainstem(spinal, core, 1, **SLOW).alive() as first:
            await alarm(board, "motion")
            await within(lambda: relay.told == ["motion"])
            await alarm(board, "temperature")
            await alarm(board, "button", ago_ms=60_000, historical=True)
            await within(lambda: first.intake.afferents == 3)
        async with Brainstem(spinal, core, 2).alive():
            await within(lambda: {"temperature", "button"} <= set(relay.told))


async def test_what_is_urgent_is_told_after_a_restart_when_its_connection_broke_before(
    brokers: tuple[PlainBroker, PlainBroker],
) -> None:
    spinal, core = brokers
    relay, board = Relay(core), Session("b1", "spinal", spinal.address)
    async with bending(spinal.address) as proxy, running(board, relay.session):
        async with Brainstem(proxy, core, 1, **SLOW).alive() as first:
            await alarm(board, "motion")
            await within(lambda: relay.told == ["motion"])
            await within(lambda: "Received PUBACK from brainstem" in spinal.log())
            await alarm(board, "temperature")
            await within(lambda: first.intake.afferents == 2)
            proxy.say(disconnect(0x8B))
            # The broker sends it once more, to a brainstem that has it already.
            await within(lambda: first.shell.counters.rejected == 1)
        async with Brainstem(proxy, core, 2).alive():
            await within(lambda: "temperature" in relay.told)
