"""A board that looks after itself: health, crashes, watchdog, safe mode, updates over the air."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from firmware.hub_stand import DOOR, LAMP, HubStand, door_rule, node
from firmware.rigs import CHECKOUT, Broker
from firmware.update_pack import KEY, Pack
from nervus.simulator import Toolchain, VirtualBoard, image
from spinal.store import Store

TOOLS = CHECKOUT / ".tools"


def application(version: str, **changes: bytes) -> Pack:
    """The firmware itself, compiled, as an update; `changes` replace modules by source."""
    built = image.build(CHECKOUT / "firmware", TOOLS / "umqtt", TOOLS / "firmware")
    files = {
        f"spinal/{path.name}": path.read_bytes()
        for path in sorted((built / "lib" / "spinal").glob("*.mpy"))
        if path.stem not in changes
    }
    files |= {f"spinal/{name}.py": source for name, source in changes.items()}
    return Pack(version, files, chunk_size=1024)


async def test_health_is_told_again_and_again(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with VirtualBoard(tmp_path / "m1", node(broker.port, health_s=1)):
        await hub.until("DeviceHealth", lambda _: len(hub.of("DeviceHealth")) >= 2)
    first, second = (message.payload for message in hub.of("DeviceHealth")[:2])
    assert 0 < first["heap_largest"] <= first["heap_free"]
    assert first["reset_cause"] == "power_on"
    assert first["rssi"] == -50
    assert 0 < first["loop_p99"] < 10_000_000
    assert second["uptime"] > first["uptime"]
    assert (first["drops"], first["rejects"]) == ([], 0)


async def test_a_loop_that_stands_still_is_ended_by_the_watchdog_and_told(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with VirtualBoard(tmp_path / "m1", node(broker.port, watchdog_ms=1000)) as board:
        hub.board = board
        await hub.synced()
        pid = board.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(2.2)  # the alarm of the kernel's goes off meanwhile
        os.kill(pid, signal.SIGCONT)
        report = await hub.until("CrashReport", lambda _: True)
        health = await hub.until("DeviceStatus", lambda m: m.meta["boot"] == 2)
    assert report.payload["cause"] == "watchdog: the loop stood still"
    assert report.payload["boot"] == 1
    assert health.payload["status"] == "online"


async def test_a_crash_is_kept_until_the_broker_has_it(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    flash = tmp_path / "m1"
    flash.mkdir()
    kept = {"boot": 1, "cause": "ValueError: x", "trace": "t", "log": []}
    Store(str(flash)).write("crash", kept)
    async with VirtualBoard(flash, node(broker.port)) as board:
        await hub.until("CrashReport", lambda _: True)
        async with asyncio.timeout(8):
            while Store(str(flash)).read("crash") is not None:  # noqa: ASYNC110 - its flash
                await asyncio.sleep(0.02)
        assert board.starts == 1
    Store(str(flash)).write("crash", kept)
    deaf = asyncio.Event()

    async def acknowledges_nothing(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1)
        writer.write(b"\x20\x02\x00\x00\x90\x08\x00\x01" + b"\x01" * 6)
        said = b""
        while b"CrashReport" not in said:
            said += await reader.read(4096)
        deaf.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(acknowledges_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, VirtualBoard(flash, node(port)), asyncio.timeout(12):
        await deaf.wait()
    assert Store(str(flash)).read("crash") == kept


@pytest.mark.timeout(60)  # it takes the firmware whole, a kilobyte at a time
async def test_the_firmware_updates_itself_over_the_air(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    parts = node(broker.port, update_keys=[KEY], health_s=1)
    async with VirtualBoard(tmp_path / "m1", parts) as board:
        hub.board = board
        await hub.synced()
        await hub.configure(door_rule())
        await hub.offer(application("0.2.0"))
        await hub.until("UpdateReport", lambda m: m.payload["stage"] == "install", 40)
        info = await hub.until("DeviceInfo", lambda m: m.meta["boot"] == 2, 15)
        trial = await hub.until("UpdateReport", lambda m: m.payload["stage"] == "probation")
        await hub.until("DeviceHealth", lambda m: m.meta["boot"] == 2)
        board.set_pin(DOOR, 1)
        await board.wait_for("pin", LAMP, 1, timeout_s=8)
    # It restarted because it wanted to, which is no crash, though an RP2 calls it a watchdog's.
    assert not hub.of("CrashReport")
    assert info.payload["firmware"] == "0.2.0"
    assert trial.payload["status"] == "running"
    assert board.starts == 2


async def test_a_board_without_heap_for_an_update_refuses_it_and_goes_on(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    small = replace(Toolchain.locate(), form="rom", heap="128k")
    parts = node(broker.port, update_keys=[KEY])
    async with VirtualBoard(tmp_path / "m1", parts, toolchain=small) as board:
        hub.board = board
        await hub.synced()
        await hub.configure(door_rule())
        await hub.offer(application("0.2.0"))
        report = await hub.until("UpdateReport", lambda _: True)
        board.set_pin(DOOR, 1)
        await board.wait_for("pin", LAMP, 1, timeout_s=8)
    assert (report.payload["status"], report.payload["error"]["code"]) == ("refused", "no_memory")
    assert board.starts == 1


@pytest.mark.timeout(90)  # three bad boots, two seconds apart at least
async def test_an_update_that_crashes_is_taken_back_by_itself(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    broken = application("0.2.0", runtime=b"raise RuntimeError('a bad idea')\n")
    async with VirtualBoard(tmp_path / "m1", node(broker.port, update_keys=[KEY])) as board:
        hub.board = board
        await hub.synced()
        await hub.offer(broken)
        report = await hub.until("UpdateReport", lambda m: m.payload["stage"] == "rollback", 60)
        crash = await hub.until("CrashReport", lambda _: True)
        info = await hub.until("DeviceInfo", lambda m: m.meta["boot"] > 1)
        await hub.offer(broken)
        again = await hub.until("UpdateReport", lambda m: m.payload["status"] == "refused")
    assert (report.payload["version"], report.payload["error"]["code"]) == ("0.2.0", "taken_back")
    assert crash.payload["cause"] == "RuntimeError: a bad idea"
    assert "runtime.py" in crash.payload["trace"]
    assert info.payload["firmware"] == "0.1.0"
    assert again.payload["error"]["code"] == "taken_back"


@pytest.mark.timeout(60)  # three bad boots
async def test_safe_mode_switches_reflexes_off_until_they_are_configured_anew(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with VirtualBoard(tmp_path / "m1", node(broker.port)) as board:
        hub.board = board
        await hub.synced()
        applied = await hub.configure(door_rule())
        for boot in range(2, 5):
            board.kill()
            await hub.synced(sessions=boot)
        state = await hub.until(
            "ReflexState", lambda m: m.meta["boot"] == 4 and not m.payload["enabled"], 15
        )
        log = await hub.until("DeviceLog", lambda m: "safe mode" in m.payload["text"])
        board.set_pin(DOOR, 1)
        await hub.until("AfferentSignal", lambda m: m.payload["value"] is True)
        assert board.level("pin", LAMP) == 0
        again = await hub.configure(door_rule(version=2))
        await hub.until("ReflexState", lambda m: m.payload["version"] == 2 and m.payload["enabled"])
        board.set_pin(DOOR, 0)
        board.set_pin(DOOR, 1)
        await board.wait_for("pin", LAMP, 1, timeout_s=8)
    assert state.payload["last_error"]["code"] == "safe_mode"
    assert state.payload["hash"] == applied.payload["hash"]  # or the hub would send it again
    assert log.payload["level"] == "error"
    assert again.payload["status"] == "applied"
