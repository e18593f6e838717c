"""Runs after boot.py: the board's program, and what happens when it cannot go on."""

import sys
import time

import machine

from spinal.node import NodeError, load
from spinal.runtime import Runtime

RESTART_AFTER_S = 2

try:
    node = load("node.json")
    # Needed once: without it 4 KiB more stay free.
    del load, sys.modules["spinal.node"]
    Runtime(node).run()
except NodeError as error:
    # A wrong node file does not get right by a restart: the board is left at its prompt.
    print(error)  # noqa: T201 - the console is a board's log
except Exception as error:  # noqa: BLE001 - reported on the console, then the board starts anew
    sys.print_exception(error)
    time.sleep(RESTART_AFTER_S)
    machine.reset()
