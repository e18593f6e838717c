"""Starts a virtual board as a port starts a real one: the ROM partition, boot.py, then main.py."""

import os
import sys

FIRMWARE = __file__.rsplit("/", 2)[0]
SOFT_RESET = 64  # the supervisor starts the board again, as for `machine.reset`


def _mount_rom(image: str) -> None:
    """Map the image and mount it as /rom: it is read in place and takes nothing of the heap."""
    import ffi  # noqa: PLC0415 - a board without a ROM partition does not load these
    import uctypes  # noqa: PLC0415
    import vfs  # noqa: PLC0415

    read_only, private = 1, 2
    c_library = ffi.open("libc.so.6")
    size = os.stat(image)[6]
    with open(image, "rb") as file:
        mapped = c_library.func("p", "mmap", "pLiiil")(
            0, size, read_only, private, file.fileno(), 0
        )
    vfs.mount(vfs.VfsRom(uctypes.bytearray_at(mapped, size)), "/rom")


# This folder would stand before the compiled overlay, which takes a third of the heap.
sys.path.pop(0)
if os.getenv("NERVUS_ROM"):
    _mount_rom(os.getenv("NERVUS_ROM"))
del _mount_rom
# What a port does at power-on: each is compiled as it is read, in one set of names.
try:
    execfile(FIRMWARE + "/boot.py")  # type: ignore[name-defined] # noqa: F821 - MicroPython's own
    execfile(FIRMWARE + "/main.py")  # type: ignore[name-defined] # noqa: F821 - as above
except SystemExit as end:
    if end.args and end.args[0] is not None:
        raise
    # On a board it does not end anything: it begins anew.
    sys.exit(SOFT_RESET)
# A board whose program has ended stands at its prompt until somebody comes.
if os.getenv("NERVUS_CONTROL_FD"):
    from control import channel

    print("at the prompt")  # noqa: T201 - the console is a board's log
    channel.stay()
