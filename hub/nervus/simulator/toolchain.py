"""Finds what a virtual board runs on: MicroPython, umqtt.simple and the firmware tree."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nervus import resources
from nervus.errors import NervusError

SETUP_HINT: Final = "run: tools/setup"
HEAP: Final = "192k"


class ToolchainError(NervusError):
    """MicroPython or umqtt.simple is not installed."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The programs and folders of a virtual board.

    Attributes:
        micropython: The unix port's executable.
        umqtt: The folder that holds the package `umqtt`.
        firmware: The board's own tree.
    """

    micropython: Path
    umqtt: Path
    firmware: Path

    @classmethod
    def locate(cls) -> Self:
        """Find all three: what set-up put into `.tools` first, then `micropython` on the PATH.

        Raises:
            ToolchainError: One is missing; says what to run.
        """
        firmware = resources.find("firmware")
        tools = firmware.parent / ".tools"
        return cls(_micropython(tools), _umqtt(tools), firmware)

    def command(self) -> list[str]:
        """The command line of one board; its flash is the working directory."""
        start = self.firmware / "simulator" / "start.py"
        return [str(self.micropython), "-X", f"heapsize={HEAP}", str(start)]

    def search_path(self) -> str:
        """`MICROPYPATH`: the overlay stands before the built-in modules it extends."""
        folders = (self.firmware / "simulator", self.firmware / "lib", self.umqtt)
        return os.pathsep.join([*map(str, folders), ".frozen"])


def _micropython(tools: Path) -> Path:
    own = tools / "micropython" / "micropython"
    if own.is_file():
        return own
    if installed := shutil.which("micropython"):
        return Path(installed)
    raise ToolchainError("MicroPython is not installed", where=str(own), hint=SETUP_HINT)


def _umqtt(tools: Path) -> Path:
    folder = tools / "umqtt"
    if (folder / "umqtt" / "simple.py").is_file():
        return folder
    raise ToolchainError("umqtt.simple is not installed", where=str(folder), hint=SETUP_HINT)
