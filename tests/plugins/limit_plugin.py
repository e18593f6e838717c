"""Lets a test's limit of time end it also while coverage measures it.

pytest-timeout raises from a signal's handler, which Python runs where a function begins. With every
call measured, that is mostly coverage's own: an exception there leaves its lock taken, and whatever
is called next waits for ever. So the limit comes a moment later, in the test's own code. And it
does not come while a report is made: there it would end the run of all tests instead of one.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import coverage.collector
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

_MOMENT_S = 0.001
_COVERAGE = coverage.collector.__file__


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer(settings: Any) -> Generator[None, object, object]:
    """Put the handler that was just set behind one that waits for a better place."""
    was_set = yield
    if settings.method == "signal":
        end: Any = signal.getsignal(signal.SIGALRM)

        def end_outside_of_coverage(number: int, frame: FrameType | None) -> None:
            if frame is not None and frame.f_code.co_filename == _COVERAGE:
                signal.setitimer(signal.ITIMER_REAL, _MOMENT_S)
            else:
                end(number, frame)

        signal.signal(signal.SIGALRM, end_outside_of_coverage)
    return was_set


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, object, object]:
    """Let the limit rest meanwhile; the teardown has what is left of it."""
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, left_s)
