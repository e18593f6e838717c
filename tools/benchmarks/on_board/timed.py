"""Stands in for firmware/main.py: runs `program.py` beside it, timed from within.

Each change of an output also says how much processor time the board's process had used by then,
and how often it had let go of its processor to wait for something. A hypervisor's share is in
neither: the kernel leaves out of a process's time what was stolen from its core, as far as it is
told. A board has its program in flash: where the kernel lets us (root), no page of this one is
taken from it to be read from a disk again in the midst of an edge.
"""

import json
import time
from array import array

import ffi
from control import channel

_SECOND_US = 1_000_000
# Of Linux's struct rusage: user and system time in seconds and µs; voluntary context switches.
_USER_S, _USER_US, _SYSTEM_S, _SYSTEM_US = 0, 1, 2, 3
_SLEPT = 16
_FIELDS = 18
_SELF = 0
_MCL_CURRENT, _MCL_FUTURE = 1, 2

libc = ffi.open("libc.so.6")
usage = array("l", [0] * _FIELDS)
getrusage = libc.func("i", "getrusage", "ip")
libc.func("i", "mlockall", "i")(_MCL_CURRENT | _MCL_FUTURE)


def output(kind: str, number: int, value: object) -> None:
    """Record a change of an output, as the control channel does, and what it took so far."""
    getrusage(_SELF, usage)
    seconds = usage[_USER_S] + usage[_SYSTEM_S]
    record = {
        "at_ns": time.time_ns(),
        kind: number,
        "value": value,
        "used_us": seconds * _SECOND_US + usage[_USER_US] + usage[_SYSTEM_US],
        "slept": usage[_SLEPT],
    }
    channel._record(json.dumps(record) + "\n")  # noqa: SLF001 - with more in it than its own records


channel.output = output
execfile(FIRMWARE + "/program.py")  # noqa: F821 - MicroPython's own, and a name of start.py
