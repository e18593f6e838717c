"""A flash whose power goes: what each of its writes would leave if it were the last one.

A RAM disk under littlefs or FAT records each block written. What a cut leaves is the disk as it was
before, with the first N writes done and, when torn, half of the next.
"""

import os
import vfs

BLOCK = 512
BLOCKS = 160
MOUNT = "/flash"


class Disk:
    """A RAM disk that notes its writes."""

    def __init__(self, data):
        self.data = data
        self.writes = None

    def readblocks(self, block, buffer, offset=0):
        start = block * BLOCK + offset
        buffer[:] = self.data[start : start + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        start = block * BLOCK + offset
        self.data[start : start + len(buffer)] = buffer
        if self.writes is not None:
            self.writes.append((start, bytes(buffer)))

    def ioctl(self, request, _argument):
        return {4: BLOCKS, 5: BLOCK, 6: 0}.get(request, 0)


def after_cut(before, writes, count, torn):
    """The disk with so many writes done and, when torn, half of the next one."""
    data = bytearray(before)
    for start, written in writes[:count]:
        data[start : start + len(written)] = written
    if torn:
        start, written = writes[count]
        half = len(written) // 2
        data[start : start + half] = written[:half]
    return data


def mounted(kind, data):
    disk = Disk(data)
    vfs.mount(kind(disk), MOUNT)
    os.chdir(MOUNT)
    return disk


def unmount():
    os.chdir("/")
    vfs.umount(MOUNT)
