"""What runs, as its supervisor tells whoever asks."""

import json
from typing import Any

from nervus.runtime.files import LockedError, locked
from nervus.runtime.state import StateFolder


def read_status(state: StateFolder) -> dict[str, Any] | None:
    """Return what the running supervisor of a state folder tells, None when none runs.

    Its process id, and of each child what `nervus.runtime.supervisor.ChildStatus` says.
    """
    try:
        with locked(state.lock_file, wait=False):
            return None
    except LockedError:
        try:
            status: dict[str, Any] = json.loads(state.status_file.read_bytes())
        except FileNotFoundError:
            return None
        return status
