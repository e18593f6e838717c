"""Firmware updates as a person does them: `nervus update`, `nervus up`, boards on MicroPython."""

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from firmware.hub_stand import node
from firmware.rigs import CHECKOUT
from nervus.runtime.files import write_private
from nervus.simulator import Identity, Toolchain, VirtualBoard
from nervus.updates import read_record
from support import DIES_WITH_US, House, eventually, prepared_house
from system.command_clients import until

pytestmark = pytest.mark.usefixtures("unmeasured")

NERVUS = (sys.executable, "-m", "nervus")
SHORTER = {
    # How long a boot must last to be good, and how long a board waits for a chunk it asked for …
    "lib/spinal/upkeep.py": ("_GOOD_AFTER_MS = 30000", "_GOOD_AFTER_MS = 2000"),
    "lib/spinal/update.py": ("_ANSWER_MS = 10000", "_ANSWER_MS = 2000"),
    # … and until it starts anew when it cannot go on. Nothing else of the firmware is changed.
    "main.py": ("RESTART_AFTER_S = 2", "RESTART_AFTER_S = 0"),
}
"""The firmware's times, and those that leave a test less to wait for."""
SLOWLY = "\n[updates]\nchunks_per_s = 10\n"
"""Settings with which a firmware takes ten seconds to fetch, not one."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


class Home:
    """A house with a system that runs, and the commands that people type."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.folder = folder
        self.firmware = firmware(folder / "firmware")

    async def nervus(self, *words: str, within_s: float = 40) -> Said:
        process = await self.begin(*words)
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    async def begin(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *DIES_WITH_US,
            *NERVUS,
            *words,
            *("--state", str(self.house.state.path)),
            cwd=self.folder,
            env=os.environ | {"COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def key(self, *words: str) -> str:
        """The public key as it is printed for node.toml."""
        said = await self.nervus("update", "key", *words)
        assert said.code == 0, said.err
        (line,) = re.findall(r'^update_keys = \["([0-9a-f]{64})"\]$', said.out, re.MULTILINE)
        return str(line)

    async def pack(self, version: str, firmware: Path, *words: str) -> Path:
        arguments = ("--version", version, "--firmware", str(firmware), *words)
        said = await self.nervus("update", "pack", *arguments)
        assert said.code == 0, said.err
        return self.folder / f"nervus-{version}.pack"

    def board(self, name: str, key: str) -> VirtualBoard:
        listener = self.house.settings.brokers.spinal
        files = self.house.authority.get(name).folder
        broker = {"host": "127.0.0.1", "port": listener.port, "server_name": "localhost"}
        described = node(listener.port, device_id=name, broker=broker, update_keys=[key])
        identity = Identity(files / "cert.der", files / "key.der", files / "ca.der")
        toolchain = replace(Toolchain.locate(), firmware=self.firmware)
        return VirtualBoard(self.folder / name, described, identity, toolchain)

    def at_full_speed(self) -> None:
        """From their next start on the services answer boards as fast as they do by default."""
        file = self.house.state.settings_file
        write_private(file, file.read_text().removesuffix(SLOWLY))

    def services(self) -> int | None:
        """The process id of the services while they serve."""
        try:
            status = json.loads((self.house.state.run / "status.json").read_text())
        except FileNotFoundError:
            return None
        (child,) = (child for child in status["children"] if child["name"] == "services")
        return child["pid"] if child["state"] == "ready" else None

    def runs(self, name: str) -> str | None:
        """The version that the hub knows a board to run."""
        found = {seen.device_id: seen.firmware for seen in read_record(self.house.state.data).seen}
        return found.get(name)

    def states(self) -> dict[str, str]:
        """How far each board is in the newest roll-out."""
        stored = read_record(self.house.state.data)
        newest = stored.rollouts[-1].update_id
        return {each.device_id: each.state for each in stored.boards if each.update_id == newest}

    def fetched(self, name: str) -> int:
        """Bytes that a board has fetched in the newest roll-out."""
        stored = read_record(self.house.state.data)
        newest = stored.rollouts[-1].update_id if stored.rollouts else ""
        found = {each.device_id: each.done for each in stored.boards if each.update_id == newest}
        return found.get(name, 0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One system for all tests; each has boards of its own."""
    house = prepared_house(tmp_path_factory.mktemp("home") / "state")
    for name in ("b1", "b2", "b3"):
        house.authority.issue(name, "board", "room/kitchen")
    file = house.state.settings_file
    write_private(file, file.read_text() + SLOWLY)
    here = Home(house, tmp_path_factory.mktemp("here"))
    with house.state.path.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [*DIES_WITH_US, *NERVUS, "up", "--state", str(house.state.path)], stderr=log
        )
    try:
        eventually(lambda: here.services() is not None, 40)
        yield here
    finally:
        process.terminate()
        code = process.wait(timeout=25)
    assert code == 0


def firmware(folder: Path) -> Path:
    """The firmware tree with shorter times."""
    shutil.copytree(CHECKOUT / "firmware", folder)
    for name, (time, shorter) in SHORTER.items():
        text = (folder / name).read_text()
        assert time in text
        (folder / name).write_text(text.replace(time, shorter))
    return folder


def small(folder: Path) -> Path:
    """A firmware tree that is quickly packed and fetched, and runs nowhere."""
    (folder / "lib" / "spinal").mkdir(parents=True)
    (folder / "lib" / "spinal" / "node.py").write_text("raise RuntimeError('a bad idea')\n")
    return folder


@pytest.mark.timeout(150)  # a firmware fetched whole, services started anew, a trial
async def test_a_board_gets_a_version_although_the_hub_dies_meanwhile_and_no_older_one_after_it(
    home: Home,
) -> None:
    key = await home.key()
    file = home.house.state.path / "update-key.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    pack = await home.pack("0.2.0", home.firmware)
    async with home.board("b1", key) as board:
        await until(lambda: home.runs("b1") == "0.1.0", 30)
        sending = await home.begin("update", "send", "b1", str(pack))
        await until(lambda: home.fetched("b1") > 4_000, 40)
        home.at_full_speed()
        services = home.services()
        assert services is not None
        os.kill(services, signal.SIGKILL)
        assert home.states() == {"b1": "pulling"}
        async with asyncio.timeout(100):
            out, err = await sending.communicate()
        assert sending.returncode == 0, (out, err, list(board.log.lines))
        assert re.search(r"b1 +confirmed +100 %", out.decode())
        await until(lambda: home.runs("b1") == "0.2.0", 15)
        assert board.starts == 2
        older = await home.pack("0.1.9", small(home.folder / "small"))
        refused = await home.nervus("update", "send", "b1", str(older))
    assert home.services() != services
    assert refused.code == 2
    assert "b1 runs 0.2.0, and 0.1.9 is not newer" in refused.err
    assert "--version" in refused.err
    status = await home.nervus("update", "status")
    assert re.search(r"b1 +0\.2\.0 ", status.out)


@pytest.mark.timeout(120)  # three bad boots, two seconds apart at least
async def test_what_a_board_does_not_trust_or_cannot_run_is_shown_with_what_to_do(
    home: Home,
) -> None:
    key, other = await home.key(), home.folder / "other.pem"
    foreign = await home.key("--key", str(other))
    assert foreign != key
    tree = small(home.folder / "broken")
    async with home.board("b2", key), home.board("b3", key) as second:
        await until(lambda: home.runs("b2") == home.runs("b3") == "0.1.0", 30)
        pack = await home.pack("0.3.0", tree, "--key", str(other))
        said = await home.nervus("update", "send", "b2", str(pack), within_s=80)
        assert said.code == 1
        assert re.search(r"b2 +refused .*none of this board's update_keys signed it", said.out)
        assert "nervus update key" in said.out
        pack = await home.pack("0.4.0", tree)
        said = await home.nervus("update", "send", "b2", "b3", str(pack), within_s=80)
        assert said.code == 1
        assert re.search(r"b2 \(canary\) +rolled back .*did not get through its trial", said.out)
        assert re.search(r"b3 +held +0 %", said.out)
        assert "Stopped: b2: 0.4.0 did not get through its trial" in said.out
        await until(lambda: home.runs("b2") == "0.1.0", 15)
    assert second.starts == 1
    told = json.loads((await home.nervus("update", "status", "--json")).out)
    assert [row["version"] for row in told["rollouts"]][-2:] == ["0.3.0", "0.4.0"]
    assert {row["device_id"]: row["state"] for row in told["rollouts"][-1]["boards"]} == {
        "b2": "rolled_back",
        "b3": "held",
    }
