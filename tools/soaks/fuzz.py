"""The guard under a coverage-guided fuzzer; inputs that reach new code are kept in .tools/fuzz/.

A finding leaves its input in .tools/fuzz/: make it a vector, then mend the guard.
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
FOUND: Final = ROOT / ".tools" / "fuzz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be asked."""
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--runs", type=int, metavar="N", help="so many inputs")
    length.add_argument("--minutes", type=int, metavar="M", help="so long")
    parser.add_argument("--seed", type=int, default=0, help="another sequence than yesterday's")


def run(given: argparse.Namespace) -> int:
    """Run it; the fuzzer's status is not 0 when it found something."""
    kept = FOUND / "guard"
    kept.mkdir(parents=True, exist_ok=True)
    limit = f"-runs={given.runs}" if given.runs else f"-max_total_time={60 * given.minutes}"
    options = [
        limit,
        f"-artifact_prefix={FOUND}/",
        *([f"-seed={given.seed}"] if given.seed else []),
    ]
    command = [sys.executable, str(ROOT / "tests/fuzz/guard_target.py"), *options, str(kept)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(command, check=False, env=environment).returncode  # noqa: S603 - our own program
