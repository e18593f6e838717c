import platform
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).with_name("guard_target.py")
CHECKOUT = Path(__file__).parents[2]

# 65 µs an input on one core: a million would take more than a minute. `tools/soak fuzz` runs them.
RUNS = 40_000


@pytest.mark.req("S4-45")
@pytest.mark.timeout(60)  # four seconds of one core, of which others may take most
@pytest.mark.skipif(platform.machine() != "x86_64", reason="atheris has wheels for x86-64 alone")
def test_a_coverage_guided_fuzzer_finds_nothing_that_the_guard_must_not_do(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, TARGET, f"-runs={RUNS}", "-seed=1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT / "tests")},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"Done {RUNS} runs" in run.stderr, run.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="atheris has wheels for x86-64 alone")
def test_the_fuzzer_sees_a_guard_that_forgets_what_passed(tmp_path: Path) -> None:
    forgetful = tmp_path / "forgetful.py"
    forgetful.write_text(
        "import guard_target\n"
        "guard_target._GUARD._first_time = lambda key: None\n"
        "guard_target.main()\n"
    )
    run = subprocess.run(
        [sys.executable, forgetful, "-runs=2000", "-seed=1"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{CHECKOUT / 'tests'}:{TARGET.parent}"},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert run.returncode != 0
    assert "it passed twice" in run.stdout + run.stderr
