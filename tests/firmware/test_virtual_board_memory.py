"""Whole boards in small heaps: they come up, take their rules, reconnect, and keep room."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from firmware.fault_stand import context
from firmware.hub_stand import HubStand, Json, node
from firmware.rigs import CHECKOUT, Broker, Certificates, on_board
from nervus.simulator import Identity, Toolchain, VirtualBoard
from nervus.simulator.toolchain import Form

SENSOR_PIN, ACTUATOR_PIN = 20, 40
RECONNECTS = 3


def house(port: int, sensors: int, actuators: int) -> Json:
    return node(
        port,
        sensors=[
            {"id": f"door-{n}", "driver": "digital", "pin": SENSOR_PIN + n} for n in range(sensors)
        ],
        actuators=[
            {"id": f"lamp-{n}", "driver": "digital", "pin": ACTUATOR_PIN + n, "boot": 0}
            for n in range(actuators)
        ],
    )


def follow(number: int, actuators: int) -> Json:
    lamp = f"lamp-{number % actuators}"
    return {
        "reflex_id": f"r{number}",
        "version": 1,
        "enabled": True,
        "mode": "active",
        "when": {"sensor": f"door-{number}", "op": "eq", "value": True},
        "then": [{"actuator": lamp, "set": True}],
        "else": [{"actuator": lamp, "set": False}],
    }


def measured_tree(folder: Path) -> Path:
    """The firmware with the main.py of the benchmarks, which says each second what is free."""
    folder.mkdir()
    for name in ("lib", "simulator", "boot.py"):
        (folder / name).symlink_to(CHECKOUT / "firmware" / name)
    (folder / "main.py").symlink_to(CHECKOUT / "tools" / "benchmarks" / "on_board" / "main.py")
    return folder


async def free_share(board: VirtualBoard) -> float:
    """What the board says next about its heap: the share that is free, at rest."""
    seen = sum("] heap " in line for line in board.log.lines)
    async with asyncio.timeout(10):
        while sum("] heap " in line for line in board.log.lines) < seen + 2:  # noqa: ASYNC110 - its log
            await asyncio.sleep(0.05)
    # A message that is on its way takes a hundredth.
    told = [line.split()[-2:] for line in board.log.lines if "] heap " in line]
    return max(int(free) / int(total) for free, total in told[-2:])


async def told(hub: HubStand, status: str, times: int) -> None:
    """Wait until the broker has seen this status so often."""

    def often_enough(_: object) -> bool:
        return sum(m.payload["status"] == status for m in hub.of("DeviceStatus")) >= times

    await hub.until("DeviceStatus", often_enough)


@pytest.mark.parametrize(
    ("size", "least"), [(("rom", "128k", 4), 0.39), (("ram", "192k", 8), 0.23)], ids=str
)
async def test_board_with_eight_rules_reconnects_and_keeps_room(
    tls_broker: Broker,
    certificates: Certificates,
    tmp_path: Path,
    size: tuple[Form, str, int],
    least: float,
) -> None:
    form, heap, actuators = size
    tree = measured_tree(tmp_path / "firmware")
    toolchain = replace(Toolchain.locate(), firmware=tree, form=form, heap=heap)
    # As on a wall: what TLS needs is there, too.
    parts = house(tls_broker.port, 8, actuators)
    names = ("m1", "cert"), ("m1", "key"), ("ca", "cert")
    identity = Identity(*(certificates.path(name, kind, "der") for name, kind in names))
    tls = context(certificates, "observer")
    async with (
        HubStand(tls_broker.port, tls=tls) as hub,
        VirtualBoard(tmp_path / "m1", parts, identity, toolchain) as board,
    ):
        await told(hub, "online", 1)
        for number in range(8):
            report = await hub.configure(follow(number, actuators))
            assert report.payload["status"] == "applied"
        for turn in range(RECONNECTS):
            board.set_wifi(False)
            await told(hub, "offline", turn + 1)
            board.set_wifi(True)
            await told(hub, "online", turn + 2)
        free = await free_share(board)
        board.set_pin(SENSOR_PIN + 3, 1)
        await board.wait_for("pin", ACTUATOR_PIN + 3, 1)

    assert board.starts == 1
    assert not any("MemoryError" in line for line in board.log.lines)
    assert free >= least, free


# Whether a heap gets scattered turns on where its parts happen to lie.
@pytest.mark.parametrize("heap", ["184k", "192k", "194k", "196k"])
def test_loop_leaves_nothing_on_the_heap(tmp_path: Path, heap: str) -> None:
    script = CHECKOUT / "tools" / "benchmarks" / "on_board" / "drift.py"
    used = on_board(tmp_path, script, "2000", heap=heap)
    assert len(used) == 10
    # What looks like a pointer, or is counted for a minute, comes and goes; a median does not.
    assert median(used[5:]) <= median(used[:5])


def test_message_is_built_in_a_heap_of_small_pieces_while_much_waits(tmp_path: Path) -> None:
    told = on_board(tmp_path, Path(__file__).parent / "on_board" / "pieces.py")
    assert told["largest"] < 600  # a fire takes more, in one piece
    assert told["said"] == [f"{number:026d}" for number in range(40)]


def test_connection_that_finds_no_memory_is_given_that_of_what_waits(tmp_path: Path) -> None:
    waiting = on_board(tmp_path, Path(__file__).parent / "on_board" / "no_room.py")
    assert waiting[0] > 16
    assert all(later < before for before, later in pairwise(waiting))


def test_largest_block_is_that_of_the_heap_that_runs_out(tmp_path: Path) -> None:
    script = Path(__file__).parent / "on_board" / "largest_block.py"
    (free, largest), (_, on_an_esp32) = on_board(tmp_path, script)
    assert 512 < largest <= free
    assert on_an_esp32 == 70_000
