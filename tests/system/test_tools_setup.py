import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def setup(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "tools" / "setup", *arguments],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout in which nothing is installed, in a folder with a blank in its name."""
    root = tmp_path / "my clone"
    root.mkdir()
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_second_run_installs_nothing_within_a_second_of_the_processor() -> None:
    took = []
    for _ in range(3):
        before = os.times()
        result = setup(ROOT, "--test")
        after = os.times()
        took.append(after[2] + after[3] - before[2] - before[3])  # of children: user and system
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert min(took) < 1


def test_plan_names_all_that_is_missing_and_changes_nothing(copy: Path) -> None:
    before = sorted(copy.rglob("*"))
    result = setup(copy, "--plan")
    assert result.returncode == 1
    for wanted in (".venv: every package of tools/locks/run.lock", "MicroPython", "umqtt.simple"):
        assert wanted in result.stdout
    assert sorted(copy.rglob("*")) == before


def test_changed_lock_is_noticed(copy: Path) -> None:
    shutil.copytree(ROOT / ".tools" / "stamps", copy / ".tools" / "stamps")
    nervus = copy / ".venv" / "bin" / "nervus"
    nervus.parent.mkdir(parents=True)
    nervus.touch(mode=0o755)
    lock = copy / "tools" / "locks" / "test.lock"
    key = '. tools/install/python.sh; root=$1; python_key "$2" >.tools/stamps/python'
    subprocess.run(["bash", "-c", key, "key", copy, lock], cwd=copy, check=True)
    assert "Python environment" not in setup(copy, "--test", "--plan").stdout

    lock.write_text(lock.read_text() + "\n")
    assert "Python environment" in setup(copy, "--test", "--plan").stdout


def test_moved_checkout_is_noticed(copy: Path) -> None:
    shutil.copytree(ROOT / ".tools" / "stamps", copy / ".tools" / "stamps")
    nervus = copy / ".venv" / "bin" / "nervus"
    nervus.parent.mkdir(parents=True)
    nervus.touch(mode=0o755)
    assert "Python environment" in setup(copy, "--test", "--plan").stdout


def test_damaged_board_client_is_noticed(copy: Path) -> None:
    client = copy / ".tools" / "umqtt" / "umqtt" / "simple.py"
    shutil.copytree(ROOT / ".tools" / "umqtt", copy / ".tools" / "umqtt")
    assert "umqtt.simple" not in setup(copy, "--plan").stdout
    client.write_text(client.read_text() + "#")
    assert "umqtt.simple" in setup(copy, "--plan").stdout


def test_micropython_that_does_not_run_is_noticed(copy: Path) -> None:
    wrapper = copy / ".tools" / "micropython" / "micropython"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text("#!/bin/sh\nexit 127\n")
    wrapper.chmod(0o755)
    assert "MicroPython" in setup(copy, "--plan").stdout


def test_unknown_argument_is_refused(copy: Path) -> None:
    result = setup(copy, "--tset")
    assert result.returncode == 2
    assert "unknown argument --tset; known are --test, --plan and --help" in result.stderr


def test_ordinary_user_without_a_broker_is_told_the_command(copy: Path) -> None:
    command = (
        ". tools/install/common.sh; is_root() { return 1; }; . tools/install/brokers.sh; "
        "apt_install mosquitto mosquitto-clients"
    )
    result = subprocess.run(
        ["bash", "-ec", command],
        cwd=copy,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert result.returncode == 1
    assert (
        "sudo apt-get update && "
        "sudo apt-get install --no-install-recommends mosquitto mosquitto-clients"
    ) in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_interrupted_installation_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    # What is installed is a shell that starts another process, as pip and apt-get do.
    slow = "sleep 86399 & echo $! >child; wait"
    process = subprocess.Popen(
        ["bash", "-ec", f". {ROOT}/tools/install/common.sh; within 60 slow bash -c '{slow}'"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    child = tmp_path / "child"
    while not (child.exists() and child.read_text().strip()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=10) in {130, 143}
    command = Path("/proc") / child.read_text().strip() / "cmdline"
    assert not command.exists() or b"86399" not in command.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["child"]


def test_command_past_its_deadline_is_ended_and_named(tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", "-ec", f". {ROOT}/tools/install/common.sh; within 1 'slow download' sleep 86398"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert result.returncode == 124
    assert "slow download did not end within 1 s" in result.stderr
