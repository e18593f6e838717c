"""`history.get`: any stretch of what was recorded, in order, strictly inside its bounds."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nervus.errors import NervusError, UsageError
from nervus.wire.contracts import CONTRACTS
from nervus.wire.registries import channels

PAGE_LIMIT: Final = 10_000

_COLUMNS: Final = "number, scope_level, scope, sequence, recorded_ms, topic, message"


class ArchiveError(NervusError):
    """The archive cannot be read."""


class QueryError(UsageError):
    """What is asked for is not possible: names the field and the rule."""


class Query(BaseModel):
    """What to return, all conditions together.

    Args:
        from_ms: Recorded at or after, unix milliseconds.
        to_ms: Recorded before.
        scope_level: Of this level …
        scope: … and this scope.
        channel: Of this channel; what has no channel is left out.
        contract: Of this contract.
        after: Recorded after this number: how the next page is asked for.
        limit: Messages at most, 1 to 10,000.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_ms: int = Field(default=0, ge=0)
    to_ms: int = Field(default=2**53, ge=0)
    scope_level: str | None = None
    scope: str | None = None
    channel: str | None = None
    contract: str | None = None
    after: int = Field(default=0, ge=0)
    limit: int = Field(default=1_000, ge=1, le=PAGE_LIMIT)

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Return a query, checked.

        Raises:
            QueryError: A field breaks a rule, or names a channel or contract that does not exist.
        """
        try:
            query = cls(**fields)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise QueryError(f"{name}: {first['msg'].lower()}", hint="correct it") from error
        if query.from_ms >= query.to_ms:
            raise QueryError("the range ends before it begins", hint="exchange from and to")
        for name, known in (("channel", channels()), ("contract", frozenset(CONTRACTS))):
            value = getattr(query, name)
            if value is not None and value not in known:
                raise QueryError(
                    f"there is no {name} {value!r}", hint=f"one of {', '.join(sorted(known))}"
                )
        return query


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
    def open(cls, path: Path) -> Self:
        """Open for reading.

        Raises:
            ArchiveError: It is not there or cannot be opened.
        """
        if not path.is_file():
            raise ArchiveError(
                "nothing was recorded yet",
                where=str(path),
                hint="it appears once the service history has run",
            )
        return cls(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True), path)

    def get(self, query: Query) -> list[Recorded]:
        """Return a page of what a query asks for, in the order it was recorded.

        Raises:
            ArchiveError: It cannot be read.
        """
        conditions = ["number > :after", "recorded_ms >= :from_ms", "recorded_ms < :to_ms"]
        conditions += [
            f"{name} = :{name}"
            for name in ("scope_level", "scope", "channel", "contract")
            if getattr(query, name) is not None
        ]
        statement = (
            f"SELECT {_COLUMNS} FROM messages WHERE {' AND '.join(conditions)}"  # noqa: S608 - names of our own
            " ORDER BY number LIMIT :limit"
        )
        try:
            rows = self._connection.execute(statement, query.model_dump()).fetchall()
        except sqlite3.Error as error:
            raise ArchiveError(f"cannot be read ({error})", where=str(self._path)) from error
        return [_recorded(*row) for row in rows]

    def pages(self, query: Query) -> Iterator[Recorded]:
        """Yield everything a query asks for, page by page, whatever its limit."""
        while page := self.get(query):
            yield from page
            query = query.model_copy(update={"after": page[-1].number})

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
