"""Time on a virtual board: none before the hub told it, and a hub whose clock is set."""

import datetime as dt
from pathlib import Path

from firmware.hub_stand import DOOR, LAMP, HubStand, door_rule, node, now_ms
from firmware.rigs import Broker, on_board
from nervus.simulator import VirtualBoard

DAY_MS = 86_400_000


async def test_a_board_without_a_clock_reacts_and_makes_up_no_time(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    hub.answers_pings = False
    async with VirtualBoard(tmp_path / "m1", node(broker.port, ping_s=1)) as board:
        await hub.until("DeviceInfo", lambda _: True)
        ended = "2024-01-01T00:00:00.000Z"
        report = await hub.configure(door_rule(expires_at=ended))
        board.set_pin(DOOR, 1)
        await board.wait_for("pin", LAMP, 1)
        fire = await hub.until("ReflexFire", lambda _: True)
        hub.answers_pings = True
        state = await hub.until("ReflexState", lambda m: not m.payload["enabled"])
        await board.wait_for("pin", LAMP, 0)

    assert report.payload["status"] == "applied"
    assert (fire.meta["clk"], fire.meta["t_ms"] < DAY_MS) == ("none", True)
    assert state.meta["clk"] == "hub"


async def test_a_hub_whose_clock_is_set_on_and_back_moves_dates_and_no_intervals(
    broker: Broker, hub: HubStand, tmp_path: Path
) -> None:
    async with VirtualBoard(tmp_path / "m1", node(broker.port, ping_s=1)) as board:
        hub.board = board
        await hub.synced()
        tomorrow = dt.datetime.fromtimestamp(now_ms() / 1000 + 40_000, dt.UTC)
        until = tomorrow.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        await hub.configure(door_rule(expires_at=until))
        for ahead_ms, enabled in ((DAY_MS, False), (0, True)):
            hub.ahead_ms = ahead_ms
            hub.messages.clear()
            await hub.until(
                "ReflexState", lambda m, enabled=enabled: m.payload["enabled"] is enabled
            )
            action_id = hub.next_id()
            await hub.command("lamp", action_id, pulse_ms=800)
            on = await board.wait_for("pin", LAMP, 1)
            off = await board.wait_for("pin", LAMP, 0)
            done = await hub.report(action_id, "succeeded")

            # Cut off by the other date it would end at once; a machine may stand still in between.
            assert off.at_ns - on.at_ns > 200_000_000
            assert abs(done.payload["acted_at"] - ahead_ms - now_ms()) < DAY_MS / 4
        assert board.starts == 1


def test_a_month_without_a_network_changes_nothing_but_the_uptime(tmp_path: Path) -> None:
    script = Path(__file__).parent / "on_board" / "months.py"
    seen = on_board(tmp_path, script, heap="512k")
    # Twice the ticks began anew meanwhile.
    assert (seen["wrong"], seen["falling"], seen["silent"]) == ([], [], [])
    assert seen["told"] == 30 * 24
    assert seen["uptime"] > 29 * 24 * 3600
    assert seen["fires"] > 25
