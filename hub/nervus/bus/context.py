"""What a plane's service is given by whatever runs it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from nervus.bus.address import BrokerAddress
from nervus.bus.journal_settings import JournalSettings
from nervus.bus.shard import Shard
from nervus.errors import UsageError, first_refusal
from nervus.wire import TopicSpec
from nervus.wire.raw import RawGrant

Settings = TypeVar("Settings", bound=BaseModel)

Plane = Literal[
    "brainstem", "thalamus", "policy", "reliable", "updates", "reflect", "history", "api"
]


class Context(Protocol):
    """Settings, addresses and folders of one service; the runtime implements it."""

    @property
    def house(self) -> str:
        """Scope of what concerns the whole house."""
        ...

    @property
    def seed(self) -> int:
        """64 random bits of this start, for message ids."""
        ...

    @property
    def boot(self) -> int:
        """When the service started, unix seconds."""
        ...

    @property
    def data(self) -> Path:
        """Folder of the stores."""
        ...

    @property
    def run(self) -> Path:
        """Folder of what lives only while the system runs, as sockets do."""
        ...

    @property
    def policy_file(self) -> Path:
        """What may be commanded by whom."""
        ...

    @property
    def journal(self) -> JournalSettings:
        """Whether planes record their inputs, and how much of them is kept."""
        ...

    @property
    def shard(self) -> Shard:
        """Which scopes are this service's, where several of its kind share the work."""
        ...

    def identity(self, name: str) -> str:
        """Return as whom it connects where the first of its kind is `name`."""
        ...

    def table(self, plane: Plane) -> dict[str, Any]:
        """Return a plane's own table of the configuration, unchecked."""
        ...

    def session_config(self, identity: str, broker: Literal["spinal", "core"]) -> BrokerAddress:
        """Return where and as whom to connect."""
        ...

    def grants(self) -> Mapping[str, str]:
        """Return the granted `scope_level/scope` of each device id, as it is now."""
        ...

    def roles(self) -> Mapping[str, str]:
        """Return the role of each identity that stands, by name, as it is now."""
        ...

    def raw_grants(self) -> Sequence[RawGrant]:
        """Return which measurements may rise now; none but those that policy has opened."""
        ...

    async def open_raw(self, grants: Sequence[RawGrant]) -> None:
        """Put opt-ins in force, and no others: the spinal broker's permissions follow.

        Raises:
            NervusError: A broker that runs does not hold to them in time.
        """
        ...

    async def erase_retained(self, topics: Sequence[TopicSpec]) -> int:
        """Erase what running brokers retain of events; returns how many messages.

        Raises:
            NervusError: A broker could not be cleaned.
        """
        ...

    def ready(self) -> None:
        """Say that this service serves."""
        ...

    def trouble(self, who: str, what: str | None) -> None:
        """Say what one of its parts suffers from now; None from nothing any longer."""
        ...


def plane_settings(context: Context, plane: Plane, model: type[Settings]) -> Settings:
    """Return a plane's table as its own model.

    Raises:
        UsageError: The table breaks a rule of the model.
    """
    try:
        return model(**context.table(plane))
    except ValidationError as error:
        keys, rule = first_refusal(error)
        raise UsageError(
            f"{'.'.join(keys)}: {rule}",
            where=f"[{plane}] in nervus.toml",
            hint="correct this setting; the plane's README explains each",
        ) from error
