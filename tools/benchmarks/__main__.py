"""The command line of `tools/bench`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.machine import Machine
from benchmarks.table import show, write_json
from nervus.errors import NervusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.table import Row

    Measure = Callable[[bool, Callable[[str], None]], Awaitable[list[Row]]]

NAMES: Final = ("guard", "hub", "firmware", "simulation")
ONLY: Final = {
    "firmware": ("idle", "black hole", "flood", "reconnects", "hostile"),
    "hub": ("cores", "sustained", "urgent", "pressure"),
}
"""What of a benchmark may be measured alone: reflexes under a condition; a part of the table."""
_WITH_FULL: Final = ("firmware",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; returns the exit status: 0 measured, 1 failed, 130 interrupted.

    A goal that is not met is no failure: on a shared machine it says too little.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.full and (given.quick or given.name not in _WITH_FULL):
        parser.error("--full is for firmware, and without --quick")
    parts = ONLY.get(given.name, ())
    if not set(given.only) <= set(parts):
        parser.error(f"--only {given.name} takes {', '.join(parts) or 'nothing'}")
    if given.only and given.quick and given.name in _WITH_FULL:
        parser.error("--only of firmware is without --quick")
    try:
        asyncio.run(_run(given))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except NervusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(given: argparse.Namespace) -> None:
    task = asyncio.current_task()
    if task is not None:
        # As Ctrl-C does: what was started is ended on the way out.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    machine = Machine.read()
    module = import_module(f"benchmarks.{given.name}")
    if given.only and given.name in _WITH_FULL:
        rows = await module.measure_reflexes(given.only, given.full, _tell)
    elif given.only:
        rows = await module.measure_parts(given.only, given.quick, _tell)
    elif given.full:
        rows = await module.measure_full(_tell)
    else:
        measure: Measure = module.measure
        rows = await measure(given.quick, _tell)
    show(given.name, machine, rows, quick=given.quick)
    if given.json is not None:
        write_json(given.json, given.name, machine, rows, quick=given.quick)


def _tell(text: str) -> None:
    print(f"· {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("name", choices=NAMES, help="what to measure")
    parser.add_argument(
        "--quick", action="store_true", help="tiny counts: shows that it works, measures nothing"
    )
    parser.add_argument(
        "--full", action="store_true", help="the counts that the goals are about (firmware: 15 min)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="PART",
        help="; ".join(f"{name}: {', '.join(parts)}" for name, parts in ONLY.items()),
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the table to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
