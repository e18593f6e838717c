"""When a board at work is offered to again, and when it is given up. All in unix milliseconds."""

from dataclasses import dataclass
from typing import Final

from nervus.updates.record import AT_WORK, BoardUpdate
from nervus.updates.settings import UpdatesSettings

JUMP_MS: Final = 10_000
"""Time between two ticks that can only be the clock set, or the process stopped."""

LOOK_MS: Final = 1_000
"""Longest time between two ticks, so that a jump is none of those."""

LONGEST_PAUSE: Final = 4
"""The longest pause between two offers, in `answer_ms`."""


@dataclass(slots=True)
class Timing:
    """Of one board at work.

    Attributes:
        heard_ms: When it last said something about the update.
        next_ms: When it is offered again if it stays silent.
        pause_ms: Pause after that offer.
        ends_ms: When its fetching, or its trial, has taken too long.
        offered_ms: When it was last offered.
        kept_ms: When its progress was last stored.
        failures: How often it failed for a reason that may pass.
    """

    heard_ms: int
    next_ms: int
    pause_ms: int
    ends_ms: int
    offered_ms: int = 0
    kept_ms: int = 0
    failures: int = 0


class Timings:
    """The timings of all boards at work. Nothing of it is stored: a start begins them anew."""

    def __init__(self, settings: UpdatesSettings) -> None:
        self._settings = settings
        self._timings: dict[str, Timing] = {}
        self._ticked_ms: int | None = None

    def __getitem__(self, device_id: str) -> Timing:
        return self._timings[device_id]

    def __len__(self) -> int:
        return len(self._timings)

    @property
    def look_ms(self) -> int:
        """When to tick at the latest, or what passed by itself would look like a jump."""
        return 0 if self._ticked_ms is None else self._ticked_ms + LOOK_MS

    def boards(self) -> list[str]:
        """The boards at work."""
        return list(self._timings)

    def follow(self, before: BoardUpdate, board: BoardUpdate, now_ms: int) -> None:
        """A board's state is another, or is known for the first time (`before` is the same)."""
        timing = self._timings.get(board.device_id)
        if board.state not in AT_WORK:
            self._timings.pop(board.device_id, None)
        elif timing is None:
            ends_ms = self._ends_ms(board, now_ms)
            self._timings[board.device_id] = Timing(
                now_ms, now_ms, self._settings.answer_ms, ends_ms
            )
        elif (before.state == "trial") != (board.state == "trial"):
            timing.ends_ms = self._ends_ms(board, now_ms)

    def heard(self, board: BoardUpdate, now_ms: int) -> None:
        """It said something, in the state it now has."""
        timing = self._timings.get(board.device_id)
        if timing is not None:
            timing.heard_ms, timing.pause_ms = now_ms, self._settings.answer_ms
            timing.next_ms = now_ms + self._silence_ms(board, timing)

    def offered(self, board: BoardUpdate, now_ms: int) -> None:
        """It is offered now."""
        timing = self._timings[board.device_id]
        timing.offered_ms = now_ms
        timing.next_ms = now_ms + self._silence_ms(board, timing)
        longest_ms = LONGEST_PAUSE * self._settings.answer_ms
        timing.pause_ms = min(2 * timing.pause_ms, longest_ms)

    def clock_jump_ms(self, now_ms: int) -> int:
        """By how much the clock was set forward since the last tick; call it once a tick.

        A hub without a battery begins in the past. What it skips then is nobody's silence: what has
        passed for a board, and what is left to it, stay the same.
        """
        jump_ms = 0 if self._ticked_ms is None else now_ms - self._ticked_ms
        self._ticked_ms = now_ms
        if jump_ms < JUMP_MS:
            return 0
        for timing in self._timings.values():
            timing.heard_ms += jump_ms
            timing.next_ms += jump_ms
            timing.ends_ms += jump_ms
            timing.offered_ms += jump_ms
        return jump_ms

    def _silence_ms(self, board: BoardUpdate, timing: Timing) -> int:
        return self._settings.probe_ms if board.state == "trial" else timing.pause_ms

    def _ends_ms(self, board: BoardUpdate, now_ms: int) -> int:
        settings = self._settings
        return now_ms + (settings.trial_ms if board.state == "trial" else settings.whole_ms)
