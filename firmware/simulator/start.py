"""Starts a virtual board as a port starts a real one: the ROM partition, boot.py, then main.py."""

import os

FIRMWARE = __file__.rsplit("/", 2)[0]


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


if os.getenv("NERVUS_ROM"):
    _mount_rom(os.getenv("NERVUS_ROM"))
for _name in ("boot.py", "main.py"):
    with open(FIRMWARE + "/" + _name) as _file:
        exec(_file.read(), {"__name__": "__main__"})  # noqa: S102 - what a port does at power-on
