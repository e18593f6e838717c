"""What an examination tells."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `hint` says what to do unless all is well."""

    verdict: Verdict
    what: str
    found: str
    hint: str = ""
