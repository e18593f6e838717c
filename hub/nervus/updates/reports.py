"""What a board's report means for its update."""

from dataclasses import dataclass
from typing import Final

from nervus.updates.pack import version_number
from nervus.updates.record import State
from nervus.wire.contracts import UpdateReportPayload


@dataclass(frozen=True, slots=True)
class Meaning:
    """Where a report leads.

    Attributes:
        state: The state the board is in, None when it did not take the offer for now.
        code, error: Why, where that needs a reason.
        counts: Whether it is a failure, of which a board has a few and no more.
    """

    state: State | None
    code: str = ""
    error: str = ""
    counts: bool = False


def meaning(report: UpdateReportPayload, running: str, state: State) -> Meaning:
    """What a report says of a board in `state`; `running` is what it last said it runs, or ""."""
    code = report.error.code if report.error else ""
    error = report.error.message if report.error else ""
    retriable = report.error is not None and report.error.kind == "retriable"
    match report.stage, report.status:
        case "rollback", _:
            return Meaning("rolled_back", code, error)
        case "probation", "succeeded":
            return Meaning("confirmed")
        case ("probation", _) | ("install", "succeeded"):
            return Meaning("trial")
        case "offer", "refused":
            found = _refused(code, error, retriable=retriable, runs=running == report.version)
            return found or _not_newer(report.version, running, state, error)
        case _, "failed" | "refused":
            # A torn offer is whole when it comes again.
            passes = retriable or code in _PASSING
            return Meaning(None if passes else "failed", code, error, counts=passes)
        case _:
            return Meaning("pulling")


def _refused(code: str, error: str, *, retriable: bool, runs: bool) -> Meaning | None:
    if code == "not_newer":
        return None
    if code == "taken_back":
        return Meaning("rolled_back", code, error)
    if code == "on_trial":
        return Meaning("trial" if runs else None, "" if runs else code, "" if runs else error)
    return Meaning(None if retriable else "refused", code, error, counts=retriable)


def _not_newer(version: str, running: str, state: State, error: str) -> Meaning:
    """The answer of a board that runs this version or a higher one, whatever was lost before."""
    if running == version:
        return Meaning("confirmed")
    try:
        if version_number(running) > version_number(version):
            return Meaning("refused", "not_newer", error)
    except ValueError:
        pass  # what it was flashed with has another kind of version
    # What it last said of itself is older than this. A trial can only have ended well; of others
    # the next birth tells.
    return Meaning("confirmed") if state == "trial" else Meaning(None, "not_newer", error)


_PASSING: Final = frozenset({"torn"})
