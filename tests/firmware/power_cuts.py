"""Cuts the power at every write of the store, on littlefs and FAT; prints what was read afterwards.

Runs on MicroPython, whose own file systems these are, on a disk of blocks in memory. Prints one
line for each case: file system, what was stored before, what was cut off, how many cuts, how many
left the old and how many the new object; then `ok`.
"""

import gc
import json

import vfs

from spinal.store import Store, StoreError

BLOCK, BLOCKS = 512, 64
_COUNT, _SIZE, _ERASE = 4, 5, 6
_EIO = 5
LEDGER = [[f"A{number}", "lamp", {"status": "succeeded", "result": number}] for number in range(24)]
SEQUENCES = (
    ("nothing", [], {"boot": 1}),
    ("one", [{"boot": 1}], {"boot": 2}),
    ("two", [{"boot": 1}, {"boot": 2}], {"boot": 3}),
    ("a ledger", [LEDGER[:20], LEDGER[:22]], LEDGER),
    ("a rule to forget", [{"reflex_id": "a"}, {"reflex_id": "b"}], None),
)


class Disk:
    """Blocks in memory whose power goes at the n-th write.

    how: "clean", that write never began; "torn", its first half reaches the medium and what lay
    behind it is as before; "erased", … and is as flash that has been erased for the write.
    """

    def __init__(self, data: bytes, cut_at: int = -1, how: str = "clean") -> None:
        self.data = bytearray(data)
        self.writes = 0
        self._cut_at = cut_at
        self._how = how

    def readblocks(self, number: int, buffer: bytearray, offset: int = 0) -> None:
        start = number * BLOCK + offset
        buffer[:] = self.data[start : start + len(buffer)]

    def writeblocks(self, number: int, buffer: bytes, offset: int = 0) -> None:
        self._write(number * BLOCK + offset, bytes(buffer))

    def ioctl(self, request: int, argument: int) -> int:
        if request == _COUNT:
            return BLOCKS
        if request == _SIZE:
            return BLOCK
        if request == _ERASE:
            self._write(argument * BLOCK, b"\xff" * BLOCK)
        return 0

    def _write(self, start: int, data: bytes) -> None:
        size = len(data)
        if 0 <= self._cut_at <= self.writes:
            if self._how != "clean" and self._cut_at == self.writes:
                data = data[: size // 2]
                if self._how == "erased":
                    data += b"\xff" * (size - len(data))
                self.data[start : start + len(data)] = data
            self.writes += 1
            raise OSError(_EIO)
        self.writes += 1
        self.data[start : start + size] = data


def mounted(make: object, disk: Disk) -> Store:
    vfs.mount(make(disk), "/disk")
    return Store("/disk")


def formatted(make: object, values: list) -> bytes:
    """A disk on which these values were stored one after the other."""
    disk = Disk(bytes(BLOCK * BLOCKS))
    make.mkfs(disk)
    store = mounted(make, disk)
    store.write("other", "untouched")
    for value in values:
        store.write("object", value)
    vfs.umount("/disk")
    return bytes(disk.data)


def cut(make: object, before: bytes, new: object, cut_at: int, how: str) -> tuple:
    """What is read after a cut, and whether the write was over before it."""
    disk = Disk(before, cut_at, how)
    store = mounted(make, disk)
    try:
        store.write("object", new)
        over = True
    except OSError:
        over = False
    vfs.umount("/disk")
    again = Disk(disk.data)
    store = mounted(make, again)
    try:
        read = store.read("object")
        if store.read("other") != "untouched":
            raise StoreError("corrupt", "another object was touched")
        # The board goes on from there.
        store.write("object", "next")
        if store.read("object") != "next":
            raise StoreError("corrupt", "the next write is not read")
    finally:
        vfs.umount("/disk")
    return read, over


def main() -> None:
    # A file that a cut left open would be closed, and so written, by the collector.
    gc.disable()
    for name, make in (("littlefs", vfs.VfsLfs2), ("FAT", vfs.VfsFat)):
        # FAT lies behind a layer that writes whole sectors, littlefs on the flash itself.
        hows = ("clean", "torn", "erased") if name == "littlefs" else ("clean", "torn")
        for stored, values, new in SEQUENCES:
            before = formatted(make, values)
            old = values[-1] if values else None
            for how in hows:
                counts = {"old": 0, "new": 0}
                cut_at, over = 0, False
                while not over:
                    read, over = cut(make, before, new, cut_at, how)
                    if json.dumps(read) == json.dumps(new):
                        counts["new"] += 1
                    elif json.dumps(read) == json.dumps(old):
                        counts["old"] += 1
                    else:
                        raise AssertionError(f"{name}, {stored}, {how} at {cut_at}: {read}")
                    if over and json.dumps(read) != json.dumps(new):
                        raise AssertionError(f"{name}, {stored}: told as stored, and lost")
                    cut_at += 1
                print(name, stored, how, cut_at, counts["old"], counts["new"], sep="|")  # noqa: T201 - the result
    print("ok")  # noqa: T201 - as above


main()
