"""Binds tests to the requirement list: ``@pytest.mark.req("S2-72")`` and what came of it.

An id that the list does not know ends the collection. At the end of a run the outcome of every
test that cites a line is written as JSON: ``{"tests": {node id: {"ids": […], "outcome": …}}}``.
A run of everything replaces that file, a run of a part renews its own tests in it.

Under pytest-xdist the workers collect and run, and the controller writes: what a test cites travels
in its report's properties.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_LIST = "requirements_list"
_RUN = "requirements_run"
_CITED = "req"
_DESELECTED = "req_deselected"


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
        self._part = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
        self._deselected = False
        self._tests: dict[str, dict[str, object]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
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
                item.user_properties.append((_CITED, sorted(set(ids))))
        if problems and _is_worker(session.config):
            # An exception would be the worker's crash; this the controller tells, and stops.
            session.shouldfail = "\n".join(problems)
        elif problems:
            raise pytest.UsageError("\n".join(problems))

    def pytest_deselected(self) -> None:
        self._part = self._deselected = True

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # A worker that crashed has put out nothing.
        self._part |= getattr(node, "workeroutput", {}).get(_DESELECTED, True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        ids = dict(report.user_properties).get(_CITED)
        if ids is None:
            return
        # A call that passed says nothing about its teardown, and xfail is not a pass.
        outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
        entry = self._tests.setdefault(report.nodeid, {"ids": ids, "outcome": "passed"})
        if entry["outcome"] == "passed" or outcome == "failed":
            entry["outcome"] = outcome

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        config: Any = session.config
        if _is_worker(config):
            config.workeroutput[_DESELECTED] = self._deselected
            return
        if config.option.collectonly:
            return
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        tests = _previous(self._run_file) if self._part or not ended else {}
        tests |= self._tests
        self._run_file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._run_file.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"tests": tests}, indent=1, sort_keys=True), encoding="utf-8")
        fresh.replace(self._run_file)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


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
