"""The policy file: who may invoke what, on which targets, within which limits."""

import re
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nervus.errors import UsageError
from nervus.policy.raw import RAW_LIMIT, RawRule
from nervus.wire.contracts import Scalar

TEMPLATE: Final = """\
# What may be commanded, by whom. Nothing is allowed that no rule allows.
#
# A rule selects requests by principal (the identity that asks), capability and target
# ("device/actuator"). A name may end in *, and * alone is every name. Limits say what an argument
# may be: max, min, one_of. An allow rule allows what it selects within its limits. A deny rule
# denies what it selects; with limits, only what lies beyond them. A deny always wins.
#
# [[rule]]
# id = "operators-switch-lamps"
# effect = "allow"
# principals = ["operator"]
# capabilities = ["actuator.set"]
# targets = ["*/lamp"]
# limits = { value = { min = 0, max = 1 } }
# reason = "Lamps may be switched and dimmed by people."

# Measurements stay on the spinal broker. A [[raw]] table lets those of one sensor type in one
# scope rise for a while, through thalamus's gates like everything else. Everything here is needed:
# how many a second, until when (see [policy] raw_rate_limit and raw_longest_ms), and why.
#
# [[raw]]
# id = "kitchen-noise"
# topic_prefix = "/sc/aff/event/room/kitchen/sensor/sound_level"
# rate = 20
# expires = 2026-11-22T08:00:00Z
# reason = "Looking for the dishwasher's rattle."

version = 1
"""
"""What a new installation's policy.toml says: nobody may do anything."""

RULE_LIMIT: Final = 1_000
_UNTIL_RIGHT: Final = "nothing is allowed until it is right"
_TABLES: Final = ("rule", "raw")


class PolicyFileError(UsageError):
    """The policy file is missing or wrong; names the file, the line and the rule."""


def _pattern(minimum: int = 1) -> Any:
    # A star stands at the end of a level only: matching is a comparison, never a search.
    return Field(min_length=minimum, max_length=64, pattern=r"^(\*|[^*/]+\*?)$")


_Name = Annotated[str, _pattern()]
_Target = Annotated[str, Field(max_length=129, pattern=r"^(\*|[^*/]+\*?)/(\*|[^*/]+\*?)$")]


class Limit(BaseModel):
    """What an argument may be; every bound that is given holds. A missing argument is beyond."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    max: int | float | None = None
    min: int | float | None = None
    one_of: Annotated[tuple[Scalar, ...], Field(min_length=1, strict=False)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.max is None and self.min is None and self.one_of is None:
            raise ValueError("give at least one of max, min, one_of")
        return self

    def holds(self, value: Scalar | None) -> bool:
        """Whether a value lies within; bounds hold for numbers only, and true is not 1."""
        if self.one_of is not None and not any(
            value == each and isinstance(value, bool) == isinstance(each, bool)
            for each in self.one_of
        ):
            return False
        if self.max is None and self.min is None:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.max is None or value <= self.max) and (self.min is None or value >= self.min)


class Rule(BaseModel):
    """One rule: what it selects, and what it says about it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_:-]+$")]
    effect: Literal["allow", "deny"]
    principals: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=64)]
    capabilities: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=64)]
    targets: Annotated[tuple[_Target, ...], Field(min_length=1, max_length=64)]
    limits: Annotated[dict[str, Limit], Field(max_length=16)] = Field(default_factory=dict)
    reason: Annotated[str, Field(max_length=200)] = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=1, strict=True)] = 1
    rule: Annotated[tuple[Rule, ...], Field(max_length=RULE_LIMIT)] = ()
    raw: Annotated[tuple[RawRule, ...], Field(max_length=RAW_LIMIT)] = ()


@dataclass(frozen=True, slots=True)
class Regime:
    """The rules in force, and what raw they ask for; `id` is its file's version and hash."""

    id: str
    rules: tuple[Rule, ...]
    raw: tuple[RawRule, ...] = ()


def load(path: Path) -> Regime:
    """Read the policy file.

    Raises:
        PolicyFileError: It cannot be read, is not TOML, or breaks a rule.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PolicyFileError(
            f"cannot be read ({error.strerror})",
            where=str(path),
            hint="nothing is allowed until it is there",
        ) from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> Regime:
    """Read a policy from bytes; `name` is what errors call the file. Raises PolicyFileError."""
    try:
        text = data.decode()
        values = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        stated = re.search(r"at line (\d+)", str(error))
        line = stated[1] if stated else data.count(b"\n") + 1
        raise PolicyFileError(
            f"not valid TOML: {error}", where=f"{name}:{line}", hint=_UNTIL_RIGHT
        ) from error
    try:
        file = _File.model_validate(values)
    except ValidationError as error:
        raise _broken_rule(text, name, values, error) from error
    _refuse_same_ids("rule", file.rule, text, name)
    _refuse_same_ids("raw", file.raw, text, name)
    return Regime(f"{file.version}:{sha256(data).hexdigest()[:16]}", file.rule, file.raw)


def _broken_rule(
    text: str, name: str, values: dict[str, Any], error: ValidationError
) -> PolicyFileError:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    if len(path) < 2 or path[0] not in _TABLES:  # noqa: PLR2004 - rule, its number
        line = _line_of(text.splitlines(), 0, path[:1])
        return PolicyFileError(
            f"{path[0]}: {first['msg']}", where=f"{name}:{line}", hint=_UNTIL_RIGHT
        )
    kind, number = path[0], int(path[1])
    rule = values[kind][number]
    title = rule.get("id") if isinstance(rule, dict) else None
    line = _line_of(text.splitlines(), _rule_lines(kind, text)[number], path[2:])
    return PolicyFileError(
        f"{kind} {title or number + 1}: {'.'.join(path[2:]) or kind}: {first['msg']}",
        where=f"{name}:{line}",
        hint=_UNTIL_RIGHT,
    )


def _refuse_same_ids(kind: str, rules: tuple[Rule | RawRule, ...], text: str, name: str) -> None:
    seen: set[str] = set()
    for number, rule in enumerate(rules):
        if rule.id in seen:
            raise PolicyFileError(
                f"{kind} {rule.id}: another {kind} has this id",
                where=f"{name}:{_rule_lines(kind, text)[number] + 1}",
                hint=f"give it another id: {_UNTIL_RIGHT}",
            )
        seen.add(rule.id)


def _rule_lines(kind: str, text: str) -> list[int]:
    """Where each rule begins, counted from 0; rules written inline begin at the file's start."""
    lines = text.splitlines()
    found = [n for n, line in enumerate(lines) if re.match(rf"\s*\[\[\s*{kind}\s*\]\]", line)]
    return found or [0] * RULE_LIMIT


def _line_of(lines: list[str], start: int, keys: list[str]) -> int:
    """The line, counted from 1, where the first of `keys` stands at or after line `start`."""
    for number in range(start, len(lines)):
        if number > start and re.match(r"\s*\[\[", lines[number]):
            break
        if keys and re.match(rf"\s*(\[.*\b)?{re.escape(keys[0])}\b", lines[number]):
            return number + 1
    return start + 1
