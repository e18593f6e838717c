import os
import signal
import subprocess
from pathlib import Path

import pytest

from nervus.errors import NervusError
from nervus.runtime import brokers as brokers_module
from nervus.runtime.brokers import Broker, BrokerError, brokers, find_mosquitto, require_mosquitto
from nervus.runtime.settings import free_port
from support import DEADLINE_S, House, eventually


def spinal(house: House) -> Broker:
    return brokers(house.state, house.settings)[0]


def settings_of(broker: Broker) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in broker.configuration_file.read_text().splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition(" ")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.req("S4-24")
def test_every_queue_of_the_brokers_has_a_limit(house: House) -> None:
    for broker in brokers(house.state, house.settings):
        settings = settings_of(broker)
        for key in (
            "max_packet_size",
            "max_inflight_messages",
            "max_queued_messages",
            "max_queued_bytes",
            "max_connections",
        ):
            assert int(settings[key][0]) > 0


@pytest.mark.req("S4-60")
def test_the_core_broker_asks_for_tls_1_3_and_boards_may_use_1_2(house: House) -> None:
    spinal_broker, core = brokers(house.state, house.settings)
    assert settings_of(spinal_broker)["tls_version"] == ["tlsv1.2"]
    assert settings_of(core)["tls_version"] == ["tlsv1.3"]


def test_mosquitto_is_found_outside_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_mosquitto().name == "mosquitto"


def test_a_missing_mosquitto_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(brokers_module, "_SYSTEM_FOLDERS", ())
    with pytest.raises(BrokerError, match="sudo apt install mosquitto"):
        find_mosquitto()


def test_a_mosquitto_that_is_too_old_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho mosquitto version 1.6.12\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NervusError, match=r"1\.6\.12 is too old.*2\.0\.11"):
        require_mosquitto()


@pytest.mark.parametrize("program", ["#!/bin/sh\nexec sleep 60\n", "#!/nowhere\n", "#!/bin/sh\n"])
def test_a_mosquitto_that_does_not_answer_is_told_with_how_to_try_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    path = tmp_path / "mosquitto"
    path.write_text(program)
    path.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(brokers_module, "_ANSWER_S", 0.1)
    with pytest.raises(BrokerError, match=f"does not tell its version; try it: {path} -h"):
        require_mosquitto()


def test_a_retained_state_survives_a_restart_of_the_broker(running_house: House) -> None:
    house = running_house
    board = house.join("porch", "board", "room/porch")
    observer = house.join("watcher", "observer")
    topic = "/sc/dev/state/device/porch/status"
    house.publish(board, "spinal", topic, "kept", "-r")
    assert house.listen(observer, "spinal", [topic], 1).messages() == [f"{topic} kept"]
    broker = spinal(house)
    pid = broker.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    eventually(broker.database.exists)
    eventually(lambda: broker.running_pid() is None)
    again = subprocess.Popen(broker.command(), stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: broker.running_pid() == again.pid)
        listener = house.listen(observer, "spinal", [topic], 1)
        assert listener.messages() == [f"{topic} kept"]
    finally:
        again.terminate()
        again.wait(timeout=DEADLINE_S)


def test_reload_tells_when_no_broker_runs(house: House) -> None:
    assert spinal(house).reload() is False
    assert house.refresh() == []


def test_a_stale_process_id_of_another_program_is_never_signalled(house: House) -> None:
    broker = spinal(house)
    broker.pid_file.write_text(str(os.getpid()))
    assert broker.running_pid() is None
    assert broker.reload() is False


@pytest.mark.parametrize(
    ("exit_code", "output", "aside"),
    [
        (1, "Error: Couldn't open database.", True),
        (1, "Error: Unable to restore persistent database. Unrecognised file format.", True),
        (-signal.SIGSEGV, "", True),
        (1, "Error: Address already in use", False),
        (3, "Error: Unknown configuration variable", False),
        (-signal.SIGKILL, "", False),
    ],
)
def test_the_database_is_moved_aside_only_when_it_is_the_cause(
    house: House, exit_code: int, output: str, *, aside: bool
) -> None:
    broker = spinal(house)
    broker.database.write_bytes(b"x")
    done = broker.recover(exit_code, [output])
    assert (done is not None) is aside
    assert broker.database.exists() is not aside


def test_each_corrupt_database_is_kept_under_its_own_number(house: House) -> None:
    broker = spinal(house)
    for content in (b"one", b"two"):
        broker.database.write_bytes(content)
        broker.recover(1, ["Error: Couldn't open database."])
    folder = broker.database.parent
    assert (folder / "mosquitto.db.corrupt-1").read_bytes() == b"one"
    assert (folder / "mosquitto.db.corrupt-2").read_bytes() == b"two"


def test_a_missing_database_is_not_recovered(house: House) -> None:
    assert spinal(house).recover(1, ["Error: Couldn't open database."]) is None


def test_two_free_ports_differ() -> None:
    first = free_port()
    assert free_port(besides=first) != first
