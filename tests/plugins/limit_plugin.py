"""Lets a test's limit of time end it also while coverage measures it.

pytest-timeout raises from a signal's handler, which Python runs where a function begins. With every
call measured, that is mostly coverage's own: an exception there leaves its lock taken, and whatever
is called next waits for ever. So the limit comes a moment later, in the test's own code. And it
does not come while a report is made: there it would end the run of all tests instead of one.

Of a coroutine the traceback shows but the loop's `select`: what each task of that loop waits for is
written to stderr, which the report has.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

import coverage.collector
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
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
                print_tasks()
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


def print_tasks() -> None:
    """Write to stderr where each task of the running loop waits; nothing where none runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    for task in sorted(asyncio.all_tasks(loop), key=asyncio.Task.get_name):
        sys.stderr.write(f"{task!r}\n")
        stack = traceback.StackSummary.extract(_frames(task.get_coro()))
        sys.stderr.write("".join(stack.format()))


def _frames(awaited: Any) -> Iterator[tuple[FrameType, int]]:
    """The frames from a task's own coroutine down to what waits; Task.get_stack has the first."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame, frame.f_lineno
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
