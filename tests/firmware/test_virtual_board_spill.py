"""A long outage and a power cut: what did not fit into RAM comes from the flash, in order."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from firmware.hub_stand import DOOR, LAMP, HubStand, back_again, door_rule, node
from firmware.rigs import Broker
from nervus.simulator import VirtualBoard
from spinal import cbor
from spinal.spill import Spill

MOVES = 60


def kept(flash: Path, scratch: Path) -> list[str]:
    """What is whole on a board's flash: the sensor of each measurement, else the contract."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for path in flash.glob("wait-*"):
        shutil.copy(path, scratch)
    spill = Spill(str(scratch), 1 << 20)
    found = []
    while (item := spill.next()) is not None:
        is_cbor = item.data.startswith(cbor.MARK)
        message: Any = cbor.loads(item.data) if is_cbor else json.loads(item.data)
        found.append(message["payload"].get("sensor_type", message["meta"]["contract"]))
        spill.sent(item)
        if item.qos:
            spill.acked()
    return found


async def test_an_outage_longer_than_the_ram_and_a_power_cut_lose_nothing(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    flash = tmp_path / "m1"
    # Its measurements are CBOR, all else is JSON: both go to the flash and come back marked.
    parts = node(broker.port, outbox_flash_kb=256, outbox_flush_s=1, encoding="cbor")
    async with VirtualBoard(flash, parts) as board:
        hub.board = board
        await hub.synced()
        await hub.configure(door_rule(max_fires_per_min=600))
        broker.stop()
        async with asyncio.timeout(10):
            # What is said at QoS 0 into a connection that is ending is nobody's.
            while not any("link down" in line for line in board.log.lines):  # noqa: ASYNC110 - its log
                await asyncio.sleep(0.01)
        for move in range(1, MOVES + 1):
            board.set_pin(DOOR, move % 2)
            await board.wait_for("pin", LAMP, move % 2)
        async with asyncio.timeout(10):
            found: list[str] = []
            while found.count("door") < MOVES or found.count("ReflexFire") < MOVES:
                await asyncio.sleep(0.1)
                found = kept(flash, tmp_path / "copy")
        board.kill()
        async with asyncio.timeout(10):
            while board.starts < 2:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
        async with back_again(broker, board) as again:
            # What the second boot says of the door comes after all that the first one kept.
            await again.until("AfferentSignal", lambda m: m.meta["boot"] == 2)
            async with asyncio.timeout(10):
                # But a broker lets QoS 0 pass QoS 1 that waits for its turn.
                while len([m for m in again.of("ReflexFire") if m.meta["boot"] == 1]) < MOVES:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    told = [m for m in again.of("AfferentSignal") if m.meta["boot"] == 1]
    door = [m for m in told if m.payload["sensor_type"] == "door"]
    assert [m.payload["value"] for m in door] == [move % 2 == 1 for move in range(1, MOVES + 1)]
    fires = [m for m in again.of("ReflexFire") if m.meta["boot"] == 1]
    for messages in (door, fires):
        numbers = [m.meta["seq"] for m in messages]
        times = [m.meta["t_ms"] for m in messages]
        assert len(messages) == MOVES
        assert (numbers, times) == (sorted(set(numbers)), sorted(times))
        assert all(m.meta["historical"] for m in messages)
        assert all(m.meta["clk"] == "hub" for m in messages)
    assert not list(flash.glob("wait-*"))
