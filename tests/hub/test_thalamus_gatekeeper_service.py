"""The gatekeeper as a service on a real broker, its journal run again."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hub.plain_broker import running, within
from nervus.bus import Filter, JournalRun, JournalSettings, Session
from nervus.runtime.replay import replay_of
from nervus.runtime.services import ServiceContext
from nervus.thalamus import Claim
from nervus.thalamus import gatekeeper_service as service
from nervus.wire import Accepted, Guard, Mint, Packet, Publish, encode, topics
from nervus.wire.contracts import ModulatorSignal, ModulatorSignalPayload
from support import DEADLINE_S, House


def rejects(file: Path) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT part, sent FROM bus_rejects").fetchall()


@pytest.mark.timeout(60)  # a broker and a service to start on a busy machine
@pytest.mark.req("S2-19", "S2-21", "S2-30", "S2-32", "S4-56")
async def test_what_modulators_propose_becomes_retained_gates_and_replays_exactly(
    running_house: House,
) -> None:
    house = running_house
    for name, role in (("gatekeeper", "gatekeeper"), ("mod", "modulator"), ("watcher", "observer")):
        house.join(name, role)
    settings = house.settings.model_copy(update={"journal": JournalSettings(enabled=True)})
    ready = asyncio.Event()
    context = ServiceContext("gatekeeper", settings, house.state, 7, int(time.time()), ready.set)
    gates: dict[str, Any] = {}

    async def see(packet: Packet) -> None:
        verdict = Guard([topics.GATE_STATE]).judge(packet, time.time_ns() // 1_000_000)
        assert isinstance(verdict, Accepted), verdict
        gates[verdict.address.topic] = verdict.message.payload

    modulator = Session("mod", "core", context.session_config("mod", "core"))
    mint = Mint("mod", "consumer", seed=3, boot=1)
    task = asyncio.create_task(service.run(context))
    async with running(modulator), asyncio.timeout(5 * DEADLINE_S):
        await ready.wait()
        for number, intent in enumerate(("suppress", "boost", "set_inhibition")):
            amount = {"inhibition" if intent == "set_inhibition" else "strength": 0.5}
            payload = ModulatorSignalPayload(
                target_kind="channel", target_id=f"c{number}", intent=intent, **amount
            )  # type: ignore[arg-type]
            address = topics.modulator_signal("room", "user:abc", "channel", f"c{number}")
            now_ms = time.time_ns() // 1_000_000
            publish = mint.full(ModulatorSignal, address, payload, now_ms, ttl_ms=20_000)
            await modulator.publish(address.topic, encode(publish.message), qos=1)
        # What it refuses is on its disk before reflect hears of it, if ever.
        await modulator.publish(address.topic, b"{]", qos=1)
        gates_file = house.state.data / "gates.db"
        await within(lambda: rejects(gates_file) == [("gatekeeper", 0)], 15)
        # Whoever comes late is told, too: the gates are retained.
        watcher = Session(
            "watcher", "core", context.session_config("watcher", "core"),
            filters=[Filter(topics.GATE_STATE.filter(), 1)], on_packet=see,
        )  # fmt: skip
        async with running(watcher):
            await within(lambda: len(gates) == 4, 15)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    shut = gates[topics.gate_state("room", "user:abc", "channel", "c2").topic]
    assert (shut.inhibition, shut.set_by) == (0.5, "gatekeeper")

    (run,) = JournalRun.all_of(house.state.data / "journal" / "gatekeeper")
    replay = replay_of(run.start())
    effects = []
    for one in replay.run(run.records()):
        assert one.agrees is not False, one
        effects += one.effects
    assert replay.exact
    assert sum(isinstance(effect, Publish) for effect in effects) >= 4
    assert any(isinstance(effect, Claim) for effect in effects)
