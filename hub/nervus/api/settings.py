"""The `[api]` table of nervus.toml."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

SOCKET: Final = "api.sock"


class ApiSettings(BaseModel):
    """Where the API listens, and who may ask.

    Args:
        socket: The Unix socket; `run/api.sock` of the state folder when absent. That folder is its
            owner's alone: for other users name a path that they can reach, such as
            /run/nervus/api.sock.
        group: Name of the group that may connect to it besides its owner; the owner's when absent.
        principals: As which identity another user may ask: user id → name. The identity's role says
            what; revoked or unknown it may ask nothing.
        deadline_s: How long one request may read before it is given up.
        connection_limit: Connections and requests at once; beyond it the answer is 503.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    socket: Path | None = None
    group: str | None = None
    principals: dict[Annotated[str, Field(pattern=r"^\d{1,10}$")], str] = Field(
        default_factory=dict
    )
    deadline_s: float = Field(default=5.0, gt=0, le=60)
    connection_limit: int = Field(default=64, ge=1, le=1_024)

    def path(self, run: Path) -> Path:
        """Where it listens; `run` is the state folder's own."""
        return self.socket or run / SOCKET
