"""Commands on a virtual board: once, in time, inside the limits, and answered."""

import asyncio
import json
from pathlib import Path

import pytest

from firmware.hub_stand import DOOR, FAN, LAMP, HubStand, door_rule, node, now_ms
from firmware.rigs import Broker
from nervus.simulator import VirtualBoard


@pytest.mark.req("S0-24")
async def test_command_is_acknowledged_done_and_reported(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    action_id = hub.next_id()
    await hub.command("lamp", action_id, set=True)
    done = await hub.report(action_id, "succeeded")
    output = await board.wait_for("pin", LAMP, 1)
    statuses = [m.payload["status"] for m in hub.of("EfferentReport")]

    assert statuses == ["acknowledged", "succeeded"]
    assert done.payload["result"] is True
    assert done.topic.endswith(f"/act/lamp/device/m1/report/{action_id}")
    assert abs(output.at_ns // 1_000_000 - done.payload["acted_at"]) < 500


async def test_number_reaches_the_pwm_output(board: VirtualBoard, hub: HubStand) -> None:
    await hub.synced()
    action_id = hub.next_id()
    await hub.command("fan", action_id, set=0.5)
    await hub.report(action_id, "succeeded")

    assert board.level("pwm", FAN) == 32768


async def test_pulse_ends_by_itself(board: VirtualBoard, hub: HubStand) -> None:
    await hub.synced()
    action_id = hub.next_id()
    await hub.command("lamp", action_id, pulse_ms=300)
    on = await board.wait_for("pin", LAMP, 1)
    off = await board.wait_for("pin", LAMP, 0)
    await hub.report(action_id, "succeeded")

    assert 0.25 < (off.at_ns - on.at_ns) / 1e9 < 0.45


async def test_repeated_command_is_answered_again_and_acts_once(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    action_id = hub.next_id()
    changes = []
    with board.outputs() as outputs:
        for _ in range(3):
            await hub.command("lamp", action_id, set=True)
        await hub.until("EfferentReport", lambda _: len(hub.of("EfferentReport")) == 4)
        await hub.command("fan", hub.next_id(), set=1)
        async for output in outputs:
            changes.append(output)
            if output.kind == "pwm":
                break

    assert [(c.kind, c.value) for c in changes] == [("pin", 1), ("pwm", 65535)]


async def test_command_done_before_a_power_cut_is_not_done_again_after_it(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    action_id = hub.next_id()
    await hub.command("lamp", action_id, set=True)
    await hub.report(action_id, "succeeded")
    hub.messages.clear()
    board.kill()
    await hub.synced(sessions=2)
    await hub.command("lamp", action_id, set=True)
    again = await hub.report(action_id, "succeeded")
    await asyncio.sleep(0.2)

    assert again.meta["boot"] == 2
    assert board.level("pin", LAMP) == 0  # its boot state: nothing acted


async def test_command_cut_off_by_a_power_cut_is_reported_interrupted_and_never_repeated(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    action_id = hub.next_id()
    await hub.command("lamp", action_id, pulse_ms=60_000)
    await board.wait_for("pin", LAMP, 1)
    await hub.report(action_id, "acknowledged")
    board.kill()
    failed = await hub.report(action_id, "failed")
    await hub.synced(sessions=2)
    await hub.command("lamp", action_id, pulse_ms=60_000)
    await hub.until("EfferentReport", lambda _: len(hub.of("EfferentReport")) >= 3)

    assert failed.payload["error"]["code"] == "interrupted"
    assert failed.meta["boot"] == 2
    assert hub.of("EfferentReport")[-1].payload["status"] == "failed"
    assert board.level("pin", LAMP) == 0


async def test_retained_command_is_refused_and_reported(board: VirtualBoard, hub: HubStand) -> None:
    await hub.synced()
    board.set_wifi(False)
    await hub.until("DeviceStatus", lambda m: m.payload["status"] == "offline")
    action_id = hub.next_id()
    await hub.command("lamp", action_id, set=True, retain=True)
    board.set_wifi(True)
    report = await hub.report(action_id, "rejected")
    reject = await hub.until("RejectEvent", lambda _: True)

    assert report.payload["error"]["code"] == "retained_command"
    assert reject.payload["reason_code"] == "retained_command"
    assert reject.topic == "/X/reflect/event/device/m1/lane/reject"
    assert board.level("pin", LAMP) == 0


async def test_nothing_is_actuated_before_the_hub_told_the_time(
    board: VirtualBoard, hub: HubStand
) -> None:
    hub.answers_pings = False
    await hub.until("DeviceInfo", lambda m: m.meta["boot"] == 1)
    board.kill()
    await hub.until("DeviceInfo", lambda m: m.meta["boot"] == 2)
    action_id = hub.next_id()
    await hub.command("lamp", action_id, set=True)
    report = await hub.report(action_id, "rejected")

    assert report.payload["error"]["code"] == "clock_unsynced"
    assert board.level("pin", LAMP) == 0


async def test_time_of_an_earlier_session_lets_nothing_act(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    # One ping in each session: a link that no pong comes over would soon be another one.
    async with VirtualBoard(tmp_path / "m1", node(broker.port, ping_s=60)) as board:
        hub.board = board
        await hub.synced()
        await hub.configure(door_rule(then=[{"actuator": "lamp", "set": True}]))
        hub.answers_pings = False
        board.set_wifi(False)
        await hub.until("DeviceStatus", lambda m: m.payload["status"] == "offline")
        sessions = len(hub.of("DeviceInfo"))
        board.set_wifi(True)
        await hub.until("DeviceInfo", lambda _: len(hub.of("DeviceInfo")) > sessions, 12)
        action_id = hub.next_id()
        await hub.command("lamp", action_id, set=True)
        await hub.trigger("door-lamp", hub.next_id())
        report = await hub.report(action_id, "rejected")
        # Refusals of one reason are folded: the trigger's is told with the window.
        await hub.until("RejectEvent", lambda m: m.payload.get("count") == 1, 12)
        reasons = {m.payload["reason_code"] for m in hub.of("RejectEvent")}

        assert report.payload["error"]["code"] == "clock_unsynced"
        assert reasons == {"clock_unsynced"}
        assert board.level("pin", LAMP) == 0
        assert not hub.of("ReflexFire")


async def test_late_command_is_reported_expired(board: VirtualBoard, hub: HubStand) -> None:
    await hub.synced()
    action_id = hub.next_id()
    meta = {"action_id": action_id, "deadline_ms": 1_000, "t_ms": now_ms() - 5_000}
    data = hub.envelope("EfferentCommand", {"actuator": "lamp", "set": True}, **meta)
    await hub.send(f"/sc/eff/event/room/kitchen/act/lamp/device/m1/cmd/{action_id}", data)
    await hub.report(action_id, "expired")

    assert board.level("pin", LAMP) == 0


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda data: data[:-1], "decode_error"),
        (lambda data: data.replace(b'"set": true', b'"set": true, "set": false'), "decode_error"),
        (lambda data: data.replace(b'"set": true', b'"set": null'), "schema_invalid"),
        (lambda data: data.replace(b'"lamp"', b'"fan"'), "topic_mismatch"),
        (lambda data: data.replace(b'"EfferentCommand"', b'"Outcome"'), "contract_not_allowed"),
        (
            lambda data: data.replace(
                b'"message_type": "EfferentCommand"', b'"message_type": "Command"'
            ),
            "contract_drift",
        ),
        (lambda data: data.replace(b"{", b" " * 1_100 + b"{", 1), "oversize"),
        (lambda _: b"", "empty_payload"),
        (lambda _: b"\xd9\xd9\xf7\xa0", "schema_invalid"),
        (lambda _: b"\x12\x00", "unsupported_encoding"),
    ],
)
@pytest.mark.req("S0-48", "S0-49", "S0-82", "S0-83", "S0-84")
async def test_broken_command_is_refused_with_its_reason(
    board: VirtualBoard, hub: HubStand, broken: object, reason: str
) -> None:
    await hub.synced()
    action_id = hub.next_id()
    meta = {"action_id": action_id, "deadline_ms": 10_000}
    data = hub.envelope("EfferentCommand", {"actuator": "lamp", "set": True}, **meta)
    topic = f"/sc/eff/event/room/kitchen/act/lamp/device/m1/cmd/{action_id}"
    assert callable(broken)
    await hub.send(topic, broken(data))
    reject = await hub.until("RejectEvent", lambda _: True)

    assert reject.payload["reason_code"] == reason
    assert reject.payload["input_ref"]["source_topic"] == topic
    assert board.level("pin", LAMP) == 0


@pytest.mark.req("S1-71")
async def test_flood_of_broken_messages_folds_and_the_reflex_loop_goes_on(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    topic = f"/sc/eff/event/room/kitchen/act/lamp/device/m1/cmd/{hub.next_id()}"
    for _ in range(200):
        await hub.send(topic, json.dumps({"meta": 1}).encode(), qos=0)
    board.set_pin(DOOR, 1)
    await hub.until("AfferentSignal", lambda m: m.payload["value"] is True)
    folded = await hub.until("RejectEvent", lambda m: "count" in m.payload, 10)

    assert sum(m.payload.get("count", 1) for m in hub.of("RejectEvent")) == 200
    assert len(hub.of("RejectEvent")) <= 4
    # Its subscriber asks for QoS 1.
    assert {message.qos for message in hub.of("RejectEvent")} == {0}
    assert folded.payload["window_ms"] >= 1_000
