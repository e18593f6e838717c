"""A pytest plugin: what was collected runs in rounds until `--minutes` are over, or one fails.

Collecting takes longer than most of the tests do, so a round is no run of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare how long."""
    parser.addoption("--minutes", type=float, required=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run them again and again; what could not be collected is left to pytest, which ends there."""
    if session.testsfailed or not session.items:
        return None
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    began = time.monotonic()
    end = began + session.config.getoption("minutes") * 60
    rounds = 0
    while time.monotonic() < end and not session.testsfailed:
        rounds += 1
        ran = _round(session.items, end)
        took = time.monotonic() - began
        reporter.write_line(
            f" round {rounds}: {ran} of {len(session.items)} properties, "
            f"{session.testsfailed} falsified, {took:.0f} s"
        )
        reporter.flush()
    return True


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how each falsified test is seen to fail again, here and elsewhere."""
    for report in terminalreporter.stats.get("failed", ()):
        terminalreporter.write_line(
            f"FALSIFIED: NERVUS_EXPLORE=1 tools/test '{report.nodeid}'  # here, where .hypothesis/ "
            "keeps its example; elsewhere with the @reproduce_failure above"
        )


def _round(items: Sequence[pytest.Item], end: float) -> int:
    """Run each once, as long as there is time for; how many did."""
    for number, item in enumerate(items):
        if number and time.monotonic() >= end:
            return number
        following = items[number + 1] if number + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return len(items)
