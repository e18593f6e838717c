"""Where in time a source's samples lie."""

from collections.abc import Mapping
from typing import Any


class SourceClock:
    """Event time of one source, held against the hub's own.

    A sample lies at its `t_ms`, if the board has a clock, and at its receipt otherwise. The hub's
    time is the measure: a board that is ahead of it is placed by receipt, and what was measured
    longer than the bound ago is late. The watermark is the latest event time seen. A
    sample behind it by more than the bound although it was made later (a higher `seq` of the same
    boot) shows that the board's clock was set back: the source is then placed by receipt until its
    clock agrees with the hub's again.
    """

    __slots__ = ("_boot", "_seq", "jumps", "trusted", "watermark_ms")

    def __init__(self) -> None:
        self._boot = -1
        self._seq = -1
        self.watermark_ms = 0
        self.trusted = True
        self.jumps = 0

    def place(self, meta: Mapping[str, Any], now_ms: int, oldest_ms: int) -> int | None:
        """Event time of a live sample in unix milliseconds; None when it is late."""
        if meta["clk"] == "none":
            return now_ms
        event_ms: int = meta["t_ms"]
        if meta["boot"] != self._boot:
            self._boot, self._seq, self.watermark_ms, self.trusted = meta["boot"], -1, 0, True
        if (seq := meta["seq"]) > self._seq:
            self._seq = seq
            if event_ms < self.watermark_ms - oldest_ms:
                self.jumps += self.trusted
                self.trusted = False
                self.watermark_ms = event_ms
        if event_ms >= now_ms - oldest_ms:
            self.trusted = True
            if event_ms > now_ms:
                event_ms = now_ms
            if event_ms > self.watermark_ms:
                self.watermark_ms = event_ms
            return event_ms
        return None if self.trusted else now_ms
