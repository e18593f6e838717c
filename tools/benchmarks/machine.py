"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores, processor, interpreter, and how busy it was when the benchmark began."""

    cores: int
    processor: str
    python: str
    executable: str
    load: float

    @classmethod
    def read(cls) -> Self:
        """This machine, now."""
        cores = len(os.sched_getaffinity(0))
        # Behind a virtual environment: one built with profiles, as Debian's, is a fifth faster.
        executable = str(Path(sys.executable).resolve())
        load = round(os.getloadavg()[0], 2)
        return cls(cores, _processor(), platform.python_version(), executable, load)

    def line(self) -> str:
        """One line for the head of a table."""
        return (
            f"{self.cores} cores, {self.processor}, Python {self.python} "
            f"({self.executable}), load {self.load:.1f} at the start"
        )


@contextmanager
def undisturbed() -> Iterator[str]:
    """Run with what is started here ahead of what else the machine does, where one may: as root.

    Else a latency of milliseconds is how long the others' time slices are. The kernel keeps a
    twentieth of each second for them: what takes all cores shows pauses of 50 ms. Gives words for a
    note.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield "beside what else the machine does"
        return
    try:
        yield "ahead of what else the machine does"
    finally:
        os.sched_setscheduler(0, policy, parameters)


def stolen() -> tuple[int, int]:
    """Ticks that the host of a virtual machine took from it since it began, and ticks in all."""
    first, _, _ = Path("/proc/stat").read_text(encoding="utf-8").partition("\n")
    # user, nice, system, idle, iowait, irq, softirq, steal; those of guests are in the first two.
    ticks = [int(each) for each in first.split()[1:9]]
    return ticks[7], sum(ticks)


def _processor() -> str:
    # "model name" on a PC, "Model" on a Raspberry Pi.
    fields = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields[key.strip().lower()] = value.strip()
    return fields.get("model name") or fields.get("model") or platform.machine()
