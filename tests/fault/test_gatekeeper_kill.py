"""A gatekeeper that dies while it suppresses: content flows again, on real brokers."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from hub.plain_broker import running
from hub.plain_broker import within as within_seconds
from hub.plane_inputs import bundle_payload
from nervus.bus import Filter, Session
from nervus.runtime.notify import READY_DESCRIPTOR_VARIABLE
from nervus.runtime.services import ServiceContext
from nervus.thalamus import gatekeeper_service
from nervus.thalamus import service as thalamus_service
from nervus.wire import Accepted, Guard, Mint, Packet, Rejected, Removed, encode, topics
from nervus.wire.contracts import ModulatorSignal, ModulatorSignalPayload, RelayBundle
from support import DEADLINE_S, DIES_WITH_US, House

pytestmark = pytest.mark.usefixtures("unmeasured")

GATE_MS = 3_000
PATIENCE_S = 15.0
SETTINGS = f"""
[thalamus.gates]
gate_ms = {GATE_MS}
lease_ms = 1500
standbys = 1
"""
PARTS = (
    ("brainstem", "brainstem"), ("relay", "relay"), ("watcher", "observer"),
    ("mod", "modulator"), ("gatekeeper", "gatekeeper"), ("gatekeeper-1", "gatekeeper"),
)  # fmt: skip


async def within(condition: Any, seconds: float = PATIENCE_S) -> None:
    """Wait for what takes a lease, a gate's life, or a start on a busy machine."""
    await within_seconds(condition, seconds)


class Scene:
    """A driver, a modulator and an observer around the relay; what the observer saw."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.seen: dict[str, list[Any]] = {
            "gate_state": [],
            "gated_relay": [],
            "route_decision": [],
        }
        self.guard = Guard(topics.TOPICS)
        self.driver = self.session("brainstem")
        self.modulator = self.session("mod")
        specs = (topics.GATE_STATE, topics.GATED_RELAY, topics.ROUTE_DECISION)
        self.observer = self.session("watcher", filters=[Filter(s.filter(), 1) for s in specs])
        self.mints = {
            name: Mint(name, "consumer", seed=seed, boot=1)
            for seed, name in enumerate(("brainstem", "mod"))
        }

    def session(self, name: str, **options: Any) -> Session:
        address = context(self.house, "test").session_config(name, "core")
        if options:
            options["on_packet"] = self._see
        return Session(name, "core", address, **options)

    async def _see(self, packet: Packet) -> None:
        verdict = self.guard.judge(packet, time.time_ns() // 1_000_000)
        if isinstance(verdict, Removed):
            return  # a gate that has expired, and is erased
        if isinstance(verdict, Rejected) and verdict.reason_code == "expired":
            return  # a gate lives for 3 s, which a busy machine may need to bring it here
        assert isinstance(verdict, Accepted), verdict
        self.seen[verdict.address.spec.name].append(verdict.message)

    async def suppress(
        self, inhibition: float, ttl_ms: int = 600_000, target: str = "somatic"
    ) -> None:
        """Propose to shut a channel of the kitchen for long."""
        payload = ModulatorSignalPayload(
            target_kind="channel", target_id=target, intent="set_inhibition",
            inhibition=inhibition,
        )  # fmt: skip
        address = topics.modulator_signal("room", "kitchen", "channel", target)
        await self._send(self.modulator, "mod", ModulatorSignal, address, payload, ttl_ms)

    async def decides(self, *decisions: str) -> bool:
        """Send one bundle; whether the relay decided one of these."""
        before = len(self.seen["route_decision"])
        address = topics.relay_bundle("room", "kitchen", "somatic")
        payload = bundle_payload(start_ms=time.time_ns() // 1_000_000)
        await self._send(self.driver, "brainstem", RelayBundle, address, payload, 60_000)
        await within(lambda: len(self.seen["route_decision"]) > before)
        return self.seen["route_decision"][-1].payload.decision in decisions

    def gate(self, target: str = "somatic") -> Any:
        """The newest gate of one of the kitchen's channels."""
        gates = [m for m in self.seen["gate_state"] if m.payload.target_id == target]
        return gates[-1] if gates else None

    async def _send(
        self, session: Session, name: str, kind: Any, address: Any, payload: Any, ttl_ms: int
    ) -> None:
        now_ms = time.time_ns() // 1_000_000
        publish = self.mints[name].full(kind, address, payload, now_ms, ttl_ms=ttl_ms)
        await session.publish(address.topic, encode(publish.message), qos=1)


def context(house: House, name: str, ready: asyncio.Event | None = None) -> ServiceContext:
    event = ready or asyncio.Event()
    return ServiceContext(name, house.settings, house.state, 1, int(time.time()), event.set)


@asynccontextmanager
async def gatekeeper(house: House, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gatekeeper in a process of its own, ready; killed at the end if it still runs."""
    read_end, write_end = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, sys.executable, "-m", "nervus", "run", "--state", str(house.state.path),
        name,
        env=os.environ | {READY_DESCRIPTOR_VARIABLE: str(write_end)}, pass_fds=(write_end,),
    )  # fmt: skip
    os.close(write_end)
    try:
        with open(read_end, "rb", buffering=0) as pipe:  # noqa: ASYNC230, PTH123  read in a thread
            async with asyncio.timeout(2 * DEADLINE_S):
                assert await asyncio.to_thread(pipe.read, 64)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def scene(running_house: House) -> AsyncIterator[Scene]:
    house = running_house
    file = house.state.settings_file
    file.write_text(file.read_text() + SETTINGS)
    for name, role in PARTS:
        house.join(name, role)
    made = Scene(House(house.state, type(house.settings).load(file), house.authority))
    ready = asyncio.Event()
    relay = asyncio.create_task(thalamus_service.run(context(made.house, "thalamus", ready)))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(made.driver, made.modulator, made.observer))
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        yield made
    relay.cancel()
    (result,) = await asyncio.gather(relay, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError), result


@pytest.mark.timeout(60)  # a service to start, and a gate to expire
@pytest.mark.req("S2-12", "S2-19", "S2-20", "S2-21", "S2-69", "S2-70", "S2-71", "S2-72")
async def test_a_gatekeeper_killed_while_it_suppresses_cannot_suppress_for_ever(
    scene: Scene,
) -> None:
    async with gatekeeper(scene.house, "gatekeeper") as process:
        await scene.suppress(1)
        await within(lambda: scene.decides("drop"))
        assert scene.gate().payload.inhibition == 1
        process.send_signal(signal.SIGKILL)
        await process.wait()
    relayed = len(scene.seen["gated_relay"])
    await within(lambda: scene.decides("pass", "aggregate"))
    await within(lambda: len(scene.seen["gated_relay"]) > relayed)
    # Nobody opened it: the last word on this gate is still the killed one's.
    assert (scene.gate().payload.set_by, scene.gate().payload.inhibition) == ("gatekeeper", 1)


@pytest.mark.timeout(60)  # a proposal to run out
@pytest.mark.req("S2-11", "S2-69", "S2-70")
async def test_both_roles_in_one_process_do_the_same(scene: Scene) -> None:
    ready = asyncio.Event()
    one = context(scene.house, "gatekeeper", ready)
    task = asyncio.create_task(gatekeeper_service.run(one))
    async with asyncio.timeout(DEADLINE_S):
        await ready.wait()

    async def drops() -> bool:
        # Again and again, as a busy machine may take longer than a proposal lives.
        await scene.suppress(1, ttl_ms=6_000)
        return await scene.decides("drop")

    await within(drops)
    # Nothing is proposed any longer: the gate is gone, and the house's own lets content pass.
    await within(lambda: scene.decides("pass"))
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError), result


@pytest.mark.timeout(60)  # two services to start, one after the other, and a lease to run out
@pytest.mark.req("S2-9", "S2-52", "S2-86")
async def test_a_standby_takes_over_and_goes_on_with_what_was_proposed(scene: Scene) -> None:
    async with (
        gatekeeper(scene.house, "gatekeeper") as first,
        gatekeeper(scene.house, "gatekeeper-1") as second,
    ):
        await scene.suppress(1)
        await within(lambda: scene.decides("drop"))
        holder, epoch = scene.gate().payload.set_by, scene.gate().payload.epoch
        killed = first if holder == "gatekeeper" else second
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
        await within(lambda: scene.gate().payload.set_by != holder)
        assert scene.gate().payload.epoch > epoch
        assert scene.gate().payload.inhibition == 1
        await within(lambda: scene.decides("drop"))


@pytest.mark.timeout(60)  # a service to start twice on a busy machine
@pytest.mark.req("S2-42", "S2-69")
async def test_a_lone_gatekeeper_that_is_killed_knows_again_what_was_proposed(
    scene: Scene,
) -> None:
    async with gatekeeper(scene.house, "gatekeeper") as process:
        await scene.suppress(1)
        await within(lambda: scene.gate() is not None and scene.gate().payload.inhibition == 1)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    before = scene.gate().payload.epoch
    # Said to nobody: it waits at the broker for whom it is meant.
    await scene.suppress(0.9, target="auditory")
    async with gatekeeper(scene.house, "gatekeeper"):
        await within(lambda: scene.gate().payload.epoch > before)
        assert scene.gate().payload.inhibition == 1
        await within(lambda: scene.gate("auditory") is not None)
        assert scene.gate("auditory").payload.inhibition == 0.9
        await within(lambda: scene.decides("drop"))
