"""`tools/soak properties`, on properties that are known to hold, or to fail in a later round."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Two interpreters to start on a busy machine, one of which collects tests.
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("unmeasured")]

CHECKOUT = Path(__file__).resolve().parents[2]
HOLDS = """
import conftest  # the suite's settings
from hypothesis import given, strategies as st

@given(st.integers())
def test_holds(number):
    assert number + 1 > number

def test_is_no_property():
    assert False
"""
FAILS_LATER = """
import conftest  # the suite's settings
import json
import pytest
from hypothesis import given, strategies as st
from pathlib import Path

ROUNDS = []

@pytest.fixture(autouse=True)
def counted():
    ROUNDS.append([])
    yield
    Path(__file__).with_suffix(".rounds").write_text(json.dumps(ROUNDS))

@given(st.integers(min_value=0))
def test_is_small(number):
    ROUNDS[-1].append(number)
    assert len(ROUNDS) < 4 or number < 1_000
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the suite's own settings, and no test yet."""
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/requirements.json"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    return tmp_path / "tests"


def soaked(tests: Path, minutes: float) -> tuple[int, str]:
    """The status of a soak, and what it said."""
    paths = os.pathsep.join([str(CHECKOUT / "tools"), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-m", "soaks", "properties", f"--minutes={minutes}", tests],
        capture_output=True, text=True, timeout=50, check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


def test_properties_that_hold_do_so_until_the_time_is_over(project: Path) -> None:
    (project / "test_holding.py").write_text(HOLDS)
    status, said = soaked(project, 0.001)
    assert status == 0, said
    assert "round 1: 1 of 1 properties, 0 falsified" in said
    assert "FALSIFIED" not in said


def test_each_round_draws_anew_and_what_it_falsifies_is_told_with_how_to_see_it_again(
    project: Path,
) -> None:
    (project / "test_failing_later.py").write_text(FAILS_LATER)
    status, said = soaked(project, 10)
    assert status == 1, said
    *held, falsified = re.findall(r"round (\d+): 1 of 1 properties, (\d) falsified", said)
    assert held[:3] == [("1", "0"), ("2", "0"), ("3", "0")]
    assert falsified == (str(len(held) + 1), "1")
    first, second, *_ = json.loads((project / "test_failing_later.rounds").read_text())
    assert first != second
    assert re.search(r"test_is_small\(\s*E? *number=1000,\s*E? *\)", said)
    assert "@reproduce_failure(" in said
    assert "FALSIFIED: NERVUS_EXPLORE=1 tools/test 'tests/test_failing_later.py::test_is_" in said


def test_a_soak_of_nothing_does_not_count_as_held(project: Path) -> None:
    (project / "test_nothing.py").write_text("def test_is_no_property():\n    pass\n")
    status, said = soaked(project, 10)
    assert status != 0
    assert "round" not in said
