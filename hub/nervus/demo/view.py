"""The live picture of a tally, drawn with rich. No I/O, no clock."""

from collections.abc import Iterable
from typing import Any, Final

from rich.align import Align
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nervus.about import NAME, TAGLINE
from nervus.demo.house import BOARDS, Board
from nervus.demo.tally import BoardView, CommandView, Latency, Tally

SPARK: Final = "▁▂▃▄▅▆▇█"
UNITS: Final = {"temperature": "°C"}
BOARD_LINES: Final = 3 + sum(max(2, len(board.actuators)) for board in BOARDS)
GATES_SHOWN: Final = 3
FADED: Final = 0.02
ATTENTION_LINES: Final = 2 + GATES_SHOWN
DOES: Final = ((1.0, "shut"), (0.8, "merged"), (0.3, "thinned"), (0.0, "open"))
OUTCOME_COLOURS: Final = {"succeeded": "green", "rejected": "yellow", "failed": "red"}


def picture(tally: Tally, now_s: float, seconds: float | None) -> RenderableType:
    """The whole screen at `now_s` since the start; `seconds` is where it will end, if it will."""
    layout = Layout()
    layout.split_column(
        Layout(_header(tally, now_s, seconds), size=2),
        Layout(_flow(tally, now_s), size=6),
        Layout(_attention(tally, now_s), size=ATTENTION_LINES),
        Layout(_boards(tally), size=BOARD_LINES),
        Layout(name="lower", minimum_size=9),
    )
    layout["lower"].split_row(
        Layout(_commands(tally), ratio=5),
        Layout(_stories(tally), ratio=6),
        Layout(_rejects(tally), ratio=5),
    )
    return layout


def summary(tally: Tally, now_s: float) -> RenderableType:
    """What stands on the screen when the demo is over, or where there is no live screen."""
    return Group(
        _flow(tally, now_s),
        _attention(tally, now_s),
        _boards(tally),
        _commands(tally),
        _rejects(tally),
    )


def progress_line(tally: Tally, now_s: float) -> str:
    """One line for terminals that cannot show a live picture."""
    online = sum(board.status == "online" for board in tally.boards.values())
    done = sum(each.outcome is not None for each in tally.commands.values())
    return (
        f"{now_s:5.1f} s  boards {online}/{len(BOARDS)}  afferents {tally.afferents.total}"
        f"  bundles {tally.bundles.total}  gated {tally.relayed.total}"
        f"  reflexes {tally.fires}  commands {done}/{len(tally.commands)}"
        f"  rejects {sum(tally.rejects.values())}"
    )


def _header(tally: Tally, now_s: float, seconds: float | None) -> RenderableType:
    title = Text.assemble((f" {NAME} ", "bold reverse"), "  ", (TAGLINE, "italic"))
    parts = Text(" ")
    for name, (state, restarts) in tally.parts.items():
        parts.append("● ", "green" if state in ("up", "running", "ready") else "red")
        parts.append(f"{name} ")
        parts.append(f"↻{restarts} " if restarts else "", "yellow")
        parts.append(" ")
    clock = f"{now_s:.0f} s of {seconds:.0f} s" if seconds else f"{now_s:.0f} s, Ctrl-C ends it"
    if not tally.playing:
        clock, seconds = f"starting, {now_s:.0f} s", None
    bar = ProgressBar(total=seconds, completed=min(now_s, seconds)) if seconds else Text("")
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=3)
    grid.add_column(ratio=1, justify="right")
    grid.add_row(title, Text(clock, style="dim"))
    grid.add_row(parts, bar)
    return grid


def _flow(tally: Tally, now_s: float) -> RenderableType:
    grid = Table.grid(expand=True)
    for _ in range(7):
        grid.add_column(justify="center")
    arrow = Text("\n───▶", style="dim")
    grid.add_row(
        _station("boards", f"{tally.afferents.rate(now_s):.0f}/s", "afferents: raw, stay below"),
        arrow,
        _station(
            "brainstem", f"{tally.bundles.rate(now_s):.1f}/s", "bundles: windows, not samples"
        ),
        arrow,
        _station("thalamus", _gates(tally), "decides by gates, below"),
        arrow,
        _station(
            "your code", f"{tally.relayed.rate(now_s):.1f}/s", f"{_p99(tally.relay_ms)} from input"
        ),
    )
    return Panel(grid, title="what rises", title_align="left", border_style="cyan")


def _station(name: str, figure: RenderableType | str, note: str) -> RenderableType:
    body = Text(figure, style="bold") if isinstance(figure, str) else figure
    return Align.center(
        Group(
            Text(name, style="bold cyan", justify="center"),
            Align.center(body),
            Text(note, style="dim", justify="center"),
        )
    )


def _gates(tally: Tally) -> RenderableType:
    decisions = tally.attention.decisions
    words = (("pass", "green"), ("attenuate", "yellow"), ("aggregate", "yellow"), ("drop", "red"))
    line = Text()
    for word, colour in words:
        line.append(f"{decisions[word]} ", f"bold {colour}").append(f"{word}  ", "dim")
    return line


def _attention(tally: Tally, now_s: float) -> RenderableType:
    attention = tally.attention
    attention.expire(now_s)
    gates, levels = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
    for table in (gates, levels):
        for _ in range(4):
            table.add_column(no_wrap=True)
    # What inhibits comes first; the gate before the house is always there.
    shown = sorted(attention.gates.items(), key=lambda item: (-item[1].inhibition, item[0]))
    shown.sort(key=lambda item: item[1].mode != "winner_take_all")
    for (scope, target), gate in shown[:GATES_SHOWN]:
        does = "winner takes all" if gate.mode == "winner_take_all" else _does(gate.inhibition)
        gates.add_row(
            f"{scope} {target}", _bar(gate.inhibition, "magenta"), Text(does, style="bold"),
            Text(f"expires in {gate.until_s - now_s:.1f} s", style="dim"),
        )  # fmt: skip
    told = [item for item in attention.levels.items() if item[1].at(now_s) >= FADED]
    told.sort(key=lambda item: (not item[0].endswith("alert"), -item[1].at(now_s)))
    for name, level in told[:GATES_SHOWN]:
        left = level.at(now_s)
        half = (
            f"halves every {(level.half_life_ms or 0) / 1000:.0f} s" if level.half_life_ms else ""
        )
        levels.add_row(
            name, _bar(left, "red"), Text(level.state, style="bold"),
            Text(half, style="dim"),
        )  # fmt: skip
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(gates, levels)
    title = (
        f"attention: gates set by the gatekeeper ({attention.shut} shut, {attention.expired} "
        f"expired, {attention.reasons['won']} won, {attention.reasons['outcompeted']} outcompeted)"
    )
    return Panel(grid, title=title, title_align="left", border_style="magenta")


def _does(inhibition: float) -> str:
    return next(words for least, words in DOES if inhibition >= least)


def _bar(share: float, colour: str) -> Text:
    full = round(share * 10)
    return Text.assemble(("█" * full, colour), ("░" * (10 - full), "dim"), f" {share:.2f}")


def _boards(tally: Tally) -> RenderableType:
    table = Table(expand=True, box=None, padding=(0, 1))
    for column in ("board", "senses", "", "does", "reflexes, on the board"):
        table.add_column(column, header_style="dim", no_wrap=True, ratio=1)
    for board in BOARDS:
        _board_rows(table, board, tally.boards.get(board.device_id, BoardView()))
    title = f"boards: real firmware on MicroPython, reflex {_p99(tally.reflex_ms)}"
    return Panel(table, title=title, title_align="left", border_style="green")


def _board_rows(table: Table, board: Board, view: BoardView) -> None:
    dot = {"online": "[green]●[/]", "offline": "[red]●[/]"}.get(view.status, "[dim]○[/]")
    name = f"{dot} {board.device_id}"
    senses = [
        (f"{sensor['id']} {_shown(view.values.get(sensor['id']), sensor['id'])}",
         _spark(view.trails.get(sensor["id"], ())))
        for sensor in board.sensors
    ]  # fmt: skip
    does = [_actuator(each["id"], view.outputs.get(each["id"])) for each in board.actuators]
    reflexes = [
        f"{each['reflex_id']} [yellow]⚡{view.fires.get(each['reflex_id'], 0)}[/]"
        for each in board.reflexes
    ]
    restarts = f"[yellow]↻{view.starts - 1}[/]" if view.starts > 1 else ""
    names = [name, f"[dim]  {board.scope}[/] {restarts}"]
    for row in range(max(len(names), len(senses), len(does), len(reflexes))):
        sense, trail = senses[row] if row < len(senses) else ("", "")
        table.add_row(
            _at(names, row), sense, Text(trail, style="cyan"), _at(does, row), _at(reflexes, row)
        )


def _actuator(name: str, value: float | None) -> str:
    if value is None:
        return f"[dim]○ {name}[/]"
    share = f" {value:.0%}" if 0 < value < 1 else ""
    return f"[bold yellow]◉ {name}{share}[/]" if value else f"○ {name}"


def _commands(tally: Tally) -> RenderableType:
    table = Table(expand=True, box=None, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for command in list(tally.commands.values())[-9:]:
        table.add_row(*_command_row(command))
    done = sum(each.outcome is not None for each in tally.commands.values())
    title = f"commands: {done} of {len(tally.commands)} ended, {_p99(tally.outcome_ms)}"
    return Panel(table, title=title, title_align="left", border_style="yellow")


def _command_row(command: CommandView) -> Iterable[RenderableType]:
    if command.outcome is None:
        state = Text("accepted …" if command.accepted else "asked …", style="dim")
    else:
        colour = OUTCOME_COLOURS.get(command.outcome, "magenta")
        words = f"{command.outcome}: {command.error}" if command.error else command.outcome
        state = Text(words, style=colour)
    took = "" if command.took_ms is None else f"{command.took_ms:.1f} ms"
    return Text(command.what), state, Text(took, style="dim")


def _stories(tally: Tally) -> RenderableType:
    lines = [
        Text.assemble((f"{at:5.1f} s  ", "dim"), Text.from_markup(text))
        for at, text in list(tally.stories)[-12:]
    ]
    return Panel(Group(*lines), title="what happens", title_align="left", border_style="blue")


def _rejects(tally: Tally) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=2, no_wrap=True)
    table.add_column(justify="right")
    table.add_column(ratio=1)
    worst = max(tally.rejects.values(), default=1)
    for reason, count in sorted(tally.rejects.items(), key=lambda item: -item[1])[:7]:
        bar = Text("▇" * max(1, round(12 * count / worst)), style="red")
        table.add_row(Text(reason), Text(str(count), style="bold"), bar)
    lines = [
        Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in tally.reject_lines
    ]
    title = f"rejects: {sum(tally.rejects.values())}, kept with reasons"
    return Panel(Group(table, *lines[-3:]), title=title, title_align="left", border_style="red")


def _p99(latency: Latency) -> str:
    value = latency.percentile(0.99)
    return "p99 …" if value is None else f"p99 {value:.1f} ms"


def _shown(value: Any, sensor: str) -> str:
    if value is None:
        return "…"
    if isinstance(value, bool):
        return "[bold]yes[/]" if value else "no"
    return f"{value:.1f} {UNITS.get(sensor, '')}"


def _spark(trail: Iterable[float]) -> str:
    values = list(trail)[-20:]
    if not values:
        return ""
    low, high = min(values), max(values)
    span = high - low or 1.0
    return "".join(SPARK[round((value - low) / span * (len(SPARK) - 1))] for value in values)


def _at(items: list[str], index: int) -> str:
    return items[index] if index < len(items) else ""
