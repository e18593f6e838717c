"""Runs every check and every test of the project, one after the other, and says how each went.

A test that fails beside others runs once more, alone: on the same code what passes then met a busy
machine or a race. Both are to be mended, and are named in the summary; more than two of them are a
failure, and so is whatever fails again.

With arguments it is a quick loop: they go to pytest, and nothing else runs.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from xml.etree import ElementTree as ET

import processes
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
_PYTHON = sys.executable
_TOOL = str(Path(sys.executable).parent) + os.sep
_COVERAGE = (_PYTHON, "-m", "coverage")
_PYTEST = ("-m", "pytest")
_COUNTS = ROOT / ".tools" / "junit.xml"
_FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
_UNSTEADY = 2
_TESTS_FAILED = 1  # pytest's own; whatever else went wrong has another number
_LEFT = 125
# A worker for each processor takes file after file, so that a file's tests share its fixtures; in
# the order of the collection, which tests/conftest.py begins with what takes longest.
_WORKERS = ("-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder")


@dataclass(frozen=True)
class Stage:
    """One check: a name for people and the commands that must all end with status 0."""

    name: str
    commands: tuple[tuple[str, ...], ...]


STAGES: tuple[Stage, ...] = (
    Stage("format", ((_TOOL + "ruff", "format", "--check", "--quiet", "."),)),
    Stage("lint", ((_TOOL + "ruff", "check", "--quiet", "."),)),
    Stage(
        "types",
        (
            (_TOOL + "mypy",),
            (_TOOL + "mypy", "tools/checks", "tests/plugins"),
            (_TOOL + "mypy", "tools/generator"),
            # on_board/ runs on MicroPython, with modules that CPython does not have
            (_TOOL + "mypy", "--exclude", "on_board", "tools/benchmarks", "tools/soaks"),
            (_PYTHON, "tools/checks/firmware_types.py"),
        ),
    ),
    Stage("imports", ((_TOOL + "lint-imports",),)),
    Stage("generated files", ((str(ROOT / "tools" / "generate"), "--check"),)),
    Stage(
        "tests",
        (
            (*_COVERAGE, "erase"),
            (*_COVERAGE, "run", *_PYTEST, *_WORKERS, f"--junitxml={_COUNTS}"),
        ),
    ),
    Stage(
        "coverage",
        (
            (*_COVERAGE, "combine", "--quiet"),
            (*_COVERAGE, "json", "--quiet", "-o", ".tools/coverage/report.json"),
            (_PYTHON, "tools/checks/coverage_floors.py", ".tools/coverage/report.json"),
        ),
    ),
    Stage("requirements", ((_PYTHON, "tools/checks/requirement_report.py"),)),
)


@dataclass(frozen=True)
class Result:
    """How a stage went; `unsteady` are the tests that passed only when they ran alone."""

    name: str
    passed: bool
    seconds: float
    unsteady: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Runs the stages, or pytest alone with the arguments given; returns the exit status."""
    # SIGINT too: a shell starts a background job with it ignored, and Python would leave it so.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    processes.adopt_orphans()
    (ROOT / ".tools" / "coverage").mkdir(parents=True, exist_ok=True)
    for told in (_COUNTS, _FAILED):
        told.unlink(missing_ok=True)
    try:
        if arguments:
            loop = Stage("tests", ((_PYTHON, *_PYTEST, *arguments),))
            return 0 if run_stage(loop).passed else 1
        return _summarize([run_stage(stage) for stage in STAGES])
    except KeyboardInterrupt:
        processes.end_leftovers()
        print("\ninterrupted; everything that was started is ended", file=sys.stderr)
        return 130


def run_stage(stage: Stage) -> Result:
    """Runs a stage's commands until one fails; a process left behind is a failure too."""
    print(f"\n── {stage.name} " + "─" * (74 - len(stage.name)), flush=True)
    started = time.monotonic()
    unsteady: tuple[str, ...] = ()
    status = 0
    for command in stage.commands:
        status = _run(stage, command)
        if status == _TESTS_FAILED and _WORKERS[0] in command and (failed := _failed_tests()):
            print(f"once more, alone: {len(failed)} that failed beside others", flush=True)
            status = _run(stage, (*_COVERAGE, "run", *_PYTEST, *failed))
            unsteady = failed if status == 0 else ()
        if status != 0:
            break
    return Result(stage.name, status == 0, time.monotonic() - started, unsteady)


def _run(stage: Stage, command: tuple[str, ...]) -> int:
    """The command's exit status, or that of a process which it left behind."""
    status = processes.run(command, cwd=ROOT)
    left = processes.end_leftovers()
    for name in left:
        print(f"left running by {stage.name}, and ended: {name}", file=sys.stderr)
    if status != 0:
        late = ", it took too long" if status == processes.TOO_LATE else ""
        print(f"status {status}{late}: {shlex.join(command)}", file=sys.stderr)
    return _LEFT if left else status


def _failed_tests() -> tuple[str, ...]:
    """The tests that failed, if they are few enough for a second look and all is told of them."""
    if not (_FAILED.exists() and _COUNTS.exists()):
        return ()
    failed = tuple(json.loads(_FAILED.read_text(encoding="utf-8")))
    # One that failed, and then could not be torn down either, is told of twice.
    told = {
        (case.get("classname"), case.get("name"))
        for case in _junit().iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    }
    return failed if 0 < len(told) == len(failed) <= _UNSTEADY else ()


def _summarize(results: Sequence[Result]) -> int:
    table = Table(box=None, pad_edge=False)
    table.add_column("check")
    table.add_column("result")
    table.add_column("seconds", justify="right")
    for result in results:
        colour, word = ("green", "passed") if result.passed else ("red", "FAILED")
        table.add_row(result.name, f"[{colour}]{word}[/]", f"{result.seconds:.1f}")
    print("\n── summary " + "─" * 67)
    Console().print(table)
    for test in [test for result in results for test in result.unsteady]:
        print(f"UNSTEADY: {test} failed beside others and passed alone; it is to be mended")
    failed = [result.name for result in results if not result.passed]
    if failed:
        print(f"failed: {', '.join(failed)}")
    print(f"\n{_test_counts()}, {len(results)} checks in {sum(r.seconds for r in results):.2f}s")
    return 1 if failed else 0


def _test_counts() -> str:
    """The counts of the whole pytest run, in its own words."""
    if not _COUNTS.exists():
        return "no tests ran"
    counts = _counts()
    words = {"failures": "failed", "skipped": "skipped", "errors": "errors"}
    passed = counts["tests"] - sum(counts[name] for name in words)
    listed = [f"{counts[name]} {word}" for name, word in words.items() if counts[name]]
    return ", ".join([*listed[:1], f"{passed} passed", *listed[1:]])


def _counts() -> dict[str, int]:
    suite = next(_junit().iter("testsuite"))
    return {name: int(suite.get(name, "0")) for name in ("failures", "errors", "skipped", "tests")}


def _junit() -> ET.Element:
    return ET.parse(_COUNTS).getroot()  # noqa: S314 - our own pytest wrote it a moment ago


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
