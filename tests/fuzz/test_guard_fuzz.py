import platform
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).with_name("guard_target.py")
CHECKOUT = Path(__file__).parents[2]

# A million in all. Each seed is a test of its own with one process, so that the suite's other
# worker goes on beside it.
RUNS = 500_000
SEEDS = (1, 2)


@pytest.mark.req("S4-45")
@pytest.mark.timeout(1800)  # a minute of one processor, where others leave it one
@pytest.mark.skipif(platform.machine() != "x86_64", reason="atheris has wheels for x86-64 alone")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_coverage_guided_fuzzer_finds_nothing_that_the_guard_must_not_do(
    tmp_path: Path, seed: int
) -> None:
    found, log = tmp_path / "found", tmp_path / "log"
    found.mkdir()
    with log.open("w") as output:
        status = subprocess.run(
            [sys.executable, TARGET, f"-runs={RUNS}", f"-seed={seed}"],
            cwd=found,
            env={"PYTHONPATH": str(CHECKOUT / "tests")},  # unmeasured: it would take twice as long
            stdout=output,
            stderr=output,
            timeout=1790,
            check=False,
        ).returncode
    told = log.read_text()[-2000:]
    assert status == 0, told
    assert f"Done {RUNS} runs" in told
    assert list(found.iterdir()) == []


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
