"""The suite's second look at what failed: a test that fails beside others runs once more, alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).resolve().parents[2] / "tools" / "checks"
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
SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "-p xdist"
[tool.coverage.run]
parallel = true
"""
BROKEN = "\ndef test_never():\n    assert False\n"


@pytest.mark.parametrize(
    ("tests", "status", "told", "counted"),
    [
        (UNSTEADY.format(count=2), 0, 2, "2 failed, 1 passed"),
        (UNSTEADY.format(count=3), 1, 0, "3 failed, 1 passed"),
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
        timeout=19,
        check=False,
    )

    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout.count("UNSTEADY: tests/test_some.py::test_second_time_lucky") == told
    assert counted in done.stdout.splitlines()[-1]
