"""Outputs of a virtual board that nobody watches: without a link, too long, on the way."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firmware.hub_stand import DOOR, FAN, LAMP, HubStand, back_again, door_rule, node, now_ms
from firmware.rigs import Broker, on_board
from nervus.simulator import VirtualBoard

BELL, HORN, WARMER = 16, 17, 18
ACTUATORS: list[dict[str, Any]] = [
    {"id": "lamp", "driver": "digital", "pin": LAMP, "boot": 0, "on_loss": {"off_after_ms": 300}},
    {"id": "fan", "driver": "pwm", "pin": FAN, "boot": 0, "on_loss": {"value": 0.25}},
    {"id": "warmer", "driver": "pwm", "pin": WARMER, "boot": 0, "max": 0.6},
    {"id": "bell", "driver": "digital", "pin": BELL, "boot": 0, "on_loss": "hold"},
    {"id": "horn", "driver": "digital", "pin": HORN, "boot": 0, "max_on_ms": 400},
]


def board_with(broker: Broker, folder: Path, **changes: Any) -> VirtualBoard:
    return VirtualBoard(folder / "m1", node(broker.port, actuators=ACTUATORS, **changes))


async def test_a_lost_link_brings_each_output_where_its_policy_says(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with board_with(broker, tmp_path) as board:
        hub.board = board
        await hub.synced()
        for actuator, value in (("lamp", True), ("fan", 1), ("bell", True)):
            action_id = hub.next_id()
            await hub.command(actuator, action_id, set=value)
            await hub.report(action_id, "succeeded")
        board.set_wifi(False)
        lost = await board.wait_for("pwm", FAN, 16384)
        off = await board.wait_for("pin", LAMP, 0)
        board.set_wifi(True)
        await hub.synced(2)

        assert off.at_ns - lost.at_ns > 200_000_000
        assert board.level("pin", BELL) == 1
        assert (board.level("pwm", FAN), board.level("pin", LAMP)) == (16384, 0)


def test_what_is_on_from_boot_goes_off_when_no_network_ever_comes(tmp_path: Path) -> None:
    script = Path(__file__).parent / "on_board" / "never_linked.py"
    assert on_board(tmp_path, script) == [[0, 1], [300, 0]]


async def test_an_output_goes_off_in_time_though_hub_and_network_are_gone(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with board_with(broker, tmp_path) as board:
        hub.board = board
        await hub.synced()
        await hub.configure(door_rule(then=[{"actuator": "horn", "set": True}]))
        board.set_wifi(False)
        board.set_pin(DOOR, 1)
        on = await board.wait_for("pin", HORN, 1)
        off = await board.wait_for("pin", HORN, 0)

        assert off.at_ns - on.at_ns >= 390_000_000


async def test_nothing_drives_an_output_out_of_the_range_of_its_node(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with board_with(broker, tmp_path) as board:
        hub.board = board
        await hub.synced()
        born = await hub.until("DeviceInfo", lambda _: True)
        action_id = hub.next_id()
        await hub.command("warmer", action_id, set=0.7)
        refused = await hub.report(action_id, "rejected")
        rule = await hub.configure(door_rule(then=[{"actuator": "warmer", "set": 0.7}]))
        action_id = hub.next_id()
        await hub.command("warmer", action_id, set=0.6)
        await hub.report(action_id, "succeeded")

        (told,) = [each for each in born.payload["capabilities"] if each["id"] == "warmer"]
        assert (told["minimum"], told["maximum"]) == (0, 0.6)
        assert refused.payload["error"]["code"] == "out_of_range"
        assert rule.payload["error"]["code"] == "out_of_range"
        assert board.level("pwm", WARMER) == round(0.6 * 65535)


async def test_a_ramp_goes_its_way_and_is_reported_at_its_end(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with board_with(broker, tmp_path) as board:
        hub.board = board
        await hub.synced()
        action_id = hub.next_id()
        with board.outputs() as outputs:
            await hub.command("fan", action_id, ramp={"to": 1, "over_ms": 300})
            levels = []
            async for output in outputs:
                levels.append(output.value)
                if output.value == 65535:
                    break
        done = await hub.report(action_id, "succeeded")

        assert levels == sorted(levels)
        assert len(levels) > 4
        assert done.payload["result"] == 1


@pytest.mark.parametrize("encoding", ["json", "cbor"])
async def test_what_was_measured_offline_comes_in_order_with_its_own_time(
    broker: Broker, hub: HubStand, tmp_path: Path, encoding: str
) -> None:
    async with board_with(broker, tmp_path, encoding=encoding) as board:
        hub.board = board
        await hub.synced()
        bell = {name: [{"actuator": "bell", "set": name == "then"}] for name in ("then", "else")}
        await hub.configure(door_rule(**bell))
        await hub.__aexit__()
        broker.stop()
        async with asyncio.timeout(8):  # what is sent before, at QoS 0, may be lost with the link
            while not any("link down" in line for line in board.log.lines):  # noqa: ASYNC110 - its log
                await asyncio.sleep(0.01)
        edges = []
        for level in (1, 0) * 4:
            driven_at = now_ms()
            board.set_pin(DOOR, level)
            await board.wait_for("pin", BELL, level)
            edges.append((bool(level), driven_at - 500, now_ms() + 500))
        await asyncio.sleep(2)  # so that the time it is sent is not the time it happened
        async with back_again(broker, board) as again:
            await again.until("AfferentSignal", lambda _: len(doors(again)) >= len(edges), 12)
            await hub.__aenter__()
        told = doors(again)

        assert [each.payload["value"] for each in told] == [level for level, _, _ in edges]
        # The board's clock is right to half a round trip of its ping, at most 500 ms.
        for each, (_, earliest, latest) in zip(told, edges, strict=True):
            assert earliest <= each.meta["t_ms"] <= latest
            assert (each.meta["historical"], each.meta["clk"]) == (True, "hub")
        sequences = [each.meta["seq"] for each in told]
        assert sequences == sorted(sequences)
        assert board.starts == 1


def doors(hub: HubStand) -> list[Any]:
    return [each for each in hub.of("AfferentSignal") if each.payload["sensor_type"] == "door"]
