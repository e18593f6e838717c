"""The application: every plane's published routes, behind one admission."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi

from nervus.about import NAME, TAGLINE, VERSION
from nervus.api.peers import Admission, Principal
from nervus.api.problems import ForbiddenError, Problem, documented, install
from nervus.api.settings import ApiSettings
from nervus.bus import Context
from nervus.history.api import readable, routes


def application(context: Context, settings: ApiSettings, owner: int) -> Admission:
    """Return the API of an installation that a user id owns."""
    # Their pages load scripts from elsewhere; the document itself is at /openapi.json.
    app = FastAPI(title=NAME, summary=TAGLINE, version=VERSION, docs_url=None, redoc_url=None)
    install(app)
    app.include_router(
        routes(
            context.data / "history.db",
            deadline_s=settings.deadline_s,
            contracts=_contracts,
            problems=documented(403, 422, 503),
        ),
        prefix="/v1",
    )
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # as FastAPI says to
    return Admission(app, owner, settings, context.roles)


def _contracts(request: Request) -> frozenset[str] | None:
    """What the principal may read of history: what its role may subscribe to; None for all."""
    principal: Principal = request.state.principal
    if principal.role is None:
        return None
    contracts = readable(principal.role)
    if not contracts:
        raise ForbiddenError(f"{principal.name} is {principal.role}: history is not for that role")
    return contracts


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= problem.pop("$defs", {}) | {"Problem": problem}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
