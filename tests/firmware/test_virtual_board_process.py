"""The virtual board as a process: it starts, dies, comes back and leaves nothing behind."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from firmware.hub_stand import DOOR, LAMP, node
from nervus.runtime.settings import free_port
from nervus.simulator import Toolchain, ToolchainError, VirtualBoard


async def logged(board: VirtualBoard, text: str, timeout_s: float = 8) -> str:
    """The first line of the board's log that has the text."""
    async with asyncio.timeout(timeout_s):
        while True:
            for line in board.log.lines:
                if text in line:
                    return line
            await asyncio.sleep(0.02)


async def test_outputs_take_their_boot_state_without_any_broker(tmp_path: Path) -> None:
    async with VirtualBoard(tmp_path / "m1", node(free_port())) as board:
        lamp = await board.wait_for("pin", LAMP, 0)

    assert lamp.at_ns > 0


async def test_stop_leaves_no_process(tmp_path: Path) -> None:
    board = VirtualBoard(tmp_path / "m1", node(free_port()))
    await board.start()
    pid = board.pid
    assert pid is not None
    await board.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert board.pid is None


async def test_killed_board_comes_back_with_its_flash_and_its_inputs(tmp_path: Path) -> None:
    async with VirtualBoard(tmp_path / "m1", node(free_port())) as board:
        board.set_pin(DOOR, 1)
        await logged(board, "boot 1 of")
        board.kill()
        await logged(board, "boot 2 of")

        assert board.starts == 2
    assert "process ended with status -9" in "\n".join(board.log.lines)


async def test_board_ends_when_the_simulator_is_gone(tmp_path: Path) -> None:
    board = VirtualBoard(tmp_path / "m1", node(free_port()))
    await board.start()
    await logged(board, "boot 1 of")
    assert board._process is not None
    assert board._process._writer is not None
    board._process._writer.close()
    await logged(board, "process ended with status 0")
    await board.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scope_level": "planet"}, "node.json: scope_level: must be one of device, room"),
        ({"sensors": [{"id": "x", "driver": "digital"}]}, "node.json: sensors[0].pin: is missing"),
        ({"keepalive": 3}, "node.json: keepalive: is not known here; known: "),
        (
            {"actuators": [{"id": "a", "driver": "digital", "pin": DOOR, "boot": 0}]},
            "node.json: actuators[0].pin: pin 4 is taken by sensors[0].pin",
        ),
        (
            {"actuators": [{"id": "a", "driver": "pwm", "pin": 9, "boot": 0, "max": 2}]},
            "node.json: actuators[0]: min and max must be",
        ),
        (
            {"actuators": [{"id": "a", "driver": "pwm", "pin": 9, "boot": 1, "max": 0.5}]},
            "node.json: actuators[0]: a: 1 not in 0",
        ),
        ({"encoding": "xml"}, "node.json: encoding: must be one of json, cbor"),
        (
            {"sensors": [{"id": "x", "driver": "analog", "pin": 26, "deadband": -1}]},
            "node.json: sensors[0]: deadband",
        ),
        (
            {"sensors": [{"id": "x", "driver": "digital", "pin": 77}]},
            "node.json: sensors[0]: this board cannot have it on pin 77: invalid pin",
        ),
        (
            {"actuators": [{"id": "a", "driver": "pwm", "pin": 78, "boot": 0}]},
            "node.json: actuators[0]: this board cannot have it on pin 78: invalid pin",
        ),
    ],
)
async def test_wrong_node_file_is_told_by_file_field_and_rule(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    async with VirtualBoard(tmp_path / "m1", node(free_port(), **change)) as board:
        await logged(board, words)
        # Not a restart, again and again: each one would wear the flash, and nobody could get in.
        await logged(board, "at the prompt")
        assert board.starts == 1


@pytest.mark.parametrize(
    "record", ["boot", "clock", "crash", "ledger", "rule-00", "slots", "suspended"]
)
async def test_record_of_which_nothing_is_left_does_not_stop_the_board(
    tmp_path: Path, record: str
) -> None:
    flash = tmp_path / "m1"
    flash.mkdir()
    for copy in ("a", "b"):
        (flash / f"{record}.{copy}").write_bytes(b"NV1\n" + b"\0" * 30)
    async with VirtualBoard(flash, node(free_port())) as board:
        await logged(board, "boot 1 of")
        if record == "rule-00":
            await logged(board, "a reflex is not restored: ")
        assert board.starts == 1


@pytest.mark.parametrize("missing", ["micropython", "umqtt"])
def test_missing_tool_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    found = Toolchain.locate()
    tools = tmp_path / ".tools"
    (tools / "micropython").mkdir(parents=True)
    if missing != "micropython":
        (tools / "micropython" / "micropython").write_text("")
    if missing != "umqtt":
        shutil.copytree(found.umqtt, tools / "umqtt")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("nervus.resources.find", lambda _: tmp_path / "firmware")

    with pytest.raises(ToolchainError, match="run: tools/setup"):
        Toolchain.locate()
