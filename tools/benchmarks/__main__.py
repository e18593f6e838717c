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
_WITH_FULL: Final = ("firmware",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; returns the exit status: 0 measured, 1 failed, 130 interrupted.

    A goal that is not met is no failure: on a shared machine it says too little.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.full and (given.quick or given.name not in _WITH_FULL):
        parser.error("--full is for firmware, and without --quick")
    try:
        asyncio.run(_run(given.name, quick=given.quick, full=given.full, json_file=given.json))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except NervusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(name: str, *, quick: bool, full: bool, json_file: Path | None) -> None:
    task = asyncio.current_task()
    if task is not None:
        # As Ctrl-C does: what was started is ended on the way out.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    machine = Machine.read()
    module = import_module(f"benchmarks.{name}")
    measure: Measure = module.measure
    rows = await module.measure_full(_tell) if full else await measure(quick, _tell)
    show(name, machine, rows, quick=quick)
    if json_file is not None:
        write_json(json_file, name, machine, rows, quick=quick)


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
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the table to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
