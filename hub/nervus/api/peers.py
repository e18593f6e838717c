"""Who asks: the user behind the other end of the socket, and what its identity may read."""

import socket
import struct
from asyncio import Transport
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from nervus.api.problems import problem
from nervus.api.settings import ApiSettings

OWNER: Final = "operator"
"""As whom the user asks who owns the installation (S3-49)."""

_CREDENTIALS: Final = struct.Struct("3i")
_UID: Final = "uid"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks; `role` is None for the owner, who may read the store itself."""

    name: str
    role: str | None


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that knows the user at the other end (SO_PEERCRED), as told by the kernel.

    The ASGI scope's `client` is ("uid", user id): nothing in a request can claim another.
    """

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Ask the kernel before the first byte is read."""
        super().connection_made(transport)
        peer: socket.socket = transport.get_extra_info("socket")
        data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(data)
        self.client = (_UID, uid)


class Admission:
    """Lets in who is known, as its principal, and turns away everybody else; ASGI middleware.

    Args:
        app: What is behind it; it finds the principal in scope["state"]["principal"].
        owner: User id of the installation's owner.
        settings: As which identity other users may ask.
        roles: Roles of the identities that stand now, by name.
    """

    def __init__(
        self,
        app: Application,
        owner: int,
        settings: ApiSettings,
        roles: Callable[[], Mapping[str, str]],
    ) -> None:
        self._app = app
        self._owner = owner
        self._settings = settings
        self._roles = roles

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"the API speaks HTTP alone, not {scope['type']}")
        principal = self.principal(scope.get("client"))
        if principal is None:
            answer = problem(403, "not_allowed", "this user may ask nothing: see [api] principals")
            await answer(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)

    def principal(self, client: object) -> Principal | None:
        """Who a user is here; None for nobody."""
        match client:
            case ("uid", int(uid)):
                pass
            case _:
                return None
        if uid == self._owner:
            return Principal(OWNER, None)
        name = self._settings.principals.get(str(uid))
        role = None if name is None else self._roles().get(name)
        return None if name is None or role is None else Principal(name, role)
