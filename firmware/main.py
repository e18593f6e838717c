"""Runs after boot.py: the board's program, and what happens when it cannot go on."""

import sys
import time

import machine

RESTART_AFTER_S = 2

try:
    # Here, not above: an application that came by update may not even load.
    import spinal.node

    node = spinal.node.load("node.json")
    # Needed once: 4 KiB are free again. A module is known to its package, too.
    del spinal.node, sys.modules["spinal.node"]
    from spinal.runtime import Runtime

    Runtime(node).run()
except Exception as error:  # noqa: BLE001 - kept, told to the hub, then the board starts anew
    sys.print_exception(error)
    # A wrong node file does not get right by a restart: the board is left at its prompt. It gets
    # there by the end of this file; sys.exit() would be a soft reset, again and again.
    lasting = type(error).__name__ == "NodeError"
    if lasting:
        import slots

        lasting = slots.here is None or not slots.here.trial
    if not lasting:
        try:
            from spinal import crash

            crash.keep(error)
        finally:
            time.sleep(RESTART_AFTER_S)
            machine.reset()
