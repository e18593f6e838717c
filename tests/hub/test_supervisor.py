"""The supervisor's shell with real processes."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nervus.runtime.brokers import brokers
from nervus.runtime.child import Child
from nervus.runtime.services import SERVICES
from nervus.runtime.settings import PortError, Settings, free_port
from nervus.runtime.state import StateFolder
from nervus.runtime.status import read_status
from nervus.runtime.supervision import Timing
from nervus.runtime.supervisor import Supervisor
from nervus.runtime.system import (
    AlreadyRunningError,
    NotReadyError,
    broker_child,
    prepare,
    run_system,
    running_system,
    service_children,
)
from support import DEADLINE_S, DIES_WITH_US, House, process_lives

READY = "import os; os.write(int(os.environ['NERVUS_READY_FD']), b'READY=1\\n');"
SERVE = READY + "import time; time.sleep(60)"
QUICK = Timing(first_pause_ms=50, stop_ms=500)


def python(name: str, code: str, **options: object) -> Child:
    return Child(name, (sys.executable, "-c", code), **options)  # type: ignore[arg-type]


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        assert await task == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  other processes set no event
            await asyncio.sleep(0.01)


def all_ready(supervisor: Supervisor) -> bool:
    return all(child.state == "ready" for child in supervisor.status())


async def test_a_killed_child_is_back(tmp_path: Path) -> None:
    supervisor = Supervisor([python("a", SERVE)], tmp_path / "status.json")
    async with running(supervisor):
        await until(lambda: all_ready(supervisor))
        first = supervisor.status()[0].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.status()[0].pid not in {None, first})
        await until(lambda: all_ready(supervisor))
        assert supervisor.status()[0].restarts == 1
        assert supervisor.status()[0].last_exit == -signal.SIGKILL


async def test_the_status_file_tells_every_state(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    children = [python("a", SERVE, stage=0), python("b", SERVE)]
    supervisor = Supervisor(children, path)
    async with running(supervisor):
        await until(lambda: all_ready(supervisor))
        told = json.loads(path.read_text())
        assert told["pid"] == os.getpid()
        assert [child["name"] for child in told["children"]] == ["a", "b"]
        assert all(process_lives(child["pid"]) for child in told["children"])
    assert not path.exists()


async def test_output_reaches_the_log_line_by_line_under_the_childs_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = READY + textwrap.dedent("""
        import sys, time
        sys.stdout.write("one\\ntwo"); sys.stdout.flush(); time.sleep(0.05)
        print(" and a half", flush=True)
        print("x" * 20000, flush=True)
        for _ in range(5000): print("again")
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\\xff no text\\n"); sys.stdout.flush()
        print("three", file=sys.stderr, flush=True)
        time.sleep(60)
    """)
    caplog.set_level(logging.INFO)
    supervisor = Supervisor([python("talker", code)], tmp_path / "status.json")
    async with running(supervisor):
        await until(lambda: "three" in caplog.messages)
    lines = [r.message for r in caplog.records if r.name == "nervus.child.talker"]
    assert lines[:2] == ["one", "two and a half"]
    assert lines[2].startswith("xxxx")
    assert max(map(len, lines)) <= 8_192
    after = [line for line in lines[2:] if not line.startswith("x")]
    assert after == ["again", "(its last line 4999 more times)", "\\xff no text", "three"]


async def test_last_words_without_a_newline_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    code = "import sys; sys.stdout.write('why it ended'); sys.exit(1)"
    supervisor = Supervisor([python("brief", code)], tmp_path / "status.json", QUICK)
    async with running(supervisor):
        await until(lambda: "why it ended" in caplog.messages)
        await until(lambda: any("exit code 1" in text for text in caplog.messages))


async def test_a_child_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVE
    supervisor = Supervisor([python("deaf", code)], tmp_path / "status.json", QUICK)
    async with running(supervisor):
        await until(lambda: all_ready(supervisor))
        pid = supervisor.status()[0].pid
    assert pid is not None
    assert not process_lives(pid)


async def test_a_child_that_is_not_ready_in_time_is_told_with_that_time(tmp_path: Path) -> None:
    code = "import time; print('I hang', flush=True); time.sleep(60)"
    timing = Timing(first_pause_ms=50, ready_ms=300, longest_ready_ms=60_000)
    supervisor = Supervisor([python("slow", code)], tmp_path / "status.json", timing)
    async with running(supervisor):
        # The first times it has not come to say so.
        await until(lambda: supervisor.status()[0].trouble.endswith("s): I hang"))
        told = supervisor.status()[0].trouble
    assert re.fullmatch(r"ended \(not ready after [0-9.]+ s\): I hang", told)


async def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    code = f"""
import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "60"])
pathlib.Path({str(note)!r}).write_text(str(child.pid))
{SERVE}"""
    supervisor = Supervisor([python("parent", code)], tmp_path / "status.json")
    async with running(supervisor):
        await until(lambda: all_ready(supervisor))
        grandchild = int(note.read_text())
        assert process_lives(grandchild)
    await until(lambda: not process_lives(grandchild))


async def test_a_program_that_does_not_exist_is_tried_again_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor([Child("x", ("/nonexistent",))], tmp_path / "status.json", QUICK)
    async with running(supervisor):
        await until(lambda: supervisor.status()[0].restarts >= 2)
        assert supervisor.status()[0].trouble == "cannot be started: No such file or directory"
    assert "x cannot be started" in caplog.text


async def test_a_child_that_refuses_its_settings_ends_the_run_with_2(tmp_path: Path) -> None:
    children = [python("a", SERVE, stage=0), python("b", "raise SystemExit(2)")]
    supervisor = Supervisor(children, tmp_path / "status.json", QUICK)
    async with asyncio.timeout(DEADLINE_S):
        assert await supervisor.run(asyncio.Event()) == 2


async def test_why_a_child_refuses_its_settings_is_told_once_more_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error = "error: history.keep_days: too few\nwhere: nervus.toml:9\nto do: correct it"
    refuses = f"print('starting', {error!r}, sep='\\n', flush=True); raise SystemExit(2)"
    children = [python("a", SERVE, stage=0), python("b", refuses)]
    async with asyncio.timeout(DEADLINE_S):
        assert await Supervisor(children, tmp_path / "status.json").run(asyncio.Event()) == 2
    assert caplog.messages[-1] == f"b refused its settings:\n{error}"


async def test_a_status_that_cannot_be_written_keeps_nobody_from_being_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "status.json"
    path.mkdir()
    supervisor = Supervisor([python("a", SERVE)], path)
    async with running(supervisor):
        await until(lambda: all_ready(supervisor))
        os.kill(supervisor.status()[0].pid or 0, signal.SIGKILL)
        await until(lambda: supervisor.status()[0].restarts == 1 and all_ready(supervisor))
        told = [line for line in caplog.messages if "cannot be told" in line]
        assert told == [f"{path}: what runs cannot be told: Is a directory"]
        path.rmdir()
        os.kill(supervisor.status()[0].pid or 0, signal.SIGKILL)
        await until(path.is_file)


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    supervisor = Supervisor([python("a", SERVE)], tmp_path / "status.json")
    task = asyncio.create_task(supervisor.run(asyncio.Event()))
    await until(lambda: all_ready(supervisor))
    pid = supervisor.status()[0].pid
    assert pid is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not process_lives(pid)


@pytest.mark.parametrize("orphan_signal", ["SIGKILL", "SIGTERM"])
async def test_a_killed_supervisor_leaves_no_child(tmp_path: Path, orphan_signal: str) -> None:
    code = f"""
import asyncio, pathlib, signal, sys
from nervus.runtime.child import Child
from nervus.runtime.supervisor import Supervisor
child = Child("a", (sys.executable, "-c", {SERVE!r}), orphan_signal=signal.{orphan_signal})
say_up = lambda: print("up", flush=True)
supervisor = Supervisor([child], pathlib.Path("status.json"), on_ready=say_up)
asyncio.run(supervisor.run(asyncio.Event()))
"""
    parent = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, sys.executable, "-c", code, cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        assert await parent.stdout.readline() == b"up\n"
    child = json.loads((tmp_path / "status.json").read_text())["children"][0]["pid"]
    assert process_lives(child)
    parent.kill()
    await parent.communicate()
    await until(lambda: not process_lives(child))


async def test_what_gives_way_does_so_with_all_its_threads_once_it_serves(tmp_path: Path) -> None:
    told = tmp_path / "told"
    thread = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start();"
    wait = f"import pathlib\nwhile not pathlib.Path({str(told)!r}).exists(): time.sleep(0.01)\n"
    children = [
        python("usual", SERVE),
        python("aside", f"{thread}\n{wait}{SERVE}", aside=True),
    ]
    supervisor = Supervisor(children, tmp_path / "status.json")
    ours = (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
    async with running(supervisor):
        await until(lambda: len(scheduled(supervisor, "aside")) == 2)
        assert scheduled(supervisor, "aside") == [ours, ours]
        told.touch()
        await until(lambda: all_ready(supervisor))
        assert scheduled(supervisor, "usual") == [ours]
        assert scheduled(supervisor, "aside") == [(os.SCHED_BATCH, min(19, ours[1] + 5))] * 2


def scheduled(supervisor: Supervisor, name: str) -> list[tuple[int, int]]:
    """Policy and niceness of each thread of a child."""
    pid = next(child.pid for child in supervisor.status() if child.name == name)
    tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()] if pid else []
    return [(os.sched_getscheduler(t), os.getpriority(os.PRIO_PROCESS, t)) for t in tasks]


def test_what_writes_down_or_answers_people_gives_way_and_delays_nobody(house: House) -> None:
    shared = service_children(house.state, house.settings)
    assert [(child.name, child.aside) for child in shared] == [
        ("services", False), ("history+api", True),
    ]  # fmt: skip
    separate = house.settings.model_copy(update={"processes": "separate"})
    children = service_children(house.state, separate)
    assert {child.name for child in children if child.aside} == {"history", "api"}
    run = [[word for word in child.command if word in SERVICES] for child in shared]
    assert run[1] == ["history", "api"]
    assert sorted(run[0] + run[1]) == sorted(SERVICES) == sorted(child.name for child in children)


@pytest.mark.parametrize("kept", [0, 200])
async def test_a_broker_with_a_corrupt_database_starts_empty_and_tells(
    house: House, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    spinal, _ = brokers(house.state, house.settings)
    garbage = b"\x00\xb5\x00mosquitto db"[:kept] + b"\x00" * 4096
    spinal.database.write_bytes(garbage)
    supervisor = Supervisor([broker_child(spinal)], house.state.status_file)
    async with running(supervisor):
        await until(lambda: all_ready(supervisor))
        status = supervisor.status()[0]
        assert (status.recoveries, status.restarts) == (1, 1)
    aside = spinal.database.with_name("mosquitto.db.corrupt-1")
    assert aside.read_bytes() == garbage
    told = [r.message for r in caplog.records if r.levelno == logging.CRITICAL]
    assert len(told) == 1
    assert str(aside) in told[0]


async def test_a_second_system_on_the_same_folder_is_refused(house: House) -> None:
    both = brokers(house.state, house.settings)
    async with running_system(house.state, house.settings, services=False):
        assert read_status(house.state) is not None
        with pytest.raises(AlreadyRunningError, match="nervus status"):
            await run_system(house.state, both, [], asyncio.Event())
    assert read_status(house.state) is None


async def test_what_runs_is_not_prepared_anew(house: House) -> None:
    async with running_system(house.state, house.settings, services=False):
        house.state.raw_file.write_text("[]")
        with pytest.raises(AlreadyRunningError, match="nervus status"):
            prepare(house.state.path)
    assert house.state.raw_file.exists()


async def test_a_system_that_is_not_ready_in_time_is_ended_and_told(house: House) -> None:
    _, core = brokers(house.state, house.settings)
    elsewhere = core.configuration_file.read_text().replace(
        f"listener {core.settings.port} ", f"listener {free_port()} "
    )
    core.configuration_file.write_text(elsewhere)
    with pytest.raises(NotReadyError, match=r"not ready within 0\.1 s"):
        async with running_system(house.state, house.settings, services=False, within_s=0.1):
            raise AssertionError("nobody listens on the port of the core broker")
    assert read_status(house.state) is None


async def test_a_system_whose_part_refuses_its_settings_never_begins(house: House) -> None:
    with house.state.settings_file.open("a") as file:
        file.write("[reflect]\nkept_rows = -1\n")
    with pytest.raises(NotReadyError, match="refused its settings"):
        async with running_system(house.state, Settings.load(house.state.settings_file)):
            raise AssertionError("it cannot be ready")


async def test_a_taken_port_is_named_with_its_setting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nervus.runtime.system._PORT_WAIT_S", 0.1)
    both = brokers(house.state, house.settings)
    taken = socket.create_server(("127.0.0.1", house.settings.brokers.core.port))
    with taken, pytest.raises(PortError, match=r"brokers\.core\.port"):
        await run_system(house.state, both, [], asyncio.Event())


def test_a_status_left_by_a_killed_supervisor_is_not_believed(tmp_path: Path) -> None:
    state = StateFolder.create(tmp_path / "state")
    state.status_file.write_text('{"pid": 1, "children": []}')
    assert read_status(state) is None
