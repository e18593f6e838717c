"""Errors of the API: problem details (RFC 9457) with the fields every error of Nervus has."""

from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from nervus.errors import NervusError, UsageError

MEDIA_TYPE: Final = "application/problem+json"
_RETRIABLE: Final = frozenset({408, 429, 500, 502, 503, 504})
_CATEGORIES: Final[dict[int, str]] = {
    403: "policy",
    404: "not_found",
    405: "validation",
    409: "conflict",
    422: "validation",
}
_CODES: Final[dict[int, str]] = {404: "not_found", 405: "method_not_allowed"}


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: str = Field(description="The parameter.")
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """What went wrong: RFC 9457, with code, kind and category as all errors of Nervus have them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = Field(description="urn:nervus:problem: and the code.")
    title: str
    status: int
    detail: str
    code: str
    kind: Literal["terminal", "retriable"]
    category: Literal["conflict", "dependency", "not_found", "policy", "validation"]
    hint: str | None = None
    errors: list[Fault] | None = Field(default=None, description="Each fault of the request.")


class ForbiddenError(NervusError):
    """The principal may not have what it asks for."""


def problem(status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    """The answer that tells of a problem."""
    content = {
        "type": f"urn:nervus:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "kind": "retriable" if status in _RETRIABLE else "terminal",
        "category": _CATEGORIES.get(status, "dependency" if status in _RETRIABLE else "validation"),
    }
    content |= {name: value for name, value in more.items() if value}
    return JSONResponse(content, status, media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's OpenAPI says of the problems it answers with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Make every error of an application a problem."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(NervusError, _expected)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is installed for
    faults = [
        Fault(
            where=".".join(str(part) for part in one["loc"][1:]) or "query",
            detail=one["msg"].removeprefix("Value error, "),
        ).model_dump()
        for one in error.errors()
    ]
    first = f"{faults[0]['where']}: {faults[0]['detail']}"
    return problem(422, "request_invalid", first, errors=faults)


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is installed for
    code = _CODES.get(error.status_code, "request_refused")
    answer = problem(error.status_code, code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _expected(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NervusError)  # noqa: S101 - what it is installed for
    if isinstance(error, UsageError):
        return problem(422, "request_invalid", error.what, hint=error.hint)
    if isinstance(error, ForbiddenError):
        return problem(403, "not_allowed", error.what, hint=error.hint)
    return problem(503, "unavailable", error.what, hint=error.hint)
