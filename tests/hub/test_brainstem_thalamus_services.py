"""Both relaying planes as services, on two real brokers with TLS and generated permissions."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.plain_broker import running, within
from hub.plane_inputs import gate, gate_address
from nervus.brainstem import service as brainstem_service
from nervus.bus import Filter, Session
from nervus.errors import UsageError
from nervus.runtime.services import ServiceContext
from nervus.store.database import BUSY_MS
from nervus.thalamus import service as thalamus_service
from nervus.wire import Guard, Mint, Packet, encode, topics
from nervus.wire.contracts import AfferentSignal, AfferentSignalPayload
from support import DEADLINE_S, House

# Two brokers and two services to start, on processors that other tests use too.
pytestmark = pytest.mark.timeout(60)

ON = True


class Planes:
    """The two services, a board and a consumer."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.relayed: list[Any] = []
        self.rejects: list[Any] = []
        self.routes: list[Any] = []
        self.times: list[float] = []
        self.mint = Mint("device:b1", "spinal", seed=1, boot=1)
        self.board = Session("b1", "spinal", self.context("test").session_config("b1", "spinal"))
        self.consumer = Session(
            "watcher",
            "core",
            self.context("test").session_config("watcher", "core"),
            filters=[
                Filter(spec.filter(), 1) for spec in (topics.GATED_RELAY, topics.ROUTE_DECISION)
            ],
            on_packet=self._see,
        )
        self.reflect = Session(
            "reflect",
            "core",
            self.context("test").session_config("reflect", "core"),
            filters=[Filter(topics.REJECT.filter(), 0)],
            on_packet=self._see,
        )

    def context(self, name: str, ready: asyncio.Event | None = None) -> ServiceContext:
        event = ready or asyncio.Event()
        return ServiceContext(
            name=name,
            settings=self.house.settings,
            state=self.house.state,
            seed=1,
            boot=int(time.time()),
            on_ready=event.set,
        )

    async def sense(self, value: Any, *, scope: str = "kitchen", **meta: Any) -> None:
        payload = AfferentSignalPayload(sensor_type="motion", value=value)
        address = topics.afferent("room", scope, "motion", "b1")
        now_ms = time.time_ns() // 1_000_000
        publish = self.mint.compact(AfferentSignal, address, payload, now_ms, **meta)
        self.times.append(time.perf_counter())
        await self.board.publish(address.topic, encode(publish.message), qos=publish.qos)

    async def _see(self, packet: Packet) -> None:
        verdict = Guard(topics.TOPICS).judge(packet, time.time_ns() // 1_000_000)
        kept = {"gated_relay": self.relayed, "reject": self.rejects, "route_decision": self.routes}
        kept[verdict.address.spec.name].append(verdict.message)  # type: ignore[union-attr]


@pytest.fixture
async def planes(running_house: House) -> AsyncIterator[Planes]:
    for name, role in (
        ("brainstem", "brainstem"), ("relay", "relay"), ("watcher", "observer"),
        ("reflect", "reflect"),
    ):  # fmt: skip
        running_house.authority.issue(name, role)
    running_house.join("b1", "board", "room/kitchen")
    one = Planes(running_house)
    ready = [asyncio.Event(), asyncio.Event()]
    tasks = [
        asyncio.create_task(brainstem_service.run(one.context("brainstem", ready[0]))),
        asyncio.create_task(thalamus_service.run(one.context("thalamus", ready[1]))),
        *(asyncio.create_task(s.run()) for s in (one.board, one.consumer, one.reflect)),
    ]
    async with asyncio.timeout(15):
        for event in ready:
            await event.wait()
        for session in (one.board, one.consumer, one.reflect):
            await session.wait_connected()
    yield one
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


@pytest.mark.req("S1-3", "S1-19", "S1-24", "S1-72", "S2-28", "S2-33")
async def test_what_a_board_senses_reaches_a_consumer_as_gated_statistics(planes: Planes) -> None:
    for value in (True, False, True):
        await planes.sense(value)
    await within(lambda: planes.relayed)
    (message, *_) = planes.relayed
    (feature,) = message.payload.summary_features
    assert (feature.sensor_type, feature.device_id, feature.last) == ("motion", "b1", True)
    assert (message.meta.source, message.meta.principal) == ("relay", "brainstem")
    await within(lambda: planes.routes)
    assert planes.routes[0].payload.reason_codes == ["no_gate"]
    assert planes.routes[0].meta.trace_id == message.meta.trace_id


async def test_an_urgent_afferent_does_not_wait_for_its_window(planes: Planes) -> None:
    await planes.sense(ON, priority="critical")
    await within(lambda: planes.relayed)
    assert planes.relayed[0].meta.priority == "critical"
    assert planes.relayed[0].payload.window_ms < 1_000


@pytest.mark.req("S2-80")
async def test_with_a_disk_that_stands_still_and_nobody_to_ask_gates_go_on_deciding(
    planes: Planes,
) -> None:
    planes.house.join("gatekeeper", "gatekeeper")
    address = planes.context("test").session_config("gatekeeper", "core")
    where = gate_address(target="visual_orient", scope=("room", "kitchen"))
    closed = gate(1, time.time_ns() // 1_000_000, address=where, lives_ms=60_000)
    gatekeeper = Session("gatekeeper", "core", address)
    async with running(gatekeeper):
        await gatekeeper.publish(where.topic, encode(closed.message), qos=1, retain=True)
    # Whatever the relay knows of that gate from now on is its own memory.
    disk = sqlite3.connect(planes.house.state.data / "relay.db", isolation_level=None)
    disk.execute("BEGIN EXCLUSIVE")
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not any("inhibited" in route.payload.reason_codes for route in planes.routes):
                await planes.sense(ON)
                await asyncio.sleep(0.1)
        for sent in range(1, 6):
            await planes.sense(ON, priority="critical")
            # Before the store gives up waiting for the disk.
            await within(lambda sent=sent: len(planes.relayed) == sent, BUSY_MS / 1_000 - 1)
    finally:
        disk.close()
    assert {message.meta.priority for message in planes.relayed} == {"critical"}


async def test_what_a_board_may_not_say_is_refused_with_a_reason(planes: Planes) -> None:
    now_ms = time.time_ns() // 1_000_000
    address = topics.afferent("room", "kitchen", "phlogiston", "b1")
    payload = AfferentSignalPayload(sensor_type="phlogiston", value=1)
    publish = planes.mint.compact(AfferentSignal, address, payload, now_ms)
    await planes.board.publish(address.topic, encode(publish.message))
    await within(lambda: planes.rejects)
    assert planes.rejects[0].payload.reason_code == "unknown_channel"
    assert planes.rejects[0].meta.source == "brainstem"


async def test_a_wrong_setting_is_told_with_its_name(house: House) -> None:
    house.authority.issue("relay", "relay")
    wrong = house.settings.model_copy(update={"thalamus": {"aggregate_ms": -1}})
    context = ServiceContext(
        name="thalamus", settings=wrong, state=house.state, seed=1, boot=1, on_ready=lambda: None
    )
    with pytest.raises(UsageError, match=r"\[thalamus\] in nervus.toml: aggregate_ms: .*100"):
        await thalamus_service.run(context)
