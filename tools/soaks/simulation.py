"""Simulates a house seed by seed, with everything going wrong, and checks every rule at each step.

A rule that does not hold is printed with its seed and the command that shows it again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from simulation.invariants import Violation
from simulation.run import run_seed

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be asked."""
    parser.add_argument("--seeds", type=int, default=1_000, metavar="N", help="how many")
    parser.add_argument("--from", type=int, default=0, metavar="SEED", dest="first", help="first")
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="S", help="simulated, for each seed"
    )


def run(given: argparse.Namespace) -> int:
    """Run the seeds; 1 when one of them failed."""
    failed = samples = crashes = checks = 0
    began = time.monotonic()
    for seed in range(given.first, given.first + given.seeds):
        try:
            report = run_seed(seed, given.seconds)
        except Violation as violation:
            failed += 1
            print(violation, flush=True)
            continue
        samples += report.samples
        crashes += report.crashes
        checks += report.checked.total()
    took = time.monotonic() - began
    simulated = given.seeds * given.seconds
    print(
        f"{given.seeds} seeds from {given.first}: {failed} failed; {simulated:,.0f} s simulated in "
        f"{took:,.1f} s ({simulated / took:,.0f} times real time), {samples:,} samples, "
        f"{crashes:,} crashes, {checks:,} checks"
    )
    return 1 if failed else 0
