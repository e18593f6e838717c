"""The API's I/O: uvicorn on a Unix socket."""

import asyncio
import grp
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nervus.api.settings import ApiSettings
from nervus.bus import Context, plane_settings
from nervus.errors import NervusError, UsageError

if TYPE_CHECKING:
    from nervus.api.server import Server

MODE: Final = 0o660
_BACKLOG: Final = 64


async def run(context: Context) -> None:
    """Run until cancelled; as `serve`. Who runs the service owns the installation."""
    await serve(context, os.getuid())


async def serve(context: Context, owner: int) -> None:
    """Serve the API of an installation that a user id owns, until cancelled.

    It is ready once it listens: who connects before the server is loaded waits for that.

    Raises:
        NervusError: The socket cannot be made, or the server ended.
    """
    settings = plane_settings(context, "api", ApiSettings)
    path = settings.path(context.run)
    with listening(path, settings.group) as listener:
        context.ready()
        server = await asyncio.to_thread(_load, context, settings, owner)
        try:
            await server.serve(sockets=[listener])
        finally:
            # Cancelled, it has not closed what it opened.
            if server.started:
                server.force_exit = True
                await server.shutdown(sockets=[listener])
    raise NervusError("the API ended without being told to", where=str(path))


def _load(context: Context, settings: ApiSettings, owner: int) -> "Server":
    # FastAPI takes as long to load as all planes together, which the system need not wait for.
    from nervus.api.server import Server  # noqa: PLC0415

    return Server.of(context, settings, owner)


@contextmanager
def listening(path: Path, group: str | None) -> Iterator[socket.socket]:
    """A listening Unix socket, mode 0660 before anybody can connect; gone at the end.

    Raises:
        UsageError: Another program listens there, the group does not exist, or it cannot be made.
    """
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~MODE)
    try:
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        path.chmod(MODE)
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - its only form
    except KeyError as error:
        listener.close()
        path.unlink(missing_ok=True)
        raise UsageError(
            f"there is no group {group!r}",
            where="[api] in nervus.toml",
            hint=f"name another as group, or make it: sudo groupadd {group}",
        ) from error
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen there ({error.strerror or error})",
            where=str(path),
            hint="name another path as socket under [api] in nervus.toml",
        ) from error
    finally:
        os.umask(before)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove what a killed process left."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except OSError:
            # Nobody listens; what else stands there is not ours to remove.
            if path.is_socket():
                path.unlink()
            return
    raise UsageError(
        "another program listens there",
        where=str(path),
        hint="end it, or name another path as socket under [api] in nervus.toml",
    )
