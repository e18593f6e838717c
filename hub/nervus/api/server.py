"""The HTTP server around the application."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

import uvicorn

from nervus.api.application import application
from nervus.api.peers import PeerProtocol
from nervus.api.settings import ApiSettings
from nervus.bus import Context

_REQUEST_LIMIT: Final = 16_384


class Server(uvicorn.Server):
    """uvicorn that leaves signals to the process it runs in."""

    @classmethod
    def of(cls, context: Context, settings: ApiSettings, owner: int) -> Self:
        """Return a server of the API of an installation that a user id owns."""
        config = uvicorn.Config(
            application(context, settings, owner),
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.connection_limit,
            h11_max_incomplete_event_size=_REQUEST_LIMIT,
        )
        return cls(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Whoever runs the services handles signals, and ends this by cancellation."""
        yield
