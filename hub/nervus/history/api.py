"""`history.get` as a route: what was recorded, page by page."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Query as Parameters
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from nervus.history.archive import Archive, Query
from nervus.wire import topics

PAGE_LIMIT: Final = 1_000

Readable = Callable[[Request], frozenset[str] | None]
"""Which contracts whoever asks may read; None for all. Raises where it is none at all."""


class HistoryQuery(Query):
    """What to return, all conditions together; messages come in the order they were recorded."""

    limit: int = Field(default=500, ge=1, le=PAGE_LIMIT)


class HistoryRecord(BaseModel):
    """A recorded message, as it was on the wire, with the sequence it got in its scope."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    scope_level: str
    scope: str
    sequence: int
    recorded_ms: int
    topic: str
    message: dict[str, Any]


class HistoryMeta(BaseModel):
    """About a page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    principal: str = Field(description="As whom you asked.")
    produced_ms: int
    next: int | None = Field(description="`after` of the next page; null when this is the last.")


class HistoryPage(BaseModel):
    """One page of history."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    meta: HistoryMeta
    payload: list[HistoryRecord]


def readable(role: str) -> frozenset[str]:
    """The contracts of history that a role may read: of topics it may subscribe to itself."""
    return frozenset(
        spec.contract
        for spec in topics.TOPICS
        if "history" in spec.subscribe and role in spec.subscribe
    )


def routes(
    path: Path,
    *,
    deadline_s: float,
    contracts: Readable,
    problems: dict[int | str, dict[str, Any]],
) -> APIRouter:
    """Return the published routes of history.

    Args:
        path: Of `history.db`.
        deadline_s: How long one request may read.
        contracts: What whoever asks may read.
        problems: What the document says of errors.
    """
    router = APIRouter(tags=["history"])

    # A plain function: it reads a file, and runs in a thread of its own.
    @router.get(
        "/history",
        operation_id="history.get",
        response_model=HistoryPage,
        responses=problems,
        summary="What went over the core plane",
    )
    def get(
        request: Request,
        query: Annotated[HistoryQuery, Parameters()],
        may: Annotated[frozenset[str] | None, Depends(contracts)],
    ) -> Response:
        with Archive.open(path, deadline_s=deadline_s) as archive:
            found = archive.get(query, may)
        meta = {
            "source": "history",
            "principal": request.state.principal.name,
            "produced_ms": time.time_ns() // 1_000_000,
            "next": found[-1].number if len(found) == query.limit else None,
        }
        # Made here and not validated again: a page has up to 1,000 messages.
        return JSONResponse({"meta": meta, "payload": [asdict(one) for one in found]})

    return router
