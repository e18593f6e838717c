"""Shards of brainstem on real brokers, and the loss of one of them."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hub.plain_broker import running, within
from nervus.bus import Filter, Session
from nervus.runtime.brokers import brokers, prepare_brokers
from nervus.runtime.child import Child
from nervus.runtime.services import ServiceContext, ensure_identities, services_of
from nervus.runtime.settings import Settings
from nervus.runtime.status import read_status
from nervus.runtime.system import run_system
from nervus.wire import Accepted, Guard, Mint, Packet, Rejected, encode, timestamp, topics
from nervus.wire.contracts import (
    AfferentSignal,
    AfferentSignalPayload,
    ParameterUpdate,
    ParameterUpdatePayload,
)
from support import House

pytestmark = pytest.mark.usefixtures("unmeasured")

PATIENCE_S = 15.0
ROOMS = ("kitchen", "attic", "hall", "garden")
MAPS = {
    2: [["room/kitchen", "room/cellar"]],
    4: [["room/kitchen", "room/cellar"], ["room/attic"], ["room/hall"]],
}
OWNERS = {
    2: {"kitchen": "brainstem-1"},
    4: {"kitchen": "brainstem-1", "attic": "brainstem-2", "hall": "brainstem-3"},
}


class Scene:
    """A board in each room, who tunes, and what was said."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.bundles: dict[str, list[Any]] = {room: [] for room in ROOMS}
        self.refused: set[tuple[str, str]] = set()
        self.copies: list[str] = []
        self._value = 0
        self._context = ServiceContext("test", house.settings, house.state, 1, 1, lambda: None)
        self._guard = Guard([topics.RELAY_BUNDLE, topics.REJECT])
        self._mints = {
            name: Mint(f"device:{name}", "spinal", seed=n, boot=1) for n, name in enumerate(ROOMS)
        }
        self.boards = {name: self._session(name, "spinal") for name in ROOMS}
        self.watcher = self._session("watcher", "core", topics.RELAY_BUNDLE)
        self.reflect = self._session("reflect", "core", topics.REJECT)  # nobody else may read them
        self.tuner = self._session("tuner", "core")
        self.listener = self._session("lamp", "spinal", topics.GLOBAL_PARAMETERS)

    def _session(self, name: str, broker: Any, *taken: topics.TopicSpec) -> Session:
        async def see(packet: Packet) -> None:
            if topics.GLOBAL_PARAMETERS in taken:
                self.copies.append(packet.topic)
                return
            verdict = self._guard.judge(packet, time.time_ns() // 1_000_000)
            if isinstance(verdict, Rejected) and topics.REJECT in taken:
                assert verdict.reason_code == "duplicate"  # who reports may do so twice
                return
            assert isinstance(verdict, Accepted), verdict
            message = verdict.message
            if verdict.address.spec is topics.REJECT:
                self.refused.add((message.meta.source, message.payload.reason_code))
            else:
                self.bundles[verdict.address.levels["scope"]].append(message)

        return Session(
            name, broker, self._context.session_config(name, broker),
            filters=[Filter(spec.filter(), 1) for spec in taken], on_packet=see,
        )  # fmt: skip

    async def sense(self, *rooms: str, times: int = 1) -> float:
        """The boards of some rooms say one urgent value, the same message several times."""
        self._value += 1
        for room in rooms:
            address = topics.afferent("room", room, "temperature", room)
            payload = AfferentSignalPayload(sensor_type="temperature", value=float(self._value))
            publish = self._mints[room].compact(
                AfferentSignal, address, payload, time.time_ns() // 1_000_000, priority="critical"
            )
            for _ in range(times):
                await self.boards[room].publish(address.topic, encode(publish.message), qos=1)
        return float(self._value)

    async def round(self, *rooms: str, times: int = 1) -> None:
        """Every one of these rooms says a value, and it rises."""
        value = await self.sense(*rooms, times=times)
        await within(lambda: all(self.rose(room, value) for room in rooms), PATIENCE_S)

    def rose(self, room: str, value: float) -> bool:
        """Whether a value is in a bundle of its room."""
        return any(f.last == value for f in self.features(room))

    def features(self, room: str) -> list[Any]:
        """All features of a room's bundles."""
        return [each for one in self.bundles[room] for each in one.payload.summary_features]

    async def tune(self) -> str:
        """A parameter for the whole house."""
        now_ms = time.time_ns() // 1_000_000
        mint = Mint("tuner", "consumer", seed=now_ms, boot=1)
        address = topics.global_parameters("house", "home")
        payload = ParameterUpdatePayload(name="brainstem.arousal_gain", value=0.1, version=1)
        publish = mint.full(
            ParameterUpdate, address, payload, now_ms, expires_at=timestamp(now_ms + 60_000)
        )
        await self.tuner.publish(address.topic, encode(publish.message), qos=1, retain=True)
        return address.topic

    def pid(self) -> int:
        """The process of the shard that is to die."""
        status = read_status(self.house.state)
        (child,) = [c for c in status["children"] if c["name"] == "brainstem-1"] if status else [{}]
        assert child.get("state") == "ready", child
        return int(child["pid"])


@asynccontextmanager
async def scene(house: House, shards: int) -> AsyncIterator[Scene]:
    """Brokers and the shards: the one to be killed in a process of its own, the others in one."""
    file = house.state.settings_file
    file.write_text(file.read_text().replace("shards = []", f"shards = {MAPS[shards]}"))
    settings = Settings.load(file)
    services = [name for name in services_of(settings) if name.startswith("brainstem")]
    assert len(services) == shards
    ensure_identities(house.authority, services_of(settings).values())
    for name, role in (("watcher", "diagnostics"), ("tuner", "controller")):
        house.authority.issue(name, role)
    for room in ROOMS:
        house.authority.issue(room, "board", f"room/{room}")
    house.authority.issue("lamp", "board", "house/home")
    prepare_brokers(house.state, settings, house.authority)
    made = Scene(House(house.state, settings, house.authority))
    command = (sys.executable, "-m", "nervus", "run", "--state", str(house.state.path))
    others = [name for name in services if name != "brainstem-1"]
    children = [
        Child("others", (*command, *others)), Child("brainstem-1", (*command, "brainstem-1")),
    ]  # fmt: skip
    up, stop = asyncio.Event(), asyncio.Event()
    system = asyncio.create_task(
        run_system(house.state, brokers(house.state, settings), children, stop, on_ready=up.set)
    )
    try:
        async with asyncio.timeout(45):
            await up.wait()
        heard = (made.watcher, made.reflect, made.listener)
        async with running(*made.boards.values(), made.tuner, *heard):
            yield made
    finally:
        stop.set()
        await system


@pytest.mark.timeout(90)  # two processes to start on a busy machine, and one of them again
@pytest.mark.parametrize("shards", [2, 4])
@pytest.mark.req("S1-3", "S4-57")
async def test_a_killed_shard_comes_back_with_its_scopes_and_no_other_takes_them(
    house: House, shards: int
) -> None:
    async with scene(house, shards) as one:
        # What comes twice counts once, whichever shard has it.
        await one.round(*ROOMS, times=3)
        assert {room: sum(f.count for f in one.features(room)) for room in ROOMS} == dict.fromkeys(
            ROOMS, 1
        )
        before = {feature.last for feature in one.features("kitchen")}
        tuned = await one.tune()
        await within(lambda: one.copies, PATIENCE_S)
        os.kill(one.pid(), signal.SIGKILL)
        others = [room for room in ROOMS if OWNERS[shards].get(room) != "brainstem-1"]
        missed = await one.sense("kitchen")
        await one.round(*others)

        tried: list[float] = []

        async def again() -> bool:
            tried.append(await one.sense("kitchen"))
            await asyncio.sleep(0.1)
            return any(one.rose("kitchen", value) for value in tried)

        await within(again, 2 * PATIENCE_S)
        # It waited at the broker; one that outlived its `ttl_ms` there is refused with a reason.
        await within(
            lambda: one.rose("kitchen", missed) or ("brainstem-1", "expired") in one.refused,
            PATIENCE_S,
        )
        await one.round(*ROOMS)
        for room, bundles in one.bundles.items():
            assert {each.meta.source for each in bundles} == {OWNERS[shards].get(room, "brainstem")}
            counts = Counter(each.last for each in one.features(room))
            # Once each, but for what the killed shard told and could not acknowledge any more.
            once = counts.keys() - (before if OWNERS[shards].get(room) == "brainstem-1" else set())
            assert {counts[value] for value in once} == {1}
            assert max(counts.values()) <= 2
        # All shards heard it, its owner alone told the boards.
        assert one.copies == [tuned]
