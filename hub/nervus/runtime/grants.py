"""Which scope each board was granted, and each identity's role, kept at hand."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from nervus.runtime.identity import Authority
from nervus.runtime.state import StateFolder

LOOK_EVERY_S: Final = 0.2


class Grants:
    """Boards' scopes and everybody's role, from the list of identities.

    The guard asks for every message, so the file is looked at now and then, and read again only
    when it has changed.

    Args:
        state: Whose list.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, state: StateFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._authority = Authority(state)
        self._file = state.registry_file
        self._clock = clock
        self._look_at = float("-inf")
        self._seen: tuple[int, int] | None = None
        self._scopes: dict[str, str] = {}
        self._roles: dict[str, str] = {}

    def grants(self) -> Mapping[str, str]:
        """Return `scope_level/scope` by board.

        Raises:
            NervusError: The list is damaged.
        """
        self._look()
        return self._scopes

    def roles(self) -> Mapping[str, str]:
        """Return the role by identity; who was revoked has none.

        Raises:
            NervusError: The list is damaged.
        """
        self._look()
        return self._roles

    def _look(self) -> None:
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._refresh()

    def _refresh(self) -> None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self._scopes, self._roles = {}, {}
            return
        # Written by rename, so a change is always another inode; one may be reused, hence the time.
        seen = (status.st_ino, status.st_mtime_ns)
        if seen != self._seen:
            identities = self._authority.identities()
            self._scopes = {one.name: one.scope for one in identities if one.scope is not None}
            self._roles = {one.name: one.role for one in identities if one.role is not None}
            self._seen = seen
