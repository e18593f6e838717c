"""The command line of `tools/soak`: one command, a subcommand for each kind of soak."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Final

NAMES: Final = {
    "board": "a virtual board over TLS whose link breaks every few seconds",
    "flood": "brainstem and thalamus under a flood, and what memory they take",
    "fuzz": "the guard under a coverage-guided fuzzer",
    "properties": "the suite's hypothesis tests, with new examples each time",
    "simulation": "brainstem and thalamus in simulated time, seed by seed",
}


def main() -> int:
    """Run one soak; returns its exit status: 0 held, 1 something did not."""
    parser = argparse.ArgumentParser(prog="tools/soak", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    for name, text in NAMES.items():
        module = import_module(f"soaks.{name}")
        command = commands.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    given = parser.parse_args()
    status: int = given.run(given)
    return status


if __name__ == "__main__":
    sys.exit(main())
