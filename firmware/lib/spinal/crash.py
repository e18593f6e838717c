"""What a board keeps of a crash, so that the hub hears of it at the next connect."""

from spinal import compat
from spinal.store import Store, StoreError

RECORD = "crash"

_LINES = 4
_LINE = 64
_CAUSE = 256
_TRACE = 1536
_lines: list = []


def note(line: str) -> None:
    """Remember one line of the log; the newest four are kept."""
    _lines.append(line[:_LINE])
    del _lines[:-_LINES]


def record(cause: str, trace: str, boot: int) -> dict:
    """The CrashReport payload, with the last lines of the log; a long trace loses its beginning."""
    return {
        "boot": boot,
        "cause": cause[:_CAUSE] or "unknown",
        "trace": trace[-_TRACE:],
        "log": list(_lines),
    }


def keep(error: Exception) -> None:
    """Put a crash on the flash; the one before is overwritten."""
    store = Store(".", compat.fsync)
    try:
        kept = store.read("boot")
    except StoreError:
        kept = None
    boot = kept["boot"] if kept else 0
    cause = "%s: %s" % (type(error).__name__, error)
    store.write(RECORD, record(cause, compat.trace(error), boot))
