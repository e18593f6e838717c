"""What keeps a board well: watchdog, health, crash report, an update and its trial."""

import gc
import os
import sys

import machine

from spinal import crash, wiring
from spinal.health import Health
from spinal.ticks import elapsed, later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from slots import Slots
    from spinal.runtime import Runtime
    from spinal.update import Updates

_SECOND_MS = 1000
_MINUTE_MS = 60000
_DAY_MS = 86400000
_GOOD_AFTER_MS = 30000
_LOGS_A_MINUTE = 10
_LOG_TEXT = 512
_LONGEST_WATCHDOG_MS = 8388  # what the RP2 takes
_SMALLEST_PROBE = 512
_HEAP_DATA = 4  # esp32's name for memory of any use
_OF_UPDATES = ("update", "ed25519", "sha512")
_CAUSES = {
    "PWRON_RESET": "power_on",
    "HARD_RESET": "hard_reset",
    "WDT_RESET": "watchdog",
    "DEEPSLEEP_RESET": "deep_sleep",
    "SOFT_RESET": "soft_reset",
}


class Upkeep:
    """The parts of a board's program that are about the board itself.

    safe: Whether too many boots before this one went wrong; no reflex runs then.
    """

    def __init__(self, board: "Runtime") -> None:
        self._board = board
        here = _slots(board)
        self.safe = here.safe
        self.version = here.version or wiring.FIRMWARE
        self._updates: Updates | None = None
        self._health = Health()
        self._began = board.ticks_ms
        self._good = False
        self._health_at = later(board.ticks_ms, board.node["health_s"] * _SECOND_MS)
        self._watchdog: Any = None
        # The slots are those that were flashed, maybe long before this application.
        self._crash = self._last_crash(asked=getattr(here, "asked", False))
        self._day: int | None = None
        self._logs = 0
        self._logs_from = board.ticks_ms
        if here.trial or here.taken_back or _exists("update.txt"):
            self._updates = _loaded(board, here, self.version)

    def start(self) -> None:
        """The loop begins; from now on it has to go on."""
        limit_ms = self._board.node["watchdog_ms"]
        try:
            self._watchdog = machine.WDT(timeout=limit_ms)
        except ValueError:  # the port takes no such long one
            self._watchdog = machine.WDT(timeout=_LONGEST_WATCHDOG_MS)

    def turn(self, microseconds: int) -> bool:
        """A turn of the loop took so long; returns whether the next one should not wait."""
        self._health.turn(microseconds)
        return self._updates is not None and self._updates.step()

    def each_second(self) -> None:
        """Feed the watchdog, and see what is due."""
        board = self._board
        # Only here: a loop that does not come around any more is what it is for.
        self._watchdog.feed()
        if not self._good and elapsed(board.ticks_ms, self._began) >= _GOOD_AFTER_MS:
            self._good = True
            try:
                if _slots(board).good():
                    self.updates.tell(self.version, "probation", "succeeded", None)
            except OSError as error:
                board.log("this boot is not kept as a good one: %r" % error, "error")
        if board.clock.synced and board.node["identity"] is not None:
            self._keep_date(board.clock.unix_ms(board.ticks_ms))
        if elapsed(board.ticks_ms, self._logs_from) >= _MINUTE_MS:
            # Here, not where something is logged: a week later the tick would lie ahead.
            self._logs, self._logs_from = 0, board.ticks_ms
        if elapsed(board.ticks_ms, self._health_at) >= 0:
            self._health_at = later(board.ticks_ms, board.node["health_s"] * _SECOND_MS)
            self._report_health()
        if self._updates is not None and self._updates.each_second():
            self._updates = None
            for name in _OF_UPDATES:
                forget(name)

    def begin(self) -> None:
        """Before the first connection: set the port's clock, for TLS asks for it."""
        if self._wall_clock().was_behind:
            self._board.log("the port's clock was behind and is set")

    def refuse(self, text: str) -> None:
        """TLS refused the broker: maybe only since the port's clock is behind."""
        if self._wall_clock().refuse(text):
            self._board.log("the port's clock is behind and goes on by some days", "warning")

    def _keep_date(self, unix_ms: "Any") -> None:
        """Once a day: the flash is not to be worn by it."""
        if unix_ms // _DAY_MS != self._day:
            self._day = unix_ms // _DAY_MS
            self._board.keep("clock", self._wall_clock().tick(unix_ms))

    def _wall_clock(self) -> "Any":
        """The port's clock; nothing of it stays on the heap, it is needed once a day."""
        from spinal.wallclock import WallClock  # noqa: PLC0415 - as above

        with open(self._board.node["identity"]["cert"], "rb") as file:
            made = WallClock(machine.RTC(), file.read(), self._board.stored("clock"))
        forget("wallclock")
        return made

    def link_up(self) -> None:
        """Say what happened while nobody listened."""
        board = self._board
        if self._crash is not None:
            board.outgoing.about_board("CrashReport", self._crash, board.ticks_ms)
        if self._updates is not None:
            self._updates.link_up()

    def acked(self, topic: str) -> None:
        """The broker has a message; a crash that is told needs not be kept."""
        if self._crash is not None and topic.endswith("/crash"):
            self._crash = None
            self._board.keep(crash.RECORD, None)

    def log(self, level: str, text: str) -> None:
        """Note a line; send it when it is a warning or worse, at most ten a minute."""
        board = self._board
        crash.note(text)
        if level == "info":
            return
        self._logs += 1
        if self._logs == _LOGS_A_MINUTE:
            text = "more follows on the console; the last one told is: " + text
        if self._logs <= _LOGS_A_MINUTE:
            payload = {"level": level, "name": "board", "text": text[:_LOG_TEXT]}
            board.outgoing.about_board("DeviceLog", payload, board.ticks_ms)

    @property
    def updates(self) -> "Updates":
        """What takes an application; loaded when it is first asked for."""
        if self._updates is None:
            self._updates = _loaded(self._board, _slots(self._board), self.version)
        return self._updates

    def chunk(self, payload: dict) -> None:
        """A piece of the application that is being taken."""
        if self._updates is not None:
            self._updates.chunk(payload)

    def dropped(self, ranges: list) -> None:
        """Messages the outbox shed."""
        self._health.dropped(ranges)

    def _last_crash(self, *, asked: bool) -> dict | None:
        kept = self._board.stored(crash.RECORD)
        if kept is None and not asked and _cause() == "watchdog":
            return crash.record("watchdog: the loop stood still", "", self._board.boot - 1)
        return kept

    def _report_health(self) -> None:
        board = self._board
        loop_p99, drops = self._health.take()
        payload = {
            "uptime": board.clock.uptime_ms(board.ticks_ms) // _SECOND_MS,
            "heap_free": gc.mem_free(),
            "heap_largest": _largest_block(),
            "loop_p99": loop_p99,
            "reset_cause": _cause(),
            "drops": drops,
            "rejects": board.rejects.total,
        }
        rssi = board.board.rssi()
        if rssi is not None:
            payload["rssi"] = rssi
        board.outgoing.about_board("DeviceHealth", payload, board.ticks_ms)


def _loaded(board: "Runtime", here: "Slots", version: str) -> "Updates":
    # Only now: most boots need none of it, and its heap is wanted elsewhere.
    from spinal.update import Updates  # noqa: PLC0415

    return Updates(board, here, version)


def _exists(name: str) -> bool:
    try:
        os.stat(name)
    except OSError:
        return False
    return True


def forget(name: str) -> None:
    """Let go of a module of this package. Its parent knows it too, not only `sys.modules`."""
    if sys.modules.pop("spinal." + name, None) is not None:
        delattr(sys.modules["spinal"], name)


def _slots(board: "Runtime") -> "Slots":
    """The slots as this boot left them, then as the flash has them; no heap is kept for it."""
    import slots  # noqa: PLC0415 - as above

    here = slots.here or slots.Slots(board.store)
    del sys.modules["slots"]
    return here


def _cause() -> str:
    cause = machine.reset_cause()
    for name, told in _CAUSES.items():
        if getattr(machine, name, None) == cause:
            return told
    return "unknown"


def _largest_block() -> int:
    """The largest block that can be had now, to a sixteenth; asks with the collector held still.

    On an ESP32 it is that of the system's heap, which Wi-Fi and TLS live on: asking by taking one
    would make our heap grow by all of it.
    """
    low = high = 0
    try:
        port: Any = __import__("esp32")
        low = max([region[2] for region in port.idf_heap_info(_HEAP_DATA)])
    except ImportError:
        high = gc.mem_free()
        gc.disable()
    while high - low > max(_SMALLEST_PROBE, high >> 4):
        middle = (low + high) // 2
        try:
            bytearray(middle)
            low = middle
        except MemoryError:
            high = middle
    gc.enable()
    return low
