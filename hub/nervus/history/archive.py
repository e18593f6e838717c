"""`history.get`: any stretch of what was recorded, in order, strictly inside its bounds."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nervus.errors import NervusError, UsageError, first_refusal
from nervus.wire.registries import channels
from nervus.wire.topics import TOPICS

PAGE_LIMIT: Final = 10_000

_COLUMNS: Final = "number, scope_level, scope, sequence, recorded_ms, topic, message"
_CONTRACTS: Final = frozenset(spec.contract for spec in TOPICS)
_OPERATIONS: Final = 10_000
"""Of SQLite, between two looks at the clock: some tenths of a millisecond."""


class ArchiveError(NervusError):
    """The archive cannot be read."""


class ArchiveTimeoutError(ArchiveError):
    """Reading took longer than it may."""


class QueryError(UsageError):
    """What is asked for is not possible: names the field and the rule."""


class Query(BaseModel):
    """What to return, all conditions together.

    Args:
        from_ms: Recorded at or after, unix milliseconds.
        to_ms: Recorded before.
        scope_level: Of this level …
        scope: … and this scope.
        from_sequence: Of that scope, from this sequence on …
        to_sequence: … and before this one.
        plane: Said on this plane: the first level of the topic.
        channel: Of this channel; what has no channel is left out.
        contract: Of this contract.
        after: Recorded after this number: how the next page is asked for.
        limit: Messages at most, 1 to 10,000.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_ms: int = Field(default=0, ge=0, le=2**53)
    to_ms: int = Field(default=2**53, ge=0, le=2**53)
    scope_level: Literal["device", "room", "house", "user_session"] | None = None
    scope: str | None = Field(default=None, min_length=1, max_length=64)
    from_sequence: int | None = Field(default=None, ge=1, le=2**53)
    to_sequence: int | None = Field(default=None, ge=1, le=2**53)
    plane: Literal["bs", "th", "D", "C", "E"] | None = None
    channel: str | None = None
    contract: str | None = None
    after: int = Field(default=0, ge=0, le=2**53)
    limit: int = Field(default=1_000, ge=1, le=PAGE_LIMIT)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.from_ms >= self.to_ms:
            raise ValueError("the range ends before it begins")
        if self.from_sequence is not None or self.to_sequence is not None:
            if self.scope_level is None or self.scope is None:
                raise ValueError("a sequence is one scope's: name scope_level and scope, too")
            if (self.from_sequence or 0) >= (self.to_sequence or 2**54):
                raise ValueError("the range of sequences ends before it begins")
        for name, known in (("channel", channels()), ("contract", _CONTRACTS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                listed = ", ".join(sorted(known))
                raise ValueError(f"there is no {name} {value[:64]!r}; one of {listed}")
        return self

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Return a query, checked.

        Raises:
            QueryError: A field breaks a rule, or names a channel or contract that does not exist.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            keys, rule = first_refusal(error)
            raise QueryError(": ".join((*keys, rule)), hint="correct it") from error


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded message; `message` is as it was on the wire, with meta.sequence."""

    number: int
    scope_level: str
    scope: str
    sequence: int
    recorded_ms: int
    topic: str
    message: dict[str, Any]


class Archive:
    """A reader's view of `history.db`, also while history writes it; a context manager."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path, *, deadline_s: float | None = None) -> Self:
        """Open for reading; after `deadline_s` reading is given up.

        Raises:
            ArchiveError: It is not there or cannot be opened.
        """
        if not path.is_file():
            raise ArchiveError(
                "nothing was recorded yet",
                where=str(path),
                hint="it appears once the service history has run",
            )
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        if deadline_s is not None:
            end_s = time.monotonic() + deadline_s
            connection.set_progress_handler(lambda: time.monotonic() > end_s, _OPERATIONS)
        return cls(connection, path)

    def get(self, query: Query, contracts: AbstractSet[str] | None = None) -> list[Recorded]:
        """Return a page of what a query asks for, in the order it was recorded.

        Args:
            query: What is asked for.
            contracts: Of these alone, whatever is asked for; None for all.

        Raises:
            ArchiveTimeoutError: It took too long.
            ArchiveError: It cannot be read.
        """
        conditions = [text for name, text in _CONDITIONS if getattr(query, name) is not None]
        values: dict[str, Any] = query.model_dump()
        if contracts is not None:
            names = {f"contract_{n}": name for n, name in enumerate(sorted(contracts))}
            conditions.append(f"contract IN ({', '.join(f':{name}' for name in names)})")
            values |= names
        statement = (
            f"SELECT {_COLUMNS} FROM messages WHERE {' AND '.join(conditions)}"  # noqa: S608 - names of our own
            " ORDER BY number LIMIT :limit"
        )
        try:
            rows = self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
                raise ArchiveTimeoutError(
                    "reading took too long",
                    where=str(self._path),
                    hint="name a shorter range, or a scope",
                ) from error
            raise ArchiveError(f"cannot be read ({error})", where=str(self._path)) from error
        return [_recorded(*row) for row in rows]

    def pages(self, query: Query) -> Iterator[Recorded]:
        """Yield everything a query asks for, page by page, whatever its limit."""
        return every(self.get, query)

    def last_number(self) -> int:
        """Return the number of the newest message, 0 when there is none.

        Raises:
            ArchiveError: It cannot be read.
        """
        try:
            (number,) = self._connection.execute("SELECT MAX(number) FROM messages").fetchone()
        except sqlite3.Error as error:
            raise ArchiveError(f"cannot be read ({error})", where=str(self._path)) from error
        return number or 0

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def every(get: Callable[[Query], list[Recorded]], query: Query) -> Iterator[Recorded]:
    """Yield everything a query asks for, from page to page of `get`."""
    while page := get(query):
        yield from page
        query = query.model_copy(update={"after": page[-1].number})


_CONDITIONS: Final = (
    ("after", "number > :after"),
    ("from_ms", "recorded_ms >= :from_ms"),
    ("to_ms", "recorded_ms < :to_ms"),
    ("scope_level", "scope_level = :scope_level"),
    ("scope", "scope = :scope"),
    ("from_sequence", "sequence >= :from_sequence"),
    ("to_sequence", "sequence < :to_sequence"),
    # 0 follows / in ASCII: everything that begins with the plane's level.
    ("plane", "topic >= '/' || :plane || '/' AND topic < '/' || :plane || '0'"),
    ("channel", "channel = :channel"),
    ("contract", "contract = :contract"),
)
"""Of each field of a query that is given."""


def _recorded(  # noqa: PLR0917 - a row of the table
    number: int,
    scope_level: str,
    scope: str,
    sequence: int,
    recorded_ms: int,
    topic: str,
    text: str,
) -> Recorded:
    message = json.loads(text)
    message["meta"]["sequence"] = sequence
    return Recorded(number, scope_level, scope, sequence, recorded_ms, topic, message)
