"""Says which lines of the requirement list the tests prove.

A line is *proven* when a test that cites it passed in the last run and none that cites it did
otherwise, *cited* when tests name it but that does not hold, *open* when no test names it.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]

State = Literal["proven", "cited", "open"]
_COLOURS: dict[State, str] = {"proven": "green", "cited": "yellow", "open": "bright_black"}
_BLOCKS: dict[State, str] = {"proven": "█", "cited": "▒", "open": "░"}
_BAR_CELLS = 24


@dataclass(frozen=True)
class Line:
    """One requirement and what the tests say of it."""

    id: str
    document: str
    text: str
    state: State
    tests: tuple[str, ...]


class ReportError(Exception):
    """The report cannot be made; says which file and what to do."""


def report(root: Path) -> list[Line]:
    """Reads list, tests and last run below ``root``; one entry for each line, in list order.

    Raises:
        ReportError: a test cites an unknown id or not by a literal, or a file cannot be read.
    """
    listed = _read_json(root / "tests" / "requirements.json")
    known = {entry["id"]: entry["text"] for entry in listed["requirements"]}
    citations = _citations(root / "tests")
    unknown = sorted(
        f"{place}: {name} is no line of tests/requirements.json"
        for name, places in citations.items()
        if name not in known
        for place in places
    )
    if unknown:
        raise ReportError("\n".join(unknown))
    run_file = root / ".tools" / "requirements-run.json"
    outcomes = _outcomes(_read_json(run_file)["tests"] if run_file.exists() else {}, citations)
    return [
        Line(name, name.partition("-")[0], text, *_judge(name, citations, outcomes))
        for name, text in known.items()
    ]


def main(arguments: Sequence[str]) -> int:
    """Prints the report; exit status 1 when it cannot be made."""
    parser = argparse.ArgumentParser(prog="tools/requirements", description=__doc__)
    parser.add_argument("--list", metavar="S2", dest="listed", help="every line of a document")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the whole report as JSON")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    console = Console()
    try:
        lines = report(options.root)
        titles = _read_json(options.root / "tests" / "requirements.json")["documents"]
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    if options.listed and options.listed not in titles:
        parser.error(f"no document {options.listed}; there are {', '.join(titles)}")
    if options.json:
        written = {"requirements": [asdict(line) for line in lines], "counts": _counts(lines)}
        options.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if options.listed:
        _print_lines(console, [line for line in lines if line.document == options.listed])
    else:
        _print_counts(console, lines, titles)
    return 0


def _judge(
    name: str, citations: Mapping[str, Sequence[str]], outcomes: Mapping[str, Mapping[str, str]]
) -> tuple[State, tuple[str, ...]]:
    if name not in citations:
        return "open", ()
    results = outcomes.get(name, {})
    passed = bool(results) and all(outcome == "passed" for outcome in results.values())
    return ("proven" if passed else "cited"), tuple(sorted(results) or citations[name])


def _outcomes(
    run: Mapping[str, Mapping[str, Any]], citations: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Requirement id → test → outcome, only from tests whose file still cites the id."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for test, entry in run.items():
        file = test.partition("::")[0]
        for name in entry["ids"]:
            if any(place.partition(":")[0] == file for place in citations.get(name, ())):
                found[name][test] = entry["outcome"]
    return found


def _citations(tests: Path) -> dict[str, list[str]]:
    """Requirement id → ``file:line`` of every ``pytest.mark.req`` that names it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(tests.rglob("*.py")):
        file = path.relative_to(tests.parent).as_posix()
        for name, number in _marks(path, file):
            found[name].append(f"{file}:{number}")
    return found


def _marks(path: Path, file: str) -> Iterator[tuple[str, int]]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=file)
    except (OSError, SyntaxError) as error:
        raise ReportError(f"{file} cannot be read: {error}") from error
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.req"):
            continue
        for argument in node.args:
            if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                raise ReportError(
                    f"{file}:{node.lineno}: write the ids of pytest.mark.req out, one string each"
                )
            yield argument.value, node.lineno


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from error
    return content


def _counts(lines: Sequence[Line]) -> dict[str, dict[State, int]]:
    counts: dict[str, dict[State, int]] = {}
    for line in lines:
        states = counts.setdefault(line.document, {"proven": 0, "cited": 0, "open": 0})
        states[line.state] += 1
    return counts


def _print_counts(console: Console, lines: Sequence[Line], titles: Mapping[str, str]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("document", no_wrap=True)
    for state, colour in _COLOURS.items():
        table.add_column(state, justify="right", style=colour, no_wrap=True)
    table.add_column("", width=_BAR_CELLS, no_wrap=True)
    counts = _counts(lines)
    total: dict[State, int] = defaultdict(int)
    for document, states in counts.items():
        for state, number in states.items():
            total[state] += number
        table.add_row(*_row(f"{document} {titles[document]}", states))
    table.add_section()
    table.add_row(*_row("all", total))
    console.print(table)


def _row(name: str, states: Mapping[State, int]) -> list[str | Text]:
    bar = Text()
    lines = sum(states.values())
    done = 0
    drawn = 0
    for state, colour in _COLOURS.items():
        done += states[state]
        cells = round(done / lines * _BAR_CELLS) - drawn
        drawn += cells
        bar.append(_BLOCKS[state] * cells, colour)
    return [name, *(str(states[state]) for state in _COLOURS), bar]


def _print_lines(console: Console, lines: Sequence[Line]) -> None:
    for line in lines:
        colour = _COLOURS[line.state]
        console.print(
            Text.assemble((f"{line.state:6} ", colour), (f"{line.id:6} ", "bold"), line.text)
        )
        for test in line.tests:
            console.print(Text(f"              {test}", style="dim"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
