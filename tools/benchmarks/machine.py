"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self


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


def _processor() -> str:
    # "model name" on a PC, "Model" on a Raspberry Pi.
    fields = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields[key.strip().lower()] = value.strip()
    return fields.get("model name") or fields.get("model") or platform.machine()
