"""An urgent afferent whose bundle nobody has yet, and a brainstem that dies."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from hub.plain_broker import PlainBroker, running, within
from nervus.brainstem import BrainstemSettings, build
from nervus.bus import DURABLE, Filter, Origin, Session, Shell, subscriptions
from nervus.wire import Mint, Packet, encode, topics
from nervus.wire.contracts import AfferentSignal, AfferentSignalPayload


class Brainstem:
    """One life of brainstem: what it knows is gone with it."""

    def __init__(self, spinal: PlainBroker, core: PlainBroker, life: int) -> None:
        made = build(BrainstemSettings(), Origin(life, life, "home"), lambda _: "room/hall")
        self.counters = made.core.counters
        self.up = Session("brainstem", "core", core.address, limits=DURABLE)
        self.down = Session(
            "brainstem", "spinal", spinal.address,
            filters=subscriptions([topics.AFFERENT]), limits=DURABLE,
        )  # fmt: skip
        self._shell = Shell(made.core, [self.down, self.up], made.guard, made.lane)

    @asynccontextmanager
    async def alive(self) -> AsyncIterator["Brainstem"]:
        """Connected, until it dies."""
        ready = asyncio.Event()
        task = asyncio.create_task(self._shell.run(ready.set))
        try:
            await within(ready.is_set)
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.req("S1-68")
async def test_what_is_urgent_is_told_after_a_restart_when_its_bundle_got_nowhere(
    tmp_path: Path,
) -> None:
    for name in ("spinal", "core"):
        (tmp_path / name).mkdir()
    spinal, core = (PlainBroker(tmp_path / name) for name in ("spinal", "core"))
    bundles: list[str] = []

    async def take(packet: Packet) -> None:
        message = json.loads(packet.payload)
        assert message["meta"]["priority"] == "critical"
        bundles.extend(str(each["last"]) for each in message["payload"]["summary_features"])

    reader = Session(
        "relay", "core", core.address,
        filters=[Filter(topics.RELAY_BUNDLE.filter(), 1)], on_packet=take,
    )  # fmt: skip
    board = Session("b1", "spinal", spinal.address)
    address = topics.afferent("room", "hall", "motion", "b1")
    mint = Mint("device:b1", "spinal", seed=1, boot=1)
    payload = AfferentSignalPayload(sensor_type="motion", value=True)
    now_ms = time.time_ns() // 1_000_000
    urgent = mint.compact(AfferentSignal, address, payload, now_ms, priority="critical")
    await spinal.start()
    await core.start()
    try:
        async with running(board):
            async with Brainstem(spinal, core, 1).alive() as first:
                core.kill()
                await within(lambda: not first.up.connected)
                await board.publish(address.topic, encode(urgent.message), qos=1)
                await within(lambda: first.counters.bundles == 1)
            await core.start()
            async with running(reader), Brainstem(spinal, core, 2).alive():
                await within(lambda: bundles == ["True"])
    finally:
        spinal.kill()
        core.kill()
