import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Interpreters to start, some of which start pytest, on a busy machine.
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("unmeasured")]
PATIENCE_S = 40

CHECKS = Path(__file__).resolve().parents[2] / "tools" / "checks"
# Ignores an interrupt, and starts something in a session of its own that outlives it.
STUBBORN = "trap '' INT; setsid sleep 86421 & echo started; sleep 86420"
RUN = (
    "import suite, sys; "
    "suite.STAGES = tuple(stage for stage in suite.STAGES if stage.name == 'tests'); "
    "sys.exit(suite.main([]))"
)
UNSTEADY = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_second_time_lucky(number):
    mark = Path(__file__).with_suffix(f".{{number}}")
    seen = mark.exists()
    mark.touch()
    assert seen

def test_steady():
    pass
"""
UNTIDY = """
from pathlib import Path
import pytest

@pytest.fixture
def mark():
    mark = Path(__file__).with_suffix(".seen")
    seen = mark.exists()
    yield mark
    assert seen

def test_second_time_lucky(mark):
    seen = mark.exists()
    mark.touch()
    assert seen

def test_steady():
    pass
"""
SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "-p xdist"
[tool.coverage.run]
parallel = true
"""
BROKEN = "\ndef test_never():\n    assert False\n"


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(code: str, *arguments: str) -> tuple[str, str]:
    """What it printed, and its errors."""
    with python(code, *arguments) as process:
        try:
            return process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()


def running(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command.startswith("sleep ") and marker in command:
            found.append(command)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_leaves_no_process(number: signal.Signals) -> None:
    marker = f"8{number:02}{os.getpid()}"
    command = STUBBORN.replace("86421", marker + "1").replace("86420", marker + "0")
    code = (
        "import sys, processes, suite; processes._GRACE_S = processes._SETTLE_S = 0.5;"
        "suite.STAGES = (suite.Stage('x', (('bash', '-c', sys.argv[1]),)),);"
        "sys.exit(suite.main([]))"
    )
    process = python(code, command)
    assert process.stdout is not None
    while "started" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    assert "everything that was started is ended" in errors
    assert running(marker) == []


def test_process_left_behind_fails_the_check_and_is_ended() -> None:
    marker = f"9{os.getpid()}"
    code = (
        "import sys, processes, suite; processes._SETTLE_S = 0.3; processes.adopt_orphans();"
        "r = suite.run_stage(suite.Stage('x', (('sh', '-c', sys.argv[1]),))); print(r.passed)"
    )
    output, errors = ran(code, f"setsid sleep {marker} & exit 0")
    assert output.splitlines()[-1] == "False"
    assert f"left running by x, and ended: sleep {marker}" in errors
    assert running(marker) == []


def test_check_that_does_not_end_fails_and_is_ended() -> None:
    marker = f"7{os.getpid()}"
    code = (
        "import sys, processes, suite; processes._LIMIT_S = 0.5; processes.adopt_orphans();"
        "processes._GRACE_S = processes._SETTLE_S = 0.3;"
        "r = suite.run_stage(suite.Stage('x', (('sh', '-c', sys.argv[1]),))); print(r.passed)"
    )
    output, errors = ran(code, f"trap '' INT; sleep {marker}")
    assert output.splitlines()[-1] == "False"
    assert "status 124, it took too long: sh -c" in errors
    assert running(marker) == []


def test_child_that_is_just_ending_is_not_left_behind() -> None:
    code = (
        # It is waited for, and not for so long, when it has ended.
        "import processes, suite; processes._SETTLE_S = 600; processes.adopt_orphans();"
        "r = suite.run_stage(suite.Stage('x', (('sh', '-c', 'setsid sleep 0.3 &'),)));"
        "print(r.passed)"
    )
    output, errors = ran(code)
    assert output.splitlines()[-1] == "True", errors


def test_failing_command_stops_its_check_but_not_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, suite; suite._COUNTS = pathlib.Path(sys.argv[1]); suite.STAGES = ("
        "suite.Stage('first', (('false',), ('echo', 'never'))),"
        "suite.Stage('second', (('echo', 'reached'),)));"
        "sys.exit(suite.main([]))"
    )
    process = python(code, str(tmp_path / "counts.xml"))
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "never" not in output
    assert "reached" in output
    assert "status 1: false" in errors
    assert output.splitlines()[-3] == "failed: first"
    assert output.splitlines()[-1].startswith("no tests ran, 2 checks in ")


def test_last_line_counts_tests_as_pytest_does(tmp_path: Path) -> None:
    (tmp_path / "test_three.py").write_text(
        "import pytest\n\ndef test_a():\n    pass\n\ndef test_b():\n    assert 0\n\n"
        "def test_c():\n    pytest.skip()\n"
    )
    counts = tmp_path / "counts.xml"
    code = (
        "import sys, pathlib, suite; suite._COUNTS = pathlib.Path(sys.argv[2]);"
        "command = (sys.executable, '-m', 'pytest', '--rootdir', sys.argv[1], '-c', '/dev/null',"
        "           f'--junitxml={sys.argv[2]}', sys.argv[1]);"
        "suite.STAGES = (suite.Stage('tests', (command,)),); sys.exit(suite.main([]))"
    )
    process = python(code, str(tmp_path), str(counts))
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, errors
    assert output.splitlines()[-1].startswith("1 failed, 1 passed, 1 skipped, 1 checks in ")


def limited(folder: Path, *module: str) -> subprocess.CompletedProcess[str]:
    """Run a module where pytest finds the plugin for limits."""
    return subprocess.run(
        [sys.executable, "-m", *module],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKS.parents[1] / "tests")},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def test_a_test_over_its_limit_fails_while_coverage_measures_it_and_the_next_one_runs(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_endless.py").write_text(
        "import pytest\n\n"
        "def step(number):\n    return number + 1\n\n"
        "@pytest.mark.timeout(0.1)\n@pytest.mark.parametrize('_', range(8))\n"
        "def test_endless(_):\n    number = 0\n    while True:\n        number = step(number)\n\n"
        "def test_next():\n    assert step(1) == 2\n"
    )
    measured = ("coverage", "run", "--branch", "--source=.", "--data-file=data")
    tests = ("pytest", "-c", "/dev/null", "-p", "plugins.limit_plugin", "--tb=line", ".")
    result = limited(tmp_path, *measured, "-m", *tests)
    assert "8 failed, 1 passed" in result.stdout, result.stdout + result.stderr
    assert result.stdout.count("Timeout (>0.1s)") >= 8


def test_a_limit_that_ends_while_a_report_is_made_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import pytest, time\n\n@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_makereport(call):\n    time.sleep(call.when == 'call')\n"
    )
    (tmp_path / "test_late.py").write_text(
        "import pytest, time\n\n@pytest.fixture\ndef endless():\n    yield\n    time.sleep(60)\n\n"
        "def test_refused():\n    assert 0\n\ndef test_torn_down(endless):\n    pass\n"
    )
    tests = ("pytest", "-c", "/dev/null", "-p", "plugins.limit_plugin", "--timeout=0.5", ".")
    result = limited(tmp_path, *tests)
    assert "1 failed, 1 passed, 1 error" in result.stdout, result.stdout + result.stderr


ENDLESS = """
import asyncio, pytest

async def inner(never):
    await never.wait()

async def outer():
    never = asyncio.Event()
    beside = asyncio.create_task(inner(never), name="beside")
    await inner(never)

@pytest.mark.timeout(0.5)
def test_endless():
    asyncio.run(outer())
"""


def test_a_coroutine_over_its_limit_says_where_each_task_waits(tmp_path: Path) -> None:
    (tmp_path / "test_endless.py").write_text(ENDLESS)
    tests = ("pytest", "-c", "/dev/null", "-p", "plugins.limit_plugin", "--tb=line", ".")
    told = limited(tmp_path, *tests, "-rA").stdout
    assert "1 failed" in told
    _, _, captured = told.partition("Captured stderr call")
    for task, lines in (
        ("name='Task-1'", ["await inner(never)", "await never.wait()"]),
        ("name='beside'", ["await never.wait()"]),
    ):
        _, _, stack = captured.partition(task)
        stack, _, _ = stack.partition("<Task")
        for line in lines:
            assert line in stack, told


@pytest.mark.timeout(120)  # each starts pytest with its workers, twice
@pytest.mark.parametrize(
    ("tests", "status", "told", "counted"),
    [
        (UNSTEADY.format(count=2), 0, 2, "2 failed, 1 passed"),
        (UNSTEADY.format(count=3), 1, 0, "3 failed, 1 passed"),
        (UNTIDY, 0, 1, "1 failed, 1 passed, 1 errors"),
        (UNSTEADY.format(count=1) + BROKEN, 1, 0, "2 failed, 1 passed"),
    ],
)
def test_what_failed_beside_others_and_passes_alone_is_named(
    tests: str, status: int, told: int, counted: str, tmp_path: Path
) -> None:
    checks = tmp_path / "tools" / "checks"
    checks.mkdir(parents=True)
    for name in ("suite.py", "processes.py"):
        shutil.copy(CHECKS / name, checks)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(tests)
    (tmp_path / "pyproject.toml").write_text(SETTINGS)

    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=checks,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # there are many, and each takes its time
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.count("UNSTEADY: tests/test_some.py::test_second_time_lucky") == told
    assert counted in done.stdout.splitlines()[-1]


def coverage(tmp_path: Path, total: float, **files: float) -> subprocess.CompletedProcess[str]:
    report: dict[str, Any] = {"totals": {"percent_covered": total}, "files": {}}
    for name, percent in files.items():
        report["files"][f"hub/nervus/{name.replace('__', '/')}.py"] = {
            "summary": {"percent_covered": percent},
            "missing_lines": [],
            "missing_branches": [] if percent == 100 else [[7, 9]],
        }
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    return subprocess.run(
        [sys.executable, CHECKS / "coverage_floors.py", path],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.req("S4-86")
def test_hub_covered_to_less_than_80_percent_fails(tmp_path: Path) -> None:
    result = coverage(tmp_path, 79.9, cli__view=10)
    assert result.returncode == 1
    assert "total: 79.9 % covered, floor 80 %" in result.stderr
    assert coverage(tmp_path, 80, cli__view=10).returncode == 0


@pytest.mark.parametrize("name", ["reliable__core", "wire__guard"])
def test_branch_of_a_core_or_the_guard_without_a_test_fails(tmp_path: Path, name: str) -> None:
    result = coverage(tmp_path, 99, **{name: 99.5})
    assert result.returncode == 1
    assert "no test reaches branch 7 → 9" in result.stderr
    assert coverage(tmp_path, 99, **{name: 100}).returncode == 0
