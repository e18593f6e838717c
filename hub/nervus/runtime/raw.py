"""Which measurements may rise: written by policy, read by the broker's permissions and thalamus."""

import logging
import time
from collections.abc import Sequence
from typing import Final

from pydantic import TypeAdapter, ValidationError

from nervus.runtime.files import write_private
from nervus.runtime.state import StateFolder
from nervus.wire.raw import RawGrant

IDENTITY: Final = "raw"
"""Who reads them at the spinal broker."""

_LOG: Final = logging.getLogger(__name__)
_GRANTS: Final = TypeAdapter(tuple[RawGrant, ...])


def living(state: StateFolder) -> tuple[RawGrant, ...]:
    """Return the opt-ins that have not expired; none where nothing was written."""
    now_ms = time.time_ns() // 1_000_000
    return tuple(grant for grant in _written(state) if grant.expires_ms > now_ms)


def write(state: StateFolder, grants: Sequence[RawGrant]) -> bool:
    """Put opt-ins in place of those before; returns whether that changed anything."""
    if state.raw_file.exists() and _written(state) == tuple(grants):
        return False
    write_private(state.raw_file, _GRANTS.dump_json(tuple(grants)), durable=False)
    return True


def forget(state: StateFolder) -> None:
    """Withdraw all: policy decides anew when it starts."""
    state.raw_file.unlink(missing_ok=True)


def permissions(state: StateFolder) -> list[str]:
    """Lines of the spinal broker's ACL file; the first names the user."""
    lines = [f"topic read {grant.filter}" for grant in living(state)]
    return [f"user {IDENTITY}", *lines] if lines else []


def _written(state: StateFolder) -> tuple[RawGrant, ...]:
    try:
        return _GRANTS.validate_json(state.raw_file.read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError:
        _LOG.exception("%s is damaged: nothing rises until policy opens it again", state.raw_file)
        forget(state)
        return ()
