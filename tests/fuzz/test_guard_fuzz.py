import platform
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).with_name("guard_target.py")
CHECKOUT = Path(__file__).parents[2]

# A million would take more than a minute of both cores, which the suite does not have:
# `tools/soak fuzz --runs 1000000` runs them.
RUNS = 50_000
SEEDS = (1, 2)


@pytest.mark.req("S4-45")
@pytest.mark.timeout(120)  # seven seconds of each core, where nothing else runs
@pytest.mark.skipif(platform.machine() != "x86_64", reason="atheris has wheels for x86-64 alone")
def test_a_coverage_guided_fuzzer_finds_nothing_that_the_guard_must_not_do(tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    logs = [tmp_path / f"{seed}.log" for seed in SEEDS]
    runs = []
    for seed, log in zip(SEEDS, logs, strict=True):
        with log.open("w") as output:
            runs.append(
                subprocess.Popen(
                    [sys.executable, TARGET, f"-runs={RUNS}", f"-seed={seed}"],
                    cwd=found,
                    env={"PYTHONPATH": str(CHECKOUT / "tests")},
                    stdout=output,
                    stderr=output,
                )
            )
    try:
        statuses = [run.wait(timeout=110) for run in runs]
    finally:
        for run in runs:
            run.kill()
    told = "".join(log.read_text()[-2000:] for log in logs)
    assert statuses == [0, 0], told
    assert told.count(f"Done {RUNS} runs") == len(SEEDS), told
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
