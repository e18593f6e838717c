"""`nervus up` as a person runs it: started, broken, stopped; nothing stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nervus.api import ApiClient
from support import DEADLINE_S, DIES_WITH_US, eventually, process_lives, processes_naming

# Each starts a whole hub, on processors that other tests use too.
pytestmark = pytest.mark.timeout(120)

_ALARMING = re.compile("warning|error|critical|traceback|deadline|refused", re.IGNORECASE)
NERVUS = [sys.executable, "-m", "nervus"]


class Up:
    """A running `nervus up` and the state folder it runs on."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state = state
        self.log = state.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*DIES_WITH_US, *NERVUS, "up", "--state", str(state), *options],
                stderr=log, process_group=0,
            )  # fmt: skip

    def children(self) -> dict[str, dict[str, Any]]:
        try:
            status = json.loads((self.state / "run" / "status.json").read_text())
        except FileNotFoundError:
            return {}
        if status["pid"] != self.process.pid:
            return {}
        return {child["name"]: child for child in status["children"]}

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        children = self.children().values()
        return bool(children) and all(child["state"] == "ready" for child in children)

    def wait_ready(self, within_s: float = 45) -> dict[str, dict[str, Any]]:
        eventually(self.ready, within_s)
        return self.children()

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        # Each stage of children has 8 s to end before it is killed.
        return self.process.wait(timeout=25)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def begin(*options: str) -> Up:
        started.append(Up(tmp_path / "state", *options))
        return started[-1]

    yield begin
    for up in started:
        if up.process.poll() is None:
            up.stop(signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_and_leaves_no_process(
    start: Callable[..., Up], number: signal.Signals
) -> None:
    up = start()
    pids = [child["pid"] for child in up.wait_ready().values()]
    assert len(pids) == 4
    # Policy's opt-ins to raw measurements are put in force at every start.
    eventually(lambda: up.log.read_text().count("Client cleaner disconnected") >= 2)
    assert up.stop(number) == 0
    assert [pid for pid in pids if process_lives(pid)] == []
    assert processes_naming(up.state) == []
    log = up.log.read_text()
    assert "Nervus is up" in log
    assert [line for line in log.splitlines() if _alarms(line)] == []
    assert not (up.state / "run" / "status.json").exists()


def test_ctrl_c_in_a_terminal_reaches_the_supervisor_first(start: Callable[..., Up]) -> None:
    """The terminal signals the whole foreground group; children are outside of it."""
    up = start()
    up.wait_ready()
    os.killpg(up.process.pid, signal.SIGINT)
    assert up.process.wait(timeout=25) == 0
    assert " ended (" not in up.log.read_text()
    assert processes_naming(up.state) == []


def test_sighup_puts_rights_in_force_or_says_why_not(start: Callable[..., Up]) -> None:
    up = start()
    up.wait_ready()
    up.process.send_signal(signal.SIGHUP)
    eventually(lambda: "rights are in force on spinal and core" in up.log.read_text(), DEADLINE_S)
    (up.state / "identities.json").write_text("{")
    up.process.send_signal(signal.SIGHUP)
    eventually(lambda: "the list of identities is damaged" in up.log.read_text(), DEADLINE_S)
    assert up.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("name", ["broker-spinal", "broker-core", "services", "history+api"])
def test_a_killed_part_comes_back(start: Callable[..., Up], name: str) -> None:
    up = start()
    before = up.wait_ready()
    os.kill(before[name]["pid"], signal.SIGKILL)
    eventually(lambda: up.children()[name]["pid"] not in {None, before[name]["pid"]})
    after = up.wait_ready()
    assert after[name]["restarts"] == 1
    for other in set(before) - {name}:
        assert after[other]["pid"] == before[other]["pid"]


def test_a_killed_supervisor_leaves_nothing_and_starts_again_at_once(
    start: Callable[..., Up],
) -> None:
    first = start()
    pids = [child["pid"] for child in first.wait_ready().values()]
    first.stop(signal.SIGKILL)
    second = start()
    eventually(lambda: not any(process_lives(pid) for pid in pids))
    again = second.wait_ready()
    assert not {child["pid"] for child in again.values()} & set(pids)
    assert second.stop(signal.SIGINT) == 0
    assert processes_naming(second.state) == []


def test_a_second_start_on_the_same_folder_is_refused(start: Callable[..., Up]) -> None:
    up = start()
    up.wait_ready()
    second = subprocess.run(
        [*NERVUS, "up", "--state", str(up.state)],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )
    assert second.returncode == 2
    assert "already runs here" in second.stderr
    assert up.ready()


# Eleven processes at once, each a second of imports on an idle core.
def test_services_can_have_a_process_each(start: Callable[..., Up]) -> None:
    children = start("--separate").wait_ready(within_s=60)
    assert list(children)[2:] == [
        "brainstem",
        "thalamus",
        "gatekeeper",
        "raw",
        "command",
        "updates",
        "reflect",
        "history",
        "api",
    ]
    assert len({child["pid"] for child in children.values()}) == 11


def test_a_running_system_answers_status_doctor_and_new_identities(
    start: Callable[..., Up],
) -> None:
    up = start()
    up.wait_ready()
    for command, word in (
        (["status"], "broker-core"),
        (["doctor"], "is served"),
        (["identity", "issue", "me", "--role", "observer"], "in force on spinal and core"),
    ):
        result = subprocess.run(
            [*NERVUS, *command, "--state", str(up.state)],
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE_S,
            check=False,
            env=os.environ | {"COLUMNS": "200"},
        )
        assert result.returncode == 0, result.stderr
        assert word in result.stdout
    api = ApiClient(up.state / "run" / "api.sock")
    assert api.get("/v1/history", {})["meta"]["principal"] == "operator"
    # The gate before the whole house is said at once, and so recorded.
    eventually(lambda: bool(api.get("/v1/history", {"contract": "GateState"})["payload"]))
    log = subprocess.run(
        ["mosquitto_sub", *_client(up, "me"), "-t", "$SYS/broker/version", "-C", "1", "-W", "10"],
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=True,
    )
    assert "mosquitto" in log.stdout


def _alarms(line: str) -> bool:
    """Whether a line of the log tells of something that went wrong, ours or mosquitto's."""
    if os.getuid() == 0 and "should not be run as root" in line:
        return False
    return _ALARMING.search(line) is not None


def _client(up: Up, name: str) -> list[str]:
    conf = (up.state / "brokers" / "core" / "mosquitto.conf").read_text()
    port = next(line.split()[1] for line in conf.splitlines() if line.startswith("listener "))
    folder = up.state / "identities" / name
    files = {"cafile": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    options = [word for key, file in files.items() for word in (f"--{key}", str(folder / file))]
    return ["-h", "127.0.0.1", "-p", port, *options]
