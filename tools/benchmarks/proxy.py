"""A TCP proxy before a broker that can swallow everything without closing anything."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK: Final = 4_096


class Proxy:
    """Passes bytes both ways, or swallows them; counts connections and what it swallowed."""

    def __init__(self, host: str, port: int) -> None:
        self.connections = 0
        self.swallowed = 0
        self.port = 0
        self._target = (host, port)
        self._open = True
        self._tasks: set[asyncio.Task[None]] = set()

    def swallow(self) -> None:
        """Pass nothing on from now."""
        self._open = False

    def restore(self) -> None:
        """Pass everything on again; a connection with a gap in its stream ends."""
        if not self._open:
            for task in self._tasks:
                task.cancel()
        self._open = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen on a free loopback port until left."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            try:
                while data := await source.read(_CHUNK):
                    if not self._open:
                        self.swallowed += len(data)
                        continue
                    sink.write(data)
                    await sink.drain()
            finally:
                sink.close()
