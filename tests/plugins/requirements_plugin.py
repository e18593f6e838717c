"""Binds tests to the requirement list: ``@pytest.mark.req("S2-72")`` and what came of it.

An id that the list does not know ends the collection. At the end of a run the outcome of every
test that cites a line is written as JSON: ``{"tests": {node id: {"ids": […], "outcome": …}}}``.
A run of everything replaces that file, a run of a part renews its own tests in it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_LIST = "requirements_list"
_RUN = "requirements_run"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(_LIST, "the requirement list", default="tests/requirements.json")
    parser.addini(_RUN, "where to write what a run proved", default=".tools/requirements-run.json")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "req(*ids): the lines of the requirement list that this test would see broken"
    )
    config.pluginmanager.register(_Recorder(config), "requirements-recorder")


class _Recorder:
    def __init__(self, config: pytest.Config) -> None:
        self._run_file = config.rootpath / config.getini(_RUN)
        self._list_file = config.rootpath / config.getini(_LIST)
        self._whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        self._cited: dict[str, list[str]] = {}
        self._outcomes: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        known = _known_ids(self._list_file)
        problems = []
        for item in items:
            ids = [name for mark in item.iter_markers("req") for name in mark.args]
            if any(not mark.args or mark.kwargs for mark in item.iter_markers("req")):
                problems.append(f"{item.nodeid}: req takes one id or more, and nothing else")
            problems += [
                f"{item.nodeid}: {name!r} is not a line of {self._list_file.name}"
                for name in ids
                if name not in known
            ]
            if ids:
                self._cited[item.nodeid] = sorted(set(ids))
        if problems:
            raise pytest.UsageError("\n".join(problems))

    def pytest_deselected(self) -> None:
        self._whole = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self._cited:
            return
        worst = self._outcomes.get(report.nodeid, "passed")
        # A call that passed says nothing about its teardown, and xfail is not a pass.
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        if worst == "passed" or outcome == "failed":
            self._outcomes[report.nodeid] = outcome

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if session.config.option.collectonly:
            return
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        tests = {} if self._whole and ended else _previous(self._run_file)
        for nodeid, outcome in self._outcomes.items():
            tests[nodeid] = {"ids": self._cited[nodeid], "outcome": outcome}
        self._run_file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._run_file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"tests": tests}, indent=1, sort_keys=True), encoding="utf-8")
        fresh.replace(self._run_file)


def _known_ids(path: Path) -> frozenset[str]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["requirements"]
    except (OSError, ValueError, KeyError) as error:
        raise pytest.UsageError(f"{path} is not a requirement list: {error!r}") from error
    return frozenset(entry["id"] for entry in entries)


def _previous(path: Path) -> dict[str, dict[str, object]]:
    try:
        tests: dict[str, dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["tests"]
    except FileNotFoundError:
        return {}
    return tests
