"""What is kept of a roll-out and of each board in it, and what the core asks to make durable."""

from dataclasses import dataclass, replace
from typing import Final, Literal

State = Literal[
    "waiting",
    "offered",
    "pulling",
    "trial",
    "confirmed",
    "rolled_back",
    "refused",
    "failed",
    "gone_quiet",
    "held",
]
"""How far a board is.

waiting: its turn has not come. offered: it has not answered yet. pulling: it fetches. trial: it has
installed and restarts into it, or runs it on probation. confirmed: it runs it for good.
rolled_back: it took it back. refused: it would not take it. failed: it could not. gone_quiet:
nothing was heard of it; it is offered again when it comes back. held: the roll-out was stopped.
"""

AT_WORK: Final = frozenset({"offered", "pulling", "trial"})
OFFERED: Final = AT_WORK | {"gone_quiet"}
OPEN: Final = OFFERED | {"waiting"}
"""What may still change by itself; the other states are for good."""

QUIET_ON_TRIAL: Final = "quiet_on_trial"
"""Code of a board that went quiet where that is most serious."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One order to bring a version to boards.

    Attributes:
        update_id: Names it.
        version: Of the application.
        digest: SHA-256 of the pack, hexadecimal.
        canary: How many boards go first and must confirm before the others are offered it.
        asked_ms: When it was asked for, unix milliseconds.
        asked_by: Who asked.
        stopped: Why it was stopped, "" while it goes on.
    """

    update_id: str
    version: str
    digest: str
    canary: int
    asked_ms: int
    asked_by: str
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class BoardUpdate:
    """One board in a roll-out.

    Attributes:
        position: Its place in the order of the roll-out; those below `Rollout.canary` are first.
        state: How far it is.
        since_ms: Since when, unix milliseconds.
        done: Bytes it has fetched, as far as its requests tell.
        total: Bytes of the pack's files.
        code: Why it is in that state, as a code; "" when that needs no reason.
        error: The same for people.
        boot, seq: Of the last message about the update, so that an older one changes nothing.
    """

    update_id: str
    device_id: str
    position: int
    state: State
    since_ms: int
    done: int = 0
    total: int = 0
    code: str = ""
    error: str = ""
    boot: int = 0
    seq: int = -1


@dataclass(frozen=True, slots=True)
class Seen:
    """What a board last said of itself. `firmware` is "" while that is unknown."""

    device_id: str
    firmware: str
    online: bool
    since_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """All that is stored: roll-outs by when they were asked for, their boards in their order."""

    rollouts: tuple[Rollout, ...]
    boards: tuple[BoardUpdate, ...]
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class KeepRollout:
    """Effect: store a roll-out as it is now."""

    rollout: Rollout


@dataclass(frozen=True, slots=True)
class KeepBoard:
    """Effect: store how far a board is."""

    board: BoardUpdate


@dataclass(frozen=True, slots=True)
class KeepSeen:
    """Effect: store what a board said of itself."""

    seen: Seen


@dataclass(frozen=True, slots=True)
class Forget:
    """Effect: delete a roll-out and its boards."""

    update_id: str


Durable = KeepRollout | KeepBoard | KeepSeen | Forget


def moved(
    board: BoardUpdate, state: State, now_ms: int, code: str = "", error: str = ""
) -> BoardUpdate:
    """The board in another state, or in the same for another reason."""
    since_ms = board.since_ms if board.state == state else now_ms
    done = board.total if state in ("trial", "confirmed") else board.done
    return replace(board, state=state, since_ms=since_ms, code=code, error=error, done=done)


def tried(board: BoardUpdate) -> bool:
    """Whether it is on trial, or went quiet there."""
    return board.state == "trial" or board.code == QUIET_ON_TRIAL


def open_ids(stored: Stored) -> frozenset[str]:
    """The roll-outs of which boards may still need the pack."""
    return frozenset(board.update_id for board in stored.boards if board.state in OPEN)
