"""Cuts the power of a board at every write to its flash; runs on MicroPython.

Each disk that a cut may leave is mounted anew and must hold the old application or the new one,
whole.
"""

import os
import sys
import vfs
from binascii import hexlify
from hashlib import sha256
from json import loads

from disk import BLOCK, BLOCKS, Disk, after_cut, mounted, unmount
from slots import Slots
from spinal.store import Store
from spinal.update import Update


class Run:
    """An update on the mounted disk, answered from `chunks`."""

    def __init__(self, order):
        self.order = order
        self.asked = []
        self.slots = Slots(Store("."))
        running = self.slots.version or "1.0.0"
        self.update = Update(
            self.slots, [order["key"]], running, self._tell, self._ask, lambda: None
        )

    def finish(self):
        self.update.offer(self.order["offer"])
        for now in range(6000):
            self.update.step(now, linked=True)
            while self.asked:
                path, offset = self.asked.pop()
                data = self.order["chunks"][f"{path} {offset}"]
                chunk = {"version": self.order["offer"]["version"], "path": path}
                chunk["offset"], chunk["data"] = offset, data
                self.update.chunk(chunk)
            if self.update.installed:
                return
        raise AssertionError("the update does not end")

    def _tell(self, *report):
        self.told = report

    def _ask(self, _version, path, offset):
        self.asked.append((path, offset))


def whole(order, slots):
    """The version that would start, its files checked to the byte."""
    if slots.version == order["offer"]["version"]:
        for file in order["offer"]["files"]:
            with open(slots.slot + "/" + file["path"], "rb") as source:
                assert hexlify(sha256(source.read()).digest()).decode() == file["sha256"]
    else:
        assert slots.version == "1.0.5", slots.version
        with open(slots.slot + "/app.py", "rb") as source:
            assert source.read() == b"the old one"
    return slots.version


def old_application():
    """On the flash 1.0.5 came by update and is good; slot-b has rests of something older."""
    slots = Slots(Store("."))
    os.mkdir("slot-a")
    with open("slot-a/app.py", "wb") as file:
        file.write(b"the old one")
    slots.install("1.0.5")
    slots.count_boot()
    slots.good()
    os.mkdir("slot-b")
    with open("slot-b/rest.py", "wb") as file:
        file.write(b"of an older one")


def main(kind_name, order):
    kind = getattr(vfs, kind_name)
    disk = Disk(bytearray(BLOCKS * BLOCK))
    kind.mkfs(disk)
    mounted(kind, disk.data)
    old_application()
    unmount()
    before = bytes(disk.data)
    disk = mounted(kind, disk.data)
    disk.writes = []
    Run(order).finish()
    unmount()
    seen = {}
    count = len(disk.writes)
    for position in range(count + 1):
        for torn in (False, True):
            if torn and position == count:
                continue
            data = after_cut(before, disk.writes, position, torn)
            mounted(kind, data)
            slots = Slots(Store("."))
            version = whole(order, slots)
            seen[version] = seen.get(version, 0) + 1
            if position % order["every"] == 0 and version == "1.0.5":
                Run(order).finish()
                assert whole(order, Slots(Store("."))) == order["offer"]["version"]
            unmount()
    print(kind_name, count, sorted(seen.items()))


with open(sys.argv[2]) as given:
    main(sys.argv[1], loads(given.read()))
