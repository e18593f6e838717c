"""The suite's hypothesis tests, round after round with new examples, until the time is over.

A round that finds something is the last: each falsified test is printed with its smallest example
and the decorator that shows it again. What was found needs a test of its own, with that example.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

ROOT: Final = Path(__file__).resolve().parents[2]
_SHRINKING_S: Final = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be asked."""
    parser.add_argument("--minutes", type=float, default=10, metavar="M", help="how long")
    parser.add_argument(
        "tests", nargs="*", default=["tests"], metavar="PATH", help="files, folders or tests"
    )


def run(given: argparse.Namespace) -> int:
    """Run it; 0 when all held, 1 when one was falsified, another of pytest's where it broke off."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "hypothesis"),
        *("-p", "soaks.rounds", f"--minutes={given.minutes}"),
        # Long enough to make a large example small.
        f"--timeout={_SHRINKING_S}",
        # A run of the suite beside it keeps its own list of what failed.
        *("-p", "no:cacheprovider"),
        *given.tests,
    ]
    environment = {**os.environ, "NERVUS_EXPLORE": "1"}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment).returncode  # noqa: S603 - our own program
