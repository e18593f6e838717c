"""Holds a coverage report against the floors: 80 % of everything, all of cores and guard.

The cores and the guard are pure state machines: a branch no test takes is a branch nobody knows.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

TOTAL_FLOOR = 80.0
"""Percent of lines and branches of the whole hub (S4-86)."""

FILE_FLOORS = (
    ("hub/nervus/*/core.py", 100.0),
    ("hub/nervus/*/guard.py", 100.0),
    *(
        (f"hub/nervus/wire/{name}.py", 100.0)
        for name in (
            "arqon",
            "bundles",
            "cbor",
            "decode",
            "dotted",
            "effects",
            "encodings",
            "gateways",
            "mint",
            "narrow",
            "octets",
            "protobuf",
            "rejects",
            "topic",
            "topic_parser",
            "usual",
        )
    ),
    ("hub/nervus/brainstem/*.py", 100.0),
    *(
        (f"hub/nervus/thalamus/{name}.py", 100.0)
        for name in (
            "admission",
            "contest",
            "frames",
            "gate",
            "gatekeeper",
            "gates",
            "lease",
            "proposals",
            "raw",
            "relay",
            "stream",
            "summary",
        )
    ),
)
"""Percent of lines and branches of each file that matches."""


@dataclass(frozen=True)
class Shortfall:
    """Something covered less than its floor; percents of lines and branches together."""

    what: str
    covered: float
    floor: float
    missing: str


def shortfalls(report: dict[str, Any]) -> list[Shortfall]:
    """What lies below its floor in a report of ``coverage json``, the total first.

    Raises:
        KeyError: the report is not one of ``coverage json`` with branches measured.
    """
    found = []
    total = report["totals"]["percent_covered"]
    if total < TOTAL_FLOOR:
        found.append(Shortfall("total", total, TOTAL_FLOOR, ""))
    for name, entry in sorted(report["files"].items()):
        floor = max((percent for glob, percent in FILE_FLOORS if fnmatch(name, glob)), default=0.0)
        covered = entry["summary"]["percent_covered"]
        if covered < floor:
            found.append(Shortfall(name, covered, floor, _missing(entry)))
    return found


def main(arguments: list[str]) -> int:
    """Prints the least covered files and every shortfall; status 1 when there is one."""
    report = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    by_cover = sorted(
        (entry["summary"]["percent_covered"], name) for name, entry in report["files"].items()
    )
    for covered, name in by_cover[:8]:
        print(f"{covered:6.1f} %  {name}")
    print(f"{report['totals']['percent_covered']:6.1f} %  of {len(by_cover)} files")
    found = shortfalls(report)
    for short in found:
        print(
            f"{short.what}: {short.covered:.1f} % covered, floor {short.floor:.0f} %"
            + (f"; no test reaches {short.missing}" if short.missing else ""),
            file=sys.stderr,
        )
    return 1 if found else 0


def _missing(entry: dict[str, Any]) -> str:
    lines = [f"line {line}" for line in entry["missing_lines"]]
    branches = [f"branch {source} → {target}" for source, target in entry["missing_branches"]]
    return ", ".join(lines + branches)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
