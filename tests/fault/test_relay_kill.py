"""SIGKILL of the relay under critical traffic: each driver is relayed, none waits in vain."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hub.plain_broker import running, within
from hub.plane_inputs import bundle_payload
from nervus.bus import Filter, Session
from nervus.runtime.notify import READY_DESCRIPTOR_VARIABLE
from nervus.runtime.services import ServiceContext
from nervus.wire import Accepted, Guard, Mint, Packet, encode, topics
from nervus.wire.contracts import RelayBundle
from support import DEADLINE_S, DIES_WITH_US, House

pytestmark = pytest.mark.usefixtures("unmeasured")

KILLS = 2


@asynccontextmanager
async def relay(house: House) -> AsyncIterator[asyncio.subprocess.Process]:
    """The relay in a process of its own, ready; killed at the end."""
    read_end, write_end = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, sys.executable, "-m", "nervus", "run", "--state", str(house.state.path),
        "thalamus",
        env=os.environ | {READY_DESCRIPTOR_VARIABLE: str(write_end)}, pass_fds=(write_end,),
    )  # fmt: skip
    os.close(write_end)
    try:
        with open(read_end, "rb", buffering=0) as pipe:  # noqa: ASYNC230, PTH123  read in a thread
            async with asyncio.timeout(2 * DEADLINE_S):
                assert await asyncio.to_thread(pipe.read, 64)
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.mark.timeout(120)  # four starts of a service, each some seconds on a busy machine
async def test_a_killed_relay_relays_what_came_meanwhile(running_house: House) -> None:
    house = running_house
    for name, role in (("relay", "relay"), ("brainstem", "brainstem"), ("watcher", "observer")):
        house.join(name, role)
    context = ServiceContext("test", house.settings, house.state, 1, 1, lambda: None)
    relayed: list[str] = []

    async def see(packet: Packet) -> None:
        verdict = Guard([topics.GATED_RELAY]).judge(packet, time.time_ns() // 1_000_000)
        assert isinstance(verdict, Accepted), verdict
        relayed.append(verdict.message.meta.parent_id)

    driver = Session("brainstem", "core", context.session_config("brainstem", "core"))
    watcher = Session(
        "watcher", "core", context.session_config("watcher", "core"), on_packet=see,
        filters=[Filter(topics.GATED_RELAY.filter(), 1)],
    )  # fmt: skip
    mint = Mint("brainstem", "brainstem", seed=7, boot=1)
    sent: list[str] = []

    async def traffic() -> None:
        address = topics.relay_bundle("room", "kitchen", "somatic")
        while True:
            now_ms = time.time_ns() // 1_000_000
            message = mint.full(
                RelayBundle, address, bundle_payload(start_ms=now_ms), now_ms,
                priority="critical", ttl_ms=600_000,
            ).message  # fmt: skip
            await driver.publish(address.topic, encode(message), qos=1, deadline_s=15)
            sent.append(message.meta.message_id)
            await asyncio.sleep(0.005)

    async with running(driver, watcher):
        async with relay(house):
            talking = asyncio.create_task(traffic())
            await within(lambda: len(relayed) > 20, 15)
        for _ in range(KILLS):
            away = len(sent)
            await within(lambda away=away: len(sent) > away + 20, 15)
            async with relay(house):
                await within(lambda away=away: set(sent[: away + 20]) <= set(relayed), 15)
        talking.cancel()
        await asyncio.wait([talking])
        assert talking.cancelled(), talking.exception()
        async with relay(house):
            await within(lambda: set(sent) <= set(relayed), 15)
    # Once each, but for those whose acknowledgement a kill cut off.
    assert len(relayed) - len(set(relayed)) <= 256 * KILLS
