"""The base of every error a person is meant to read."""

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

_RULES: Final = {
    "extra_forbidden": "there is no such setting",
    "missing": "this setting is required",
}


class NervusError(Exception):
    """An expected failure: says what is wrong, where, and what to do about it.

    Args:
        what: What went wrong, one sentence without a full stop.
        where: The file, line, address or name it concerns; empty when `what` says it.
        hint: What the reader can do about it; empty only when nothing can be done.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text


class UsageError(NervusError):
    """The caller or the configuration asks for something that is not possible."""

    exit_code = 2


def first_refusal(error: "ValidationError") -> tuple[list[str], str]:
    """Of all that a model refused: the keys that lead to the first, and the rule that it breaks.

    A misspelt key also leaves the right one missing; the misspelling is what to correct.
    """
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    rule = _RULES.get(first["type"]) or first["msg"].removeprefix("Value error, ").rstrip(".")
    # Not all of it in small letters: it may name values.
    return [str(part) for part in first["loc"]], rule[:1].lower() + rule[1:]
