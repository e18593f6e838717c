"""How updates look on a terminal: bars while they go on, tables of what came of them."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nervus.updates import AT_WORK, BoardUpdate, Rollout, Stored, read_record
from nervus.wire.plain import plain

POLL_S: Final = 0.2

_STYLES: Final = {
    "confirmed": "green",
    "rolled_back": "bold red",
    "refused": "red",
    "failed": "red",
    "gone_quiet": "yellow",
    "held": "yellow",
}
_WORDS: Final = {"rolled_back": "rolled back", "gone_quiet": "gone quiet", "trial": "on trial"}

_HINTS: Final = {
    "bad_signature": "sign it with a key of its node.toml's update_keys, or flash it with yours: "
    "nervus update key",
    "no_key": "flash it with update_keys in node.toml: nervus update key prints the line",
    "not_newer": "pack it with a higher --version; to go back, flash the board",
    "taken_back": "mend it, pack it with a higher --version; CrashReports say why",
    "bad_digest": "is its link or its flash bad? send it again",
    "no_space": "its flash is full: flash it anew, or pack less",
    "no_memory": "it runs in place from its ROM and has no heap for another one: flash it anew",
    "no_chunk": "is the link to it bad? send it again",
    "too_slow": "is the link to it bad? send it again",
    "quiet": "it gets the update when it comes back",
    "quiet_on_trial": "switch it off and on: after three bad boots it takes the update back",
}


def watch(data: Path, update_id: str, wait_s: float, *, live: bool) -> bool:
    """Show bars until every board is through, or for `wait_s` seconds; whether all are through.

    Ctrl-C ends the watching.
    """
    deadline = time.monotonic() + wait_s
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, disable=not live, transient=True) as progress:
        bars = {}
        try:
            while True:
                rollout, boards = _of(read_record(data), update_id)
                for board in boards:
                    if board.device_id not in bars:
                        bars[board.device_id] = progress.add_task(
                            board.device_id, total=max(1, board.total), state=""
                        )
                    bar = bars[board.device_id]
                    progress.update(bar, completed=board.done, state=_word(board))
                if settled(rollout, boards):
                    return True
                if time.monotonic() >= deadline:
                    return False
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            return False


def settled(rollout: Rollout, boards: list[BoardUpdate]) -> bool:
    """Whether nothing more happens by itself: all are through, or wait for one that is away."""
    if any(board.state in AT_WORK for board in boards):
        return False
    if not any(board.state == "waiting" for board in boards):
        return True
    return any(board.state == "gone_quiet" for board in boards[: rollout.canary])


def show_rollout(console: Console, stored: Stored, update_id: str) -> None:
    """Print a roll-out: a line for each board, what is wrong with it, and what to do."""
    rollout, boards = _of(stored, update_id)
    asked = time.strftime("%Y-%m-%d %H:%M", time.localtime(rollout.asked_ms / 1000))
    console.print(f"\n[bold]{rollout.version}[/] {update_id}, asked by ", end="")
    console.print(f"{rollout.asked_by or 'somebody'} at {asked}", markup=False)
    table = Table("board", "", "fetched", "because", "to do", box=None, pad_edge=False)
    for board in boards:
        table.add_row(
            board.device_id
            + (" (canary)" if board.position < rollout.canary < len(boards) else ""),
            f"[{_STYLES.get(board.state, 'cyan')}]{_word(board)}[/]",
            f"{100 * board.done // max(1, board.total)} %",
            Text(plain(board.error or board.code)),
            _HINTS.get(board.code, ""),
        )
    console.print(table)
    if rollout.stopped:
        console.print("[bold yellow]Stopped:[/]", end=" ")
        console.print(plain(rollout.stopped), markup=False)
    elif any(board.state == "gone_quiet" for board in boards[: rollout.canary]):
        console.print("The others wait until the canaries are back and confirm. To go on without:")
        console.print(f"  nervus update stop {update_id}", markup=False)
        console.print("  nervus update send BOARD... PACK, naming the others", markup=False)


def show_boards(console: Console, stored: Stored) -> None:
    """Print what each board that was ever seen runs."""
    if not stored.seen:
        console.print("No board has said yet what it runs.")
        return
    table = Table("board", "runs", "", "since", box=None, pad_edge=False)
    for seen in stored.seen:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.since_ms / 1000))
        there = "[green]online[/]" if seen.online else "[yellow]offline[/]"
        table.add_row(seen.device_id, Text(plain(seen.firmware or "?")), there, since)
    console.print(table)


def _of(stored: Stored, update_id: str) -> tuple[Rollout, list[BoardUpdate]]:
    rollout = next(each for each in stored.rollouts if each.update_id == update_id)
    return rollout, [board for board in stored.boards if board.update_id == update_id]


def _word(board: BoardUpdate) -> str:
    return _WORDS.get(board.state, board.state)


def fields(stored: Stored, update_id: str) -> dict[str, Any]:
    """A roll-out and its boards, for programs."""
    rollout = next(each for each in stored.rollouts if each.update_id == update_id)
    boards = [asdict(board) for board in stored.boards if board.update_id == update_id]
    return {**asdict(rollout), "boards": boards}
