"""Reflexes on a virtual board: set over MQTT, run without any hub, kept across power cuts."""

import asyncio
import os
import signal
import time

import pytest

from firmware.hub_stand import DOOR, FAN, LAMP, THERMOMETER, HubStand, back_again, door_rule, now_ms
from firmware.rigs import Broker
from nervus.simulator import VirtualBoard


@pytest.mark.req("S0-3", "S0-25", "S0-27", "S0-28")
async def test_configured_reflex_moves_the_output_and_reports_the_fire(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    report = await hub.configure(door_rule())
    board.set_pin(DOOR, 1)
    await board.wait_for("pin", LAMP, 1)
    fire = await hub.until("ReflexFire", lambda _: True)
    state = await hub.until("ReflexState", lambda m: m.payload["fires"] == 0)

    assert report.payload["status"] == "applied"
    assert fire.topic.startswith("/sc/reflex/event/device/m1/rule/door-lamp/fire/")
    assert fire.payload["inputs"] == {"door": True}
    assert fire.payload["actions"] == ["lamp=true"]
    assert fire.meta["clk"] == "hub"
    assert state.payload["hash"] == report.payload["hash"]


async def test_pulse_that_comes_and_goes_while_the_board_is_busy_is_not_missed(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    await hub.configure(door_rule())
    assert board.pid is not None
    with board.outputs() as outputs:
        os.kill(board.pid, signal.SIGSTOP)
        for _ in range(3):
            board.set_pin(DOOR, 1)
            board.set_pin(DOOR, 0)
        os.kill(board.pid, signal.SIGCONT)
        async with asyncio.timeout(8):
            moved = [(await anext(outputs)).value for _ in range(6)]

    assert moved == [1, 0, 1, 0, 1, 0]


@pytest.mark.req("S0-107")
async def test_reflex_runs_with_the_broker_down_and_is_told_of_later(
    board: VirtualBoard, hub: HubStand, broker: Broker
) -> None:
    await hub.synced()
    await hub.configure(door_rule())
    await hub.__aexit__()
    broker.stop()
    await asyncio.sleep(0.3)
    fired_at = time.time()
    board.set_pin(DOOR, 1)
    await board.wait_for("pin", LAMP, 1, timeout_s=8)
    seen_at = time.time()
    await asyncio.sleep(2)  # so that the time it is sent is not the time it happened
    async with back_again(broker, board) as again:
        fire = await again.until("ReflexFire", lambda _: True, 12)
        await hub.__aenter__()

    assert fire.meta["historical"] is True
    # The board's clock is right to half a round trip of its ping, at most 500 ms.
    assert fired_at * 1000 - 500 <= fire.meta["t_ms"] <= seen_at * 1000 + 500


@pytest.mark.req("S0-107")
async def test_reflex_survives_sigkill_and_runs_before_any_broker_is_there(
    board: VirtualBoard, hub: HubStand, broker: Broker
) -> None:
    await hub.synced()
    report = await hub.configure(door_rule())
    await hub.__aexit__()
    broker.stop()
    board.kill()
    await _started_again(board)
    board.set_pin(DOOR, 1)
    await board.wait_for("pin", LAMP, 1)
    async with back_again(broker, board) as again:
        state = await again.until("ReflexState", lambda _: True, 12)
        await hub.__aenter__()

    assert state.payload["hash"] == report.payload["hash"]
    assert state.meta["boot"] == 2


async def test_a_lower_version_is_refused_and_the_old_rule_stays(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    await hub.configure(door_rule(version=5))
    lower = await hub.configure(door_rule(version=4, then=[{"actuator": "fan", "set": 1}]))
    same = await hub.configure(door_rule(version=5))
    unwired = await hub.configure(door_rule(version=6, then=[{"actuator": "siren", "set": 1}]))
    board.set_pin(DOOR, 1)
    await board.wait_for("pin", LAMP, 1)

    assert lower.payload["error"]["code"] == "version_conflict"
    assert same.payload["status"] == "unchanged"
    assert unwired.payload["error"]["code"] == "unknown_actuator"


async def test_rule_whose_condition_breaks_the_contract_is_refused_with_its_place(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    wrong = door_rule(when={"all": [{"not": {"sensor": "door", "op": "is"}}]})
    topic = f"/sc/reflex/event/device/{board.device_id}/rule/{wrong['reflex_id']}/configure"
    await hub.send(topic, hub.envelope("ReflexConfigure", wrong, action_id=hub.next_id()))
    reject = await hub.until("RejectEvent", lambda _: True)
    report = await hub.configure(door_rule())

    assert reject.payload["reason_code"] == "schema_invalid"
    assert reject.payload["reason"].startswith("/payload/when/all/0/")
    assert [report] == hub.of("ReflexReport")
    assert report.payload["status"] == "applied"


async def test_dry_run_reports_and_moves_nothing(board: VirtualBoard, hub: HubStand) -> None:
    await hub.synced()
    await hub.configure(door_rule(mode="dry_run"))
    board.set_pin(DOOR, 1)
    fire = await hub.until("ReflexFire", lambda _: True)

    assert fire.payload["dry_run"] is True
    assert board.level("pin", LAMP) == 0


@pytest.mark.req("S0-26")
async def test_trigger_by_hand_fires_once_however_often_it_is_sent(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    await hub.configure(door_rule(then=[{"actuator": "lamp", "set": True}]))
    action_id = hub.next_id()
    for _ in range(3):
        await hub.trigger("door-lamp", action_id)
    await hub.until("ReflexReport", lambda _: len(hub.of("ReflexReport")) == 4)
    answers = [m.payload["status"] for m in hub.of("ReflexReport")[1:]]
    await hub.until("ReflexFire", lambda _: True)
    await asyncio.sleep(0.2)

    assert answers == ["fired", "fired", "fired"]
    assert [m.meta["action_id"] for m in hub.of("ReflexFire")] == [action_id]
    assert board.level("pin", LAMP) == 1


async def test_reflex_that_publishes_sends_an_afferent_of_the_board(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    signal = {"sensor_type": "heat_alarm", "value": True}
    when = {"sensor": "temperature", "op": "ge", "value": 30}
    await hub.configure(door_rule(reflex_id="heat", when=when, then=[{"publish": signal}]))
    board.set_adc(THERMOMETER, 31_000)
    told = await hub.until("AfferentSignal", lambda m: m.payload["sensor_type"] == "heat_alarm")

    assert told.payload == signal
    assert told.topic == "/sc/aff/event/room/kitchen/sensor/heat_alarm/device/m1"


async def test_thirty_two_rules_fit_the_heap_and_a_thirty_third_is_refused(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    for number in range(32):
        when = {"sensor": "temperature", "op": "ge", "value": 100 + number}
        rule = {"reflex_id": f"r{number}", "when": when, "then": [{"actuator": "fan", "set": 1}]}
        report = await hub.configure(_without_else(door_rule(**rule)))
        assert report.payload["status"] == "applied", report.payload
    last = await hub.configure(door_rule(reflex_id="r32"))
    board.kill()
    await _started_again(board)
    await hub.until("ReflexState", lambda m: m.meta["boot"] == 2 and m.topic.endswith("/r31"))

    assert board.starts == 2
    assert last.payload["error"]["code"] == "too_many_rules"
    assert not [line for line in board.log.lines if "Error" in line]


async def test_a_long_outage_with_many_fires_costs_no_restart_and_no_edge(
    board: VirtualBoard, hub: HubStand, broker: Broker
) -> None:
    await hub.synced()
    for number in range(4):
        await hub.configure(door_rule(reflex_id=f"door-lamp-{number}", max_fires_per_min=600))
    await hub.__aexit__()
    broker.stop()
    for value in [1, 0] * 140:
        board.set_pin(DOOR, value)
        await board.wait_for("pin", LAMP, value, timeout_s=8)
    async with back_again(broker, board) as again:
        await again.until("ReflexFire", lambda fire: fire.meta.get("historical"), 12)
        await hub.__aenter__()

    assert board.starts == 1


async def _started_again(board: VirtualBoard) -> None:
    async with asyncio.timeout(8):
        while board.starts < 2:  # noqa: ASYNC110 - the board's state, not an event of ours
            await asyncio.sleep(0.02)


def _without_else(rule: dict[str, object]) -> dict[str, object]:
    del rule["else"]
    return rule


@pytest.mark.req("S0-85", "S0-86")
async def test_configuration_that_is_late_or_comes_twice_is_refused(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    topic = "/sc/reflex/event/device/m1/rule/door-lamp/configure"
    late = {"action_id": hub.next_id(), "t_ms": now_ms() - 60_000}
    await hub.send(topic, hub.envelope("ReflexConfigure", door_rule(), **late))
    expired = await hub.until("RejectEvent", lambda _: True)
    fresh = hub.envelope("ReflexConfigure", door_rule(), action_id=hub.next_id())
    await hub.send(topic, fresh)
    await hub.send(topic, fresh)
    twice = await hub.until("RejectEvent", lambda m: m.payload["reason_code"] == "duplicate")

    assert expired.payload["reason_code"] == "expired"
    assert twice.payload["stage"] == "dedupe"
    assert [m.payload["status"] for m in hub.of("ReflexReport")] == ["applied"]
    assert board.starts == 1


@pytest.mark.req("S0-25", "S0-28")
async def test_a_removed_reflex_is_gone_from_output_flash_and_broker(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    await hub.configure(door_rule(version=3))
    board.set_pin(DOOR, 1)
    await board.wait_for("pin", LAMP, 1)
    older = await hub.configure(removal(version=2))
    report = await hub.configure(removal(version=3))
    await board.wait_for("pin", LAMP, 0)
    await hub.gone("/sc/reflex/state/device/m1/rule/door-lamp")
    again = await hub.configure(removal(version=3))
    await hub.configure(door_rule(reflex_id="other"))
    board.kill()
    await _started_again(board)
    await hub.until("ReflexState", lambda m: m.meta["boot"] == 2 and m.topic.endswith("/other"))

    assert older.payload["error"]["code"] == "version_conflict"
    assert report.payload == {"version": 3, "status": "removed"}
    assert again.payload["status"] == "removed"
    states = {m.topic for m in hub.of("ReflexState") if m.meta["boot"] == 2}
    assert states == {"/sc/reflex/state/device/m1/rule/other"}


async def test_an_actuator_is_given_back_when_the_higher_reflex_ends(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    warm = {"sensor": "temperature", "op": "ge", "value": 30}
    fan = {"then": [{"actuator": "fan", "set": 0.25}], "else": [{"actuator": "fan", "set": 0}]}
    await hub.configure(door_rule(reflex_id="airing", priority=1, **fan))
    full = [{"actuator": "fan", "ramp": {"to": 1, "over_ms": 200}}]
    await hub.configure(door_rule(reflex_id="heat", when=warm, priority=9, then=full))
    board.set_pin(DOOR, 1)
    await board.wait_for("pwm", FAN, round(0.25 * 65535))
    board.set_adc(THERMOMETER, 31_000)
    await board.wait_for("pwm", FAN, 65535)
    board.set_adc(THERMOMETER, 20_000)
    await board.wait_for("pwm", FAN, round(0.25 * 65535))
    given = await hub.until(
        "ReflexFire",
        lambda m: m.topic.split("/")[-3] == "airing" and m.payload["inputs"] == {"door": True},
    )
    board.set_pin(DOOR, 0)
    await board.wait_for("pwm", FAN, 0)

    assert given.payload["actions"] == ["fan=0.25"]


async def test_broken_sensor_fires_the_reflex_that_watches_it_and_is_told(
    board: VirtualBoard, hub: HubStand
) -> None:
    await hub.synced()
    silent = {"sensor": "temperature", "op": "stale", "for_ms": 200}
    await hub.configure(door_rule(when=silent))
    board.set_adc(THERMOMETER, None)
    await board.wait_for("pin", LAMP, 1)
    told = await hub.until("DeviceLog", lambda m: "gives no value" in m.payload["text"])
    board.set_adc(THERMOMETER, 20_000)
    await board.wait_for("pin", LAMP, 0)

    assert told.payload["level"] == "warning"
    assert "temperature gives no value: OSError(5" in told.payload["text"]


def removal(**fields: object) -> dict[str, object]:
    return {"reflex_id": "door-lamp", "removed": "tested enough", **fields}
