"""Shards of thalamus on a real broker, and the loss of one of them."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hub.plain_broker import running, within
from hub.plane_inputs import bundle_payload
from nervus.bus import Filter, Session
from nervus.runtime.brokers import brokers, prepare_brokers
from nervus.runtime.services import ServiceContext, ensure_identities, services_of
from nervus.runtime.settings import Settings
from nervus.runtime.status import read_status
from nervus.runtime.system import run_system, service_children
from nervus.wire import Accepted, Guard, Mint, Packet, encode, topics
from nervus.wire.contracts import RelayBundle
from support import House

pytestmark = pytest.mark.usefixtures("unmeasured")

PATIENCE_S = 15.0
ROOMS = ("kitchen", "attic", "hall", "garden", "cellar")
MAPS = {
    2: [["room/kitchen", "room/cellar"]],
    4: [["room/kitchen", "room/cellar"], ["room/attic"], ["room/hall"]],
}
OWNERS = {
    2: {"kitchen": "relay-1", "cellar": "relay-1"},
    4: {"kitchen": "relay-1", "cellar": "relay-1", "attic": "relay-2", "hall": "relay-3"},
}


class Scene:
    """A driver of all rooms and a consumer; who relayed what."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.relayed: dict[str, list[Any]] = {room: [] for room in ROOMS}
        self.mint = Mint("brainstem", "brainstem", seed=1, boot=1)
        self.guard = Guard([topics.GATED_RELAY])
        context = ServiceContext("test", house.settings, house.state, 1, 1, lambda: None)
        self.driver = Session("brainstem", "core", context.session_config("brainstem", "core"))
        self.watcher = Session(
            "watcher", "core", context.session_config("watcher", "core"),
            filters=[Filter(topics.GATED_RELAY.filter(), 1)], on_packet=self._see,
        )  # fmt: skip

    async def _see(self, packet: Packet) -> None:
        verdict = self.guard.judge(packet, time.time_ns() // 1_000_000)
        assert isinstance(verdict, Accepted), verdict
        self.relayed[verdict.address.levels["scope"]].append(verdict.message.meta)

    async def drive(self, *rooms: str) -> dict[str, str]:
        """Send each room a bundle; their ids."""
        sent = {}
        for room in rooms:
            now_ms = time.time_ns() // 1_000_000
            address = topics.relay_bundle("room", room, "somatic")
            payload = bundle_payload(start_ms=now_ms)
            publish = self.mint.full(RelayBundle, address, payload, now_ms, ttl_ms=60_000)
            await self.driver.publish(address.topic, encode(publish.message), qos=1)
            sent[room] = publish.message.meta.message_id
        return sent

    async def round(self, *rooms: str) -> None:
        """Send each room a bundle, and wait until all of them were relayed."""
        sent = await self.drive(*rooms)
        await within(lambda: all(self.came(room, sent[room]) for room in rooms), PATIENCE_S)

    def came(self, room: str, message_id: str) -> bool:
        """Whether a bundle was relayed."""
        return any(meta.parent_id == message_id for meta in self.relayed[room])

    def pid(self, child: str) -> int | None:
        """The process of a service that serves."""
        status = read_status(self.house.state)
        for each in status["children"] if status else ():
            if each["name"] == child and each["state"] == "ready":
                return int(each["pid"])
        return None


@asynccontextmanager
async def scene(house: House, shards: int) -> AsyncIterator[Scene]:
    """Brokers and the shards of thalamus, each a supervised process."""
    file = house.state.settings_file
    text = file.read_text().replace("shards = []", f"shards = {MAPS[shards]}")
    file.write_text(text + "\n[thalamus]\ngatekeeper = false\n")
    settings = Settings.load(file).model_copy(update={"processes": "separate"})
    ensure_identities(house.authority, services_of(settings).values())
    house.authority.issue("watcher", "observer")
    prepare_brokers(house.state, settings, house.authority)
    made = Scene(House(house.state, settings, house.authority))
    up, stop = asyncio.Event(), asyncio.Event()
    children = [c for c in service_children(house.state, settings) if "thalamus" in c.name]
    assert len(children) == shards
    system = asyncio.create_task(
        run_system(house.state, brokers(house.state, settings), children, stop, on_ready=up.set)
    )
    try:
        async with asyncio.timeout(45):
            await up.wait()
        async with running(made.driver, made.watcher):
            yield made
    finally:
        stop.set()
        await system


@pytest.mark.timeout(120)  # up to four services to start on a busy machine, and one again
@pytest.mark.parametrize("shards", [2, 4])
@pytest.mark.req("S2-81")
async def test_a_killed_shard_comes_back_with_its_scopes_and_no_other_takes_them(
    house: House, shards: int
) -> None:
    async with scene(house, shards) as one:
        await one.round(*ROOMS)
        victim = one.pid("thalamus-1")
        assert victim is not None
        owned = [room for room in ROOMS if OWNERS[shards].get(room) == "relay-1"]
        before = {room: {meta.parent_id for meta in one.relayed[room]} for room in owned}
        os.kill(victim, signal.SIGKILL)
        others = [room for room in ROOMS if OWNERS[shards].get(room) != "relay-1"]
        await one.round(*others)

        missed: list[str] = []

        async def again() -> bool:
            missed.append((await one.drive("kitchen"))["kitchen"])
            await asyncio.sleep(0.1)
            return any(one.came("kitchen", each) for each in missed)

        await within(again, 2 * PATIENCE_S)
        await one.round(*ROOMS)
        for room, metas in one.relayed.items():
            assert {meta.source for meta in metas} == {OWNERS[shards].get(room, "relay")}
            counts = Counter(meta.parent_id for meta in metas)
            # Once each, but for what the killed shard relayed and could not acknowledge any more.
            once = counts.keys() - before.get(room, set())
            assert {counts[each] for each in once} == {1}
            assert max(counts.values()) <= 2
