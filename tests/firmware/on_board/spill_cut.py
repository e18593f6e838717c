"""Cuts the power at every write of what waits on the flash; runs on MicroPython.

Two segments are written and then sent. After each cut the first must be there until it is with the
broker, and the second whole from when it was told as kept; prints how often what was found.
"""

import sys
import vfs

from disk import BLOCK, BLOCKS, Disk, after_cut, mounted, unmount
from spinal.outbox import Item
from spinal.spill import Spill

FIRST = [Item("/sc/x", b"a" * 90, 1, 0, "normal", seq) for seq in range(6)]
SECOND = [Item("/sc/y", b"b" * 90, 1, 0, "critical", seq) for seq in range(6, 14)]


def write(items):
    spill = Spill(".", 65536)
    for item in items:
        spill.write(item, item.data)
    spill.close()


def send():
    """All that is kept, acknowledged one by one; the seqs."""
    spill = Spill(".", 65536)
    seqs = []
    item = spill.next()
    while item is not None:
        known = (FIRST + SECOND)[item.seq]
        assert (item.topic, item.data, item.qos) == (known.topic, known.data, 1)
        assert item.priority == known.priority
        seqs.append(item.seq)
        spill.sent(item)
        spill.acked()
        item = spill.next()
    return seqs


def cuts(kind, before, work, check):
    """Do some work, cut it at each write and check what is left; how many cuts there were."""
    disk = mounted(kind, bytearray(before))
    disk.writes = []
    work()
    unmount()
    count = len(disk.writes)
    for position in range(count + 1):
        for torn in (False, True):
            if torn and position == count:
                continue
            mounted(kind, after_cut(before, disk.writes, position, torn))
            check(send(), over=position == count)
            # The board goes on from there.
            write(SECOND)
            assert send() == [item.seq for item in SECOND]
            unmount()
    return bytes(disk.data), count


def main(kind_name):
    kind = getattr(vfs, kind_name)
    disk = Disk(bytearray(BLOCKS * BLOCK))
    kind.mkfs(disk)
    mounted(kind, disk.data)
    write(FIRST)
    unmount()
    seen = {}

    def written(seqs, over):
        assert seqs == list(range(len(seqs))), seqs
        assert len(seqs) >= len(FIRST), seqs
        assert not over or len(seqs) == len(FIRST + SECOND), "told as kept, and lost"
        seen[len(seqs)] = seen.get(len(seqs), 0) + 1

    def sent(seqs, over):
        # Nothing is gone that is not with the broker: whole segments, the older one first.
        assert len(seqs) in (0, len(SECOND), len(FIRST + SECOND)), seqs
        assert seqs == list(range(14 - len(seqs), 14))
        assert not over or not seqs, "sent, and here again"
        seen[-len(seqs)] = seen.get(-len(seqs), 0) + 1

    data, writes = cuts(kind, bytes(disk.data), lambda: write(SECOND), written)
    _, removals = cuts(kind, data, send, sent)
    print(kind_name, writes, removals, sorted(seen.items()))


main(sys.argv[1])
