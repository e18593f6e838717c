"""A virtual board on a real broker: birth, measurements, time, last will, coming back."""

import asyncio
import os
import ssl
from pathlib import Path

import pytest

from firmware.hub_stand import DOOR, THERMOMETER, HubStand, back_again, node, now_ms
from firmware.rigs import Broker, Certificates
from nervus.simulator import Identity, VirtualBoard


async def board_says(board: VirtualBoard, words: str) -> None:
    """Wait until the board's log has a line with these words."""
    async with asyncio.timeout(8):
        while not any(words in line for line in board.log.lines):  # noqa: ASYNC110 - its log
            await asyncio.sleep(0.02)


@pytest.mark.req("S4-40")
async def test_birth_says_what_the_board_is_and_that_it_is_here(
    board: VirtualBoard, hub: HubStand, broker: Broker
) -> None:
    status = await hub.until("DeviceStatus", lambda m: m.payload["status"] == "online")
    info = await hub.until("DeviceInfo", lambda _: True)
    async with HubStand(broker.port) as later:
        kept = await later.until("DeviceInfo", lambda m: m.retain)

    assert board.starts == 1
    assert status.meta["source"] == "device:m1"
    assert status.meta["boot"] == 1
    assert kept.payload == info.payload
    assert info.payload["versions"] == ["v1"]
    fan = {"input_schema": "number", "minimum": 0, "maximum": 1}
    assert {c.pop("id"): c for c in info.payload["capabilities"]} == {
        "door": {"kind": "sensor", "output_schema": "bool", "device_class": "door"},
        "temperature": {"kind": "sensor", "output_schema": "number", "unit": "Cel"},
        "lamp": {"kind": "actuator", "input_schema": "bool"},
        "fan": {"kind": "actuator", **fan},
    }


@pytest.mark.req("S0-23", "S0-65")
async def test_an_input_becomes_an_afferent_with_the_hubs_time(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    before = now_ms()
    board.set_pin(DOOR, 1)
    board.set_adc(THERMOMETER, 21_370)
    door = await hub.until("AfferentSignal", lambda m: m.payload["value"] is True)
    heat = await hub.until("AfferentSignal", lambda m: m.payload["value"] == 21.37)

    assert door.topic == "/sc/aff/event/room/kitchen/sensor/door/device/m1"
    assert door.meta["clk"] == "hub"
    assert abs(door.meta["t_ms"] - before) < 2_000
    assert heat.payload == {"sensor_type": "temperature", "value": 21.37, "unit": "Cel"}
    assert heat.qos == 0


async def test_an_urgent_value_goes_out_as_critical_at_qos_1(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    board.set_adc(THERMOMETER, 41_000)
    hot = await hub.until("AfferentSignal", lambda m: m.payload["value"] == 41)

    assert hot.meta["priority"] == "critical"
    assert hot.qos == 1


async def test_sequence_counts_without_gaps_over_all_contracts(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    for step in range(10):
        board.set_pin(DOOR, step % 2 == 0)
        await asyncio.sleep(0.02)
    await hub.until("Ping", lambda _: len(hub.of("Ping")) > 1)
    numbers = sorted(message.meta["seq"] for message in hub.messages)

    assert numbers == list(range(len(numbers)))


async def test_power_cut_is_told_by_the_will_of_that_session_and_the_board_comes_back(
    board: VirtualBoard, hub: HubStand
) -> None:
    first = await hub.until("DeviceStatus", lambda m: m.payload["status"] == "online")
    board.kill()
    gone = await hub.until("DeviceStatus", lambda m: m.payload["status"] == "offline")
    second = await hub.until(
        "DeviceStatus", lambda m: m.payload["status"] == "online" and m.meta["boot"] == 2
    )

    assert gone.payload["session"] == first.payload["session"]
    assert second.payload["session"] != first.payload["session"]
    assert board.starts == 2


async def test_board_comes_back_to_a_restarted_broker(
    board: VirtualBoard, hub: HubStand, broker: Broker
) -> None:
    await hub.synced()
    await hub.__aexit__()
    broker.stop()
    await board_says(board, "link down")
    board.set_pin(DOOR, 1)
    await asyncio.sleep(0.2)
    async with back_again(broker, board) as again:
        status = await again.until("DeviceStatus", lambda m: m.payload["status"] == "online", 12)
        door = await again.until("AfferentSignal", lambda m: m.payload["value"] is True, 12)
        await again.until("DeviceInfo", lambda _: True)
        await hub.__aenter__()

    assert status.meta["boot"] == 1
    assert door.meta["historical"] is True
    assert door.meta["clk"] == "hub"


async def test_wifi_that_goes_and_comes_back(board: VirtualBoard, hub: HubStand) -> None:
    await hub.synced()
    board.set_wifi(False)
    await hub.until("DeviceStatus", lambda m: m.payload["status"] == "offline")
    board.set_wifi(True)
    await hub.until("DeviceStatus", lambda _: len(hub.of("DeviceStatus")) >= 3)

    assert any("network_down" in line for line in board.log.lines)
    assert board.starts == 1


async def test_scope_that_the_hub_does_not_grant_is_told(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    elsewhere = node(broker.port, scope="cellar")
    async with VirtualBoard(tmp_path / "m1", elsewhere):
        reject = await hub.until("RejectEvent", lambda _: True)

    assert reject.payload["reason_code"] == "scope_not_granted"
    assert "room/kitchen" in reject.payload["reason"]


async def test_silent_hub_behind_a_live_broker_is_noticed(
    board: VirtualBoard, hub: HubStand
) -> None:
    hub.answers_pings = False
    await hub.until("DeviceStatus", lambda m: m.payload["status"] == "offline", 15)
    # The broker tells of the end before the board does.
    await board_says(board, "no_pong")


async def test_board_with_its_certificate_is_let_in_over_tls(
    tls_broker: Broker, certificates: Certificates, tmp_path: Path
) -> None:
    tls = ssl.create_default_context(cafile=certificates.path("ca", "cert", "pem"))
    tls.load_cert_chain(
        certificates.path("observer", "cert", "pem"), certificates.path("observer", "key", "pem")
    )
    identity = Identity(
        certificates.path("m1", "cert", "der"),
        certificates.path("m1", "key", "der"),
        certificates.path("ca", "cert", "der"),
    )
    async with (
        HubStand(tls_broker.port, tls=tls) as hub,
        VirtualBoard(tmp_path / "m1", node(tls_broker.port), identity) as board,
    ):
        hub.board = board
        await hub.synced()
        board.set_pin(DOOR, 1)
        await hub.until("AfferentSignal", lambda m: m.payload["value"] is True)

    assert (tmp_path / "m1" / "key.der").stat().st_mode & 0o777 == 0o600


async def test_board_refuses_a_broker_whose_certificate_names_another_host(
    tls_broker: Broker, certificates: Certificates, tmp_path: Path
) -> None:
    identity = Identity(
        certificates.path("m1", "cert", "der"),
        certificates.path("m1", "key", "der"),
        certificates.path("ca", "cert", "der"),
    )
    elsewhere = node(
        tls_broker.port,
        broker={"host": "127.0.0.1", "port": tls_broker.port, "server_name": "hub.example"},
    )
    async with VirtualBoard(tmp_path / "m1", elsewhere, identity) as board:
        await board_says(board, "link down: tls")

    assert not any("link up" in line for line in board.log.lines)


async def test_broker_that_says_nothing_in_the_handshake_does_not_keep_the_board_busy(
    certificates: Certificates, tmp_path: Path
) -> None:
    greeted = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            greeted.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    identity = Identity(
        certificates.path("m1", "cert", "der"),
        certificates.path("m1", "key", "der"),
        certificates.path("ca", "cert", "der"),
    )
    port = server.sockets[0].getsockname()[1]
    async with server, VirtualBoard(tmp_path / "m1", node(port), identity) as board:
        async with asyncio.timeout(12):
            await greeted.wait()
        began = cpu_ticks(board)
        await asyncio.sleep(1)
        used = cpu_ticks(board) - began

    assert used < 0.3 * os.sysconf("SC_CLK_TCK")


def cpu_ticks(board: VirtualBoard) -> int:
    """Processor time of the board's process so far, in ticks of the kernel."""
    fields = Path(f"/proc/{board.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
