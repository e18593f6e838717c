"""A virtual board and the hub's services, over real brokers with TLS and generated rights."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from firmware.hub_stand import DOOR, LAMP, THERMOMETER, door_rule, node
from nervus.brainstem import service as brainstem_service
from nervus.policy import service as command_service
from nervus.runtime.services import ServiceContext
from nervus.simulator import Identity, VirtualBoard
from nervus.wire import topics
from spinal import cbor
from spinal.store import Store
from support import House
from system.command_clients import Client, beside, command_house, now_ms, until

# Brokers, services and a board to start, which has up to 15 s for what it is to do.
pytestmark = pytest.mark.timeout(60)

FILE = "door-lamp.json"


@pytest.fixture
async def home(running_house: House) -> AsyncIterator[House]:
    """The services that boards talk to run, for the board b1 in the kitchen."""
    house = running_house
    house.authority.issue("brainstem", "brainstem")
    for name, role in (("watcher", "diagnostics"), ("tap", "brainstem")):
        house.authority.issue(name, role)
    command_house(house)
    ready = {name: asyncio.Event() for name in ("command", "brainstem")}
    contexts = {
        name: ServiceContext(
            name, house.settings, house.state, now_ms(), int(time.time()), told.set
        )
        for name, told in ready.items()
    }
    async with beside(
        command_service.run(contexts["command"]), brainstem_service.run(contexts["brainstem"])
    ):
        for told in ready.values():
            await until(told.is_set)
        yield house


def board(house: House, folder: Path, **changes: Any) -> VirtualBoard:
    listener, files = house.settings.brokers.spinal, house.authority.get("b1").folder
    broker = {"host": "127.0.0.1", "port": listener.port, "server_name": "localhost"}
    described = node(listener.port, device_id="b1", broker=broker, **changes)
    identity = Identity(files / "cert.der", files / "key.der", files / "ca.der")
    return VirtualBoard(folder / "b1", described, identity)


async def test_a_deleted_rule_file_takes_the_rule_from_a_board_that_was_away(
    home: House, tmp_path: Path
) -> None:
    folder = home.state.path / "reflexes" / "b1"
    folder.mkdir(parents=True)
    (folder / FILE).write_text(json.dumps(door_rule()))
    states = Client(home, "observer", "spinal", topics.REFLEX_STATE.filter())
    async with beside(states.session.run()), board(home, tmp_path) as virtual:
        await until(lambda: any(packet.payload for packet in states.received), 15)
        virtual.set_pin(DOOR, 1)
        await virtual.wait_for("pin", LAMP, 1, 15)
        virtual.set_wifi(False)
        (folder / FILE).unlink()
        await until(lambda: any("link down" in line for line in virtual.log.lines))
        virtual.set_wifi(True)
        await virtual.wait_for("pin", LAMP, 0, 15)
        await until(lambda: states.received[-1].payload == b"", 15)
    assert Store(str(virtual.flash)).read("rule-00") is None
    assert virtual.starts == 1


async def test_a_board_that_speaks_cbor_is_summarized_like_any_other(
    home: House, tmp_path: Path
) -> None:
    bundles = Client(home, "watcher", "core", topics.RELAY_BUNDLE.filter())
    raw = Client(home, "tap", "spinal", topics.AFFERENT.filter())
    async with beside(bundles.session.run(), raw.session.run()):
        for client in (bundles, raw):
            await client.session.wait_connected()
        async with board(home, tmp_path, encoding="cbor") as virtual:
            virtual.set_adc(THERMOMETER, 21_370)
            virtual.set_pin(DOOR, 1)
            features = await until(lambda: summarized(bundles, "temperature", last=21.37), 15)
            doors = await until(lambda: summarized(bundles, "door", last=True), 15)
    assert features["device_id"] == doors["device_id"] == "b1"
    told = [packet.payload for packet in raw.received]
    assert all(each.startswith(cbor.MARK) for each in told)
    assert max(len(each) for each in told) <= 110


def summarized(client: Client, sensor_type: str, *, last: Any) -> Any:
    """What a bundle says of a sensor whose last value was this one."""
    for bundle in client.about("RelayBundle"):
        for feature in bundle["payload"]["summary_features"]:
            if feature["sensor_type"] == sensor_type and feature["last"] == last:
                return feature
    return None
