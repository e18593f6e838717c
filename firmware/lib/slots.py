"""Which application this board starts: the one it was flashed with, or one that came by update.

Two folders, `slot-a` and `slot-b`, take updates in turn; neither is changed while it is in use. The
record that names the slot is kept as all else is, in two copies with a checksum, so a power cut
leaves the application before or the one after. This module and `boot.py` are never updated.
"""

import sys

from spinal.store import Store, StoreError

BAD_BOOTS = 3
"""So many bad boots in a row take an update on trial back; without one they mean safe mode."""

FLASHED = ""
_RECORD = "slots"
_NEW = {"slot": FLASHED, "version": "", "trial": False, "bad": 0, "before": ["", ""], "refused": ""}


here: "Slots | None" = None
"""The slots of this board once it has booted."""


class Slots:
    """The record: read at boot, changed by an update and by a boot that got good.

    Attributes:
        slot: Folder of the application that runs, "" for the flashed one.
        version: Its version, "" for the flashed one.
        trial: Whether it is on probation: it came by update and had no good boot yet.
        safe: Whether this boot comes after too many bad ones; nothing that may crash is to run.
        refused: Version that was taken back after its trial, "" for none.
        taken_back: Whether this boot is the one that took it back.
        asked: Whether this boot was asked for. An RP2 that restarts by itself and one that its
            watchdog restarts say the same.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        try:
            self._record = store.read(_RECORD) or dict(_NEW)
        except StoreError:
            self._record = dict(_NEW)  # what was flashed is always whole
        self.taken_back = False
        self.safe = False
        self.asked = False
        self._show()

    def count_boot(self) -> None:
        """Count this boot as bad until `good` is called; decide what it starts."""
        record = self._record
        if record["trial"] and record["bad"] >= BAD_BOOTS:
            record["refused"] = record["version"]
            record["slot"], record["version"] = record["before"]
            record["trial"] = False
            record["bad"] = 0
            self.taken_back = True
        self.safe = record["bad"] >= BAD_BOOTS
        self.asked = record.pop("asked", False)
        record["bad"] += 1
        self._keep()

    def good(self) -> bool:
        """This boot is good; True when that ends a trial."""
        record = self._record
        ended = record["trial"]
        if record["bad"] or ended:
            record["bad"] = 0
            record["trial"] = False
            self._keep()
        return ended

    def restarting(self) -> None:
        """The board is about to restart by intention: that makes no bad boot."""
        self._record["bad"] = 0
        self._record["asked"] = True
        self._keep()

    def free(self) -> str:
        """The folder that takes the next update."""
        return "slot-b" if self.slot == "slot-a" else "slot-a"

    def install(self, version: str) -> None:
        """Start the application in the free slot from the next boot on, on trial."""
        record = self._record
        record["before"] = [record["slot"], record["version"]]
        record["slot"] = self.free()
        record["version"] = version
        record["trial"] = True
        record["bad"] = 0
        self._store.write(_RECORD, record)

    def _keep(self) -> None:
        self._show()
        self._store.write(_RECORD, self._record)

    def _show(self) -> None:
        record = self._record
        self.slot, self.version = record["slot"], record["version"]
        self.trial, self.refused = record["trial"], record["refused"]


def enter() -> None:
    """Count this boot and put the application it starts in front of the search path."""
    global here  # noqa: PLW0603 - a board boots once, and what runs later asks this module
    here = Slots(Store("."))
    try:
        here.count_boot()
    except OSError as error:
        # Ports do not go on to main.py after an error here; a flash that is full or worn out still
        # has a program on it.
        print("this boot is not counted:", error)  # noqa: T201 - the console is a board's log
    if here.slot:
        sys.path.insert(0, here.slot)
        # The application brings its own; what this module used is the flashed one's.
        for name in [name for name in sys.modules if name.split(".")[0] == "spinal"]:
            del sys.modules[name]
