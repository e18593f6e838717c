"""Messages of an outage on a flash that is smaller than what node.json allows them.

After each segment a ledger of the largest size is stored, as a command would do, and now and then
the board starts anew; prints how many messages were written, told as lost, and came back.
"""

import sys
import vfs

from disk import BLOCK, BLOCKS, Disk, mounted, unmount
from spinal.outbox import Item
from spinal.spill import Spill
from spinal.store import Store

LEDGER = [["0" * 26, "lamp", {"status": "succeeded"}, 1790000000000]] * 90


def full(spill):
    """A segment until it is to be closed; how many messages, and how many gave way."""
    count = 1
    while not spill.write(Item("/sc/x", b"a" * 400, 1, 0, "normal", count), b"a" * 400):
        count += 1
    return count, spill.close()[0]


def main(kind_name):
    kind = getattr(vfs, kind_name)
    disk = Disk(bytearray(BLOCKS * BLOCK))
    kind.mkfs(disk)
    mounted(kind, disk.data)
    store = Store(".")
    written = lost = 0
    spill = Spill(".", 1 << 20)
    for turn in range(30):
        if turn % 7 == 6:
            spill = Spill(".", 1 << 20)
        count, gone = full(spill)
        written += count
        lost += gone
        store.write("ledger", LEDGER)
        store.write("slots", {"bad": turn})
    back = 0
    item = spill.next()
    while item is not None:
        back += 1
        spill.sent(item)
        spill.acked()
        item = spill.next()
    # And one that somebody else has filled takes no message at all.
    with open("map", "wb") as file:
        file.write(bytes(BLOCKS * BLOCK - 45000))
    try:
        full(Spill(".", 1 << 20))
        refused = False
    except OSError:
        refused = True
    store.write("ledger", LEDGER)
    print(written, lost, back, refused)
    unmount()


main(sys.argv[1])
