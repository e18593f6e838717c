"""Repeats, interleaved, so that what else the machine does falls on all cases alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from nervus.errors import NervusError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class DidNotHappenError(NervusError):
    """What was to be measured did not take place."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something to time: `prepare` is not timed, what it returns is, and must do `count` things."""

    name: str
    count: int
    prepare: Callable[[], Callable[[], int]]


@dataclass(frozen=True, slots=True)
class Spread:
    """What one operation took in microseconds of CPU, over all rounds."""

    median: float
    least: float
    most: float

    def values(self) -> dict[str, float]:
        """For a row of the table."""
        return {"median": self.median, "least": self.least, "most": self.most}

    def rates(self) -> dict[str, float]:
        """Operations a second, for a row of the table."""
        return {"median": 1e6 / self.median, "least": 1e6 / self.most, "most": 1e6 / self.least}


def interleaved(cases: Sequence[Case], rounds: int) -> dict[str, Spread]:
    """Run all cases in turn, `rounds` times; they compute in this thread and wait for nothing.

    Raises:
        DidNotHappenError: A case did another number of things than it said.
    """
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            run = case.prepare()
            began = time.thread_time_ns()
            done = run()
            took = time.thread_time_ns() - began
            if done != case.count:
                raise DidNotHappenError(f"{case.name}: {done} of {case.count} things were done")
            times[case.name].append(took / 1e3 / case.count)
    return {name: Spread(median(each), min(each), max(each)) for name, each in times.items()}


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p50, p99 and worst by the nearest-rank method.

    Raises:
        DidNotHappenError: There are no samples.
    """
    if not samples:
        raise DidNotHappenError("nothing was measured")
    ordered = sorted(samples)
    ranks = {"p50": 0.5, "p99": 0.99, "worst": 1.0}
    return {key: ordered[-int(-share * len(ordered) // 1) - 1] for key, share in ranks.items()}
