"""A thin client of the API: a request, and what came of it as plain values."""

import json
import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from nervus.errors import NervusError

_TIMEOUT_S: Final = 30.0


class ApiError(NervusError):
    """The API refused a request, or could not answer it; `problem` is what it said."""

    def __init__(self, problem: Mapping[str, Any], where: str) -> None:
        super().__init__(
            str(problem.get("detail", "no answer")), where=where, hint=problem.get("hint") or ""
        )
        self.problem = dict(problem)


class ApiClient:
    """Asks the API at a Unix socket; one connection for each request.

    Args:
        path: The socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def answers(self) -> bool:
        """Whether something listens there."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def get(self, route: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the API answers to a GET; fields of `query` that are None are left out.

        Raises:
            ApiError: It refused, or did not answer.
        """
        given = {name: value for name, value in query.items() if value is not None}
        connection = _Connection(self.path)
        try:
            connection.request("GET", f"{route}?{urlencode(given)}")
            response = connection.getresponse()
            content: dict[str, Any] = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise ApiError({"detail": f"no answer ({error})"}, str(self.path)) from error
        finally:
            connection.close()
        if response.status >= 400:  # noqa: PLR2004 - where errors begin
            raise ApiError(content, str(self.path))
        return content


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
