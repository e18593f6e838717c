"""Raw on real brokers: denied by default, let through where policy says, capped, over by itself."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.plain_broker import running, within
from nervus.bus import Filter, Session
from nervus.policy import service as policy_service
from nervus.policy import verify_file
from nervus.runtime import raw
from nervus.runtime.files import write_private
from nervus.runtime.rights import refresh_rights
from nervus.runtime.services import ServiceContext
from nervus.thalamus import raw_service
from nervus.wire import Accepted, Guard, Mint, Packet, Rejected, encode, topics
from nervus.wire.contracts import AfferentSignal, AfferentSignalPayload
from support import DEADLINE_S, House

KITCHEN = "/sc/aff/event/room/kitchen/sensor/sound_level"
RATE = 5


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def table(name: str, prefix: str, *, rate: int = RATE, lives_s: float = 60) -> str:
    end = datetime.fromtimestamp(time.time() + lives_s, UTC).isoformat()
    return (
        f'[[raw]]\nid = "{name}"\ntopic_prefix = "{prefix}"\nrate = {rate}\nexpires = {end}\n'
        'reason = "a test"\n'
    )


class Scene:
    """A board, a consumer, brainstem's place, and an intruder who is the identity raw itself."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.risen: list[Any] = []
        self.rejects: list[Any] = []
        self.below: list[str] = []
        self._ids = 0
        self._mint = Mint("device:b1", "spinal", seed=1, boot=1)
        self.board = self._session("b1", "spinal")
        self.consumer = self._session("lamp-logic", "core", topics.GATED_RELAY)
        self.reflect = self._session("reflect", "core", topics.REJECT)
        self.brainstem = self._session("brainstem", "spinal", topics.AFFERENT)

    def _session(self, name: str, broker: Any, *taken: topics.TopicSpec) -> Session:
        context = self.context(name)
        filters = [Filter(spec.filter(), 1) for spec in taken]
        guard = Guard(taken)

        async def see(packet: Packet) -> None:
            if topics.AFFERENT in taken:
                self.below.append(packet.topic)
                return
            verdict = guard.judge(packet, now_ms())
            if isinstance(verdict, Rejected) and verdict.reason_code == "duplicate":
                return  # told once more by a start of raw that does not know whether it was
            assert isinstance(verdict, Accepted), verdict
            (self.rejects if name == "reflect" else self.risen).append(verdict.message)

        address = context.session_config(name, broker)
        return Session(name, broker, address, filters=filters, on_packet=see)

    def context(self, name: str, ready: asyncio.Event | None = None) -> ServiceContext:
        settings = self.house.settings.model_copy(update={"thalamus": {"gatekeeper": False}})
        told = ready.set if ready else lambda: None
        return ServiceContext(name, settings, self.house.state, now_ms(), 1, told)

    async def measure(self, count: int, sensor: str = "sound_level") -> list[str]:
        """The board says so many values; returns once brainstem's place has them: their ids."""
        before, ids = len(self.below), []
        for _ in range(count):
            self._ids += 1
            payload = AfferentSignalPayload(sensor_type=sensor, value=float(self._ids))
            address = topics.afferent("room", "kitchen", sensor, "b1")
            publish = self._mint.compact(
                AfferentSignal, address, payload, now_ms(), priority="critical"
            )
            ids.append(publish.message.meta.message_id)
            await self.board.publish(address.topic, encode(publish.message), qos=1)
        await within(lambda: len(self.below) >= before + count)
        return ids

    def parents(self) -> set[str]:
        """Ids of the measurements that have risen."""
        return {message.meta.parent_id for message in self.risen}

    def audit(self) -> list[tuple[int, str, str]]:
        """Of opt-ins: allowed, reason, selector."""
        with closing(sqlite3.connect(self.house.state.data / "command.db")) as database:
            rows = database.execute(
                "SELECT allowed, reason_codes, target FROM audit WHERE kind = 'raw'"
                " ORDER BY sequence"
            ).fetchall()
        return [(allowed, codes.split('"')[1], target) for allowed, codes, target in rows]

    def raw_connections(self) -> int:
        """How often the identity raw has connected to the spinal broker."""
        return self.house.log("spinal").count(" as raw ")


@pytest.fixture
async def scene(running_house: House) -> AsyncIterator[Scene]:
    """Brokers, the services command and raw, and everybody connected."""
    for name, role in (
        ("policy", "policy"), ("reliable", "reliable"), ("raw", "relay"), ("reflect", "reflect"),
        ("lamp-logic", "consumer"), ("brainstem", "brainstem"), ("cleaner", "cleaner"),
    ):  # fmt: skip
        running_house.authority.issue(name, role)
    running_house.join("b1", "board", "room/kitchen")
    made = Scene(running_house)
    ready = [asyncio.Event(), asyncio.Event()]
    async with running(made.board, made.consumer, made.reflect, made.brainstem):
        tasks = [
            asyncio.create_task(policy_service.run(made.context("command", ready[0]))),
            asyncio.create_task(raw_service.run(made.context("raw", ready[1]))),
        ]
        try:
            await within(lambda: all(each.is_set() for each in ready), 15)
            yield made
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in results), results


@pytest.mark.timeout(90)  # two services to start, and an opt-in to expire, on a busy machine
@pytest.mark.req("S2-29", "S0-13")
async def test_raw_rises_only_where_when_and_as_much_as_policy_opened_it(scene: Scene) -> None:
    # By default nobody of thalamus is even connected there.
    await scene.measure(3)
    assert (scene.raw_connections(), scene.risen) == (0, [])
    policy = scene.house.state.policy_file
    greedy = table("greedy", "/sc/aff/event/room/kitchen")
    fast = table("fast", "/sc/aff/event/room/kitchen/sensor/motion", rate=1_000)
    write_private(policy, table("noise", KITCHEN, lives_s=600) + greedy + fast)
    await within(lambda: scene.raw_connections() == 1)
    # The broker's rights and the service follow the same list, each in its own time.
    await within(lambda: f"read {KITCHEN}/device/+" in _acl(scene.house))
    assert scene.audit() == [
        (1, "raw_granted", KITCHEN),
        (0, "raw_prefix_too_broad", "/sc/aff/event/room/kitchen"),
        (0, "raw_rate_too_high", "/sc/aff/event/room/kitchen/sensor/motion"),
    ]

    async def rises() -> bool:
        await scene.measure(1)
        await asyncio.sleep(0.1)  # slower than the cap, so that it is not what is met
        return bool(scene.risen)

    await within(rises)
    # Only the selector that was opened …
    others = await scene.measure(5, "motion")
    # … and no more of it than its rate; the rest is told as refused.
    began, known = time.monotonic(), len(scene.risen)
    flood = set(await scene.measure(40))
    last = scene.parents() & flood
    await within(lambda: any(r.payload.reason_code == "queue_full" for r in scene.rejects))
    took_s = time.monotonic() - began
    assert len(scene.risen) - known <= RATE + RATE * took_s + 1
    assert len(last) < len(flood)
    assert scene.parents().isdisjoint(others)
    assert {message.meta.source for message in scene.risen} == {"raw"}
    # It ends by itself, at the broker too.
    write_private(policy, table("noise", KITCHEN, lives_s=3))
    await within(lambda: scene.audit()[-1] == (0, "raw_expired", KITCHEN), 15)
    await within(lambda: raw.permissions(scene.house.state) == [])
    await within(lambda: f"read {KITCHEN}" not in _acl(scene.house), DEADLINE_S)
    risen = len(scene.risen)
    await scene.measure(5)
    assert len(scene.risen) == risen
    assert verify_file(scene.house.state.data / "command.db").rows > 4


@pytest.mark.req("S2-29", "S0-13", "S2-74")
async def test_who_connects_as_raw_without_an_opt_in_is_sent_nothing(scene: Scene) -> None:
    seen: list[str] = []

    async def see(packet: Packet) -> None:
        seen.append(packet.topic)

    address = scene.context("raw").session_config("raw", "spinal")
    wanted = [Filter(topics.AFFERENT.filter(), 1)]
    intruder = Session("raw", "spinal", address, filters=wanted, on_packet=see)
    async with running(intruder):
        await scene.measure(5)
        assert seen == []
        # Rights come with the list that policy writes, and go with it.
        grant = raw.RawGrant(
            id="g", topic_prefix=KITCHEN, rate=1, expires_ms=now_ms() + 60_000, decision_id="d"
        )
        raw.write(scene.house.state, [grant])
        house = scene.house
        await refresh_rights(house.state, house.settings, house.authority, "cleaner")

        async def sent() -> bool:
            await scene.measure(1)
            return bool(seen)

        await within(sent)
        await scene.measure(3, "motion")
        assert {topic.split("/")[7] for topic in seen} == {"sound_level"}


def _acl(house: House) -> str:
    return (house.state.broker("spinal") / "acl").read_text()
