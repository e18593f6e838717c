"""Recorded on real brokers, run again elsewhere: the same bytes."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hub.plain_broker import within
from nervus.brainstem import service as brainstem_service
from nervus.bus import Filter, JournalRun, JournalSettings, Session
from nervus.bus.journal_file import Took
from nervus.runtime.services import ServiceContext
from nervus.thalamus import gatekeeper_service
from nervus.thalamus import service as thalamus_service
from nervus.wire import Mint, Packet, Publish, encode, timestamp, topics
from nervus.wire.contracts import (
    AfferentSignal,
    AfferentSignalPayload,
    DeviceStatus,
    DeviceStatusPayload,
    ModulatorSignal,
    ModulatorSignalPayload,
    ParameterUpdate,
    ParameterUpdatePayload,
)
from support import DEADLINE_S, House

# Another process, another hash seed: what is written is only what the journals hold.
REPLAY = """
import sys
from pathlib import Path
from nervus.bus import JournalRun
from nervus.runtime.replay import replay_of
for plane in ("brainstem", "gatekeeper", "relay"):
    (run,) = JournalRun.all_of(Path(sys.argv[1]) / plane)
    replay = replay_of(run.start())
    with (Path(sys.argv[2]) / plane).open("wb") as log:
        for one in replay.run(run.records()):
            log.write(one.lines())
            assert one.agrees is not False, one
    assert replay.exact
"""
TURNS = ((0.0, "pass"), (0.5, "attenuate"), (0.9, "aggregate"), (1.0, "drop"))
WATCHED = (topics.GATED_RELAY, topics.ROUTE_DECISION, topics.GATE_STATE)
SERVICES = {
    "brainstem": brainstem_service.run,
    "gatekeeper": gatekeeper_service.run,
    "relay": thalamus_service.run,
}
PARTS = (
    ("brainstem", "brainstem"), ("relay", "relay"), ("gatekeeper", "gatekeeper"),
    ("muse", "modulator"), ("tuner", "controller"),
    ("diagnostics", "diagnostics"), ("watcher", "observer"), ("reflect", "reflect"),
)  # fmt: skip


def now() -> int:
    return time.time_ns() // 1_000_000


class Recorded:
    """Every plane on the way up, journals on, and somebody who hears everything they say."""

    def __init__(self, house: House) -> None:
        settings = house.settings.model_copy(
            update={
                "journal": JournalSettings(enabled=True),
                "thalamus": {"aggregate_ms": 200},
                "brainstem": {"window_ms": 100, "source_rate": 20, "source_burst": 30},
            }
        )
        self.heard: dict[str, list[bytes]] = {name: [] for name in SERVICES}
        self.ready = [asyncio.Event() for _ in SERVICES]
        self.contexts = [
            ServiceContext(
                name=name,
                settings=settings,
                state=house.state,
                seed=number + 1,
                boot=int(time.time()),
                on_ready=event.set,
            )
            for number, (name, event) in enumerate(zip(SERVICES, self.ready, strict=True))
        ]
        self.boards = [self._session(f"b{n}", "spinal") for n in (1, 2)]
        self.mints = [Mint(f"device:b{n}", "spinal", seed=n, boot=1) for n in (1, 2)]
        self.muse, self.tuner = self._session("muse", "core"), self._session("tuner", "core")
        self.ideas = Mint("muse", "consumer", seed=9, boot=1)
        self.ears = [
            self._session("diagnostics", "core", topics.RELAY_BUNDLE),
            self._session(
                "watcher", "core", topics.GATED_RELAY, topics.ROUTE_DECISION, topics.GATE_STATE
            ),
            self._session("reflect", "core", topics.REJECT),
        ]

    def _session(self, name: str, broker: Any, *specs: Any) -> Session:
        return Session(
            name,
            broker,
            self.contexts[0].session_config(name, broker),
            filters=[Filter(spec.filter(), 1) for spec in specs],
            on_packet=self._hear if specs else None,
        )

    async def _hear(self, packet: Packet) -> None:
        line = packet.topic.encode() + b" " + packet.payload
        source = packet.payload.split(b'"source":"', 1)[1].split(b'"', 1)[0].decode()
        self.heard[source].append(line)

    async def sense(self, board: int, sensor: str, value: Any, **meta: Any) -> None:
        address = topics.afferent("room", "kitchen", sensor, f"b{board + 1}")
        payload = AfferentSignalPayload(sensor_type=sensor, value=value)
        message = self.mints[board].compact(AfferentSignal, address, payload, now(), **meta)
        await self.send(self.boards[board], message)

    async def propose(self, inhibition: float) -> None:
        address = topics.modulator_signal("room", "kitchen", "channel", "somatic")
        payload = ModulatorSignalPayload(
            target_kind="channel",
            target_id="somatic",
            intent="set_inhibition",
            inhibition=inhibition,
        )
        await self.send(self.muse, self.ideas.full(ModulatorSignal, address, payload, now()))

    async def tune(self, version: int) -> None:
        """A parameter update of an authorized controller."""
        address = topics.global_parameters("house", "home")
        payload = ParameterUpdatePayload(name="comfort", value=21.5, version=version)
        until = timestamp(now() + 60_000)
        mint = Mint("tuner", "consumer", seed=version, boot=1)
        await self.send(
            self.tuner, mint.full(ParameterUpdate, address, payload, now(), expires_at=until)
        )

    async def send(self, session: Session, publish: Publish) -> None:
        spec = publish.address.spec
        await session.publish(
            publish.address.topic, encode(publish.message), qos=1, retain=spec.retained
        )

    async def load(self) -> None:
        """Like the demo's: values, urgent ones, floods, rejects, gates of every kind."""
        status = DeviceStatusPayload(status="online", session=self.mints[0].id(now()))
        address = topics.device_status("b1")
        await self.send(self.boards[0], self.mints[0].compact(DeviceStatus, address, status, now()))
        for turn, (inhibition, decision) in enumerate(TURNS):
            before = self.decided(decision)
            await self.propose(inhibition)
            await self.tune(turn + 1)
            async with asyncio.timeout(DEADLINE_S):
                while self.decided(decision) <= before:
                    await self.samples(turn)

    async def samples(self, turn: int) -> None:
        for n in range(6):
            await self.sense(0, "temperature", 20 + turn + n / 7)
            await self.sense(1, "motion", bool(n % 2), priority="critical" if n == 5 else None)
        await self.sense(1, "phlogiston", 1)
        broken = topics.afferent("room", "kitchen", "temperature", "b1")
        await self.boards[0].publish(broken.topic, b"{no json", qos=1)
        await asyncio.sleep(0.05)

    def decided(self, decision: str) -> int:
        """How often the relay was heard to decide so."""
        word = f'"decision":"{decision}"'.encode()
        return sum(word in line for line in self.heard["relay"])


@pytest.fixture
async def recorded(running_house: House) -> Recorded:
    for name, role in PARTS:
        running_house.authority.issue(name, role)
    running_house.authority.issue("b1", "board", "room/kitchen")
    running_house.join("b2", "board", "room/kitchen")
    return Recorded(running_house)


@pytest.mark.timeout(90)  # three services to start on a busy machine, and two interpreters
@pytest.mark.req("S4-56", "S4-17")
async def test_a_recorded_house_replays_to_the_same_bytes_elsewhere(
    recorded: Recorded, running_house: House, tmp_path: Path
) -> None:
    services = [
        asyncio.create_task(run(context))
        for run, context in zip(SERVICES.values(), recorded.contexts, strict=True)
    ]
    sessions = [*recorded.boards, recorded.muse, recorded.tuner, *recorded.ears]
    tasks = [asyncio.create_task(session.run()) for session in sessions]
    async with asyncio.timeout(2 * DEADLINE_S):
        for event in recorded.ready:
            await event.wait()
        for session in sessions:
            await session.wait_connected()
    await recorded.load()
    await within(
        lambda: len(recorded.heard["brainstem"]) > 10 and len(recorded.heard["relay"]) > 20
    )
    for task in services:
        task.cancel()
    for result in await asyncio.gather(*services, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    logs: list[dict[str, bytes]] = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        folder.mkdir()
        command = [sys.executable, "-c", REPLAY, running_house.state.data / "journal", folder]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        replay = await asyncio.create_subprocess_exec(*command, env=environment)
        async with asyncio.timeout(2 * DEADLINE_S):
            assert await replay.wait() == 0
        logs.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert logs[0] == logs[1]
    (run,) = JournalRun.all_of(running_house.state.data / "journal" / "brainstem")
    updates = [
        record
        for record in run.records()
        if isinstance(record, Took) and b"ParameterUpdate" in record.packet.payload
    ]
    assert len(updates) >= len(TURNS)
    for plane, heard in recorded.heard.items():
        lines = logs[0][plane].splitlines()
        sent = [line.split(b" ", 5)[5] for line in lines]
        # QoS 1 overtakes QoS 0 on the way, and what was sent last may have met closing ears.
        assert not set(heard) - set(sent)
        assert len(set(sent)) == len(sent)
        assert heard
