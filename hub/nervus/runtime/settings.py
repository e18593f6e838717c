"""The installation's settings: one `nervus.toml`, overridden by `NERVUS_*` variables."""

import errno
import os
import re
import secrets
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from nervus.bus import JournalSettings, Plane
from nervus.errors import NervusError, UsageError, first_refusal
from nervus.runtime.files import write_private
from nervus.runtime.state import BrokerName, StateFolder
from nervus.wire.topic import level

Table = TypeVar("Table", bound=BaseModel)

ENVIRONMENT_PREFIX: Final = "NERVUS_"
# Below the range from which the kernel takes ports for outgoing connections (32768 …), so that
# none of those can sit on a broker's port while the broker restarts.
_PORTS: Final = range(20_000, 32_000)
_PORT_TRIES: Final = 200

_TEMPLATE: Final = """\
# The settings of this installation. Every key may also be given as an environment variable:
# house → NERVUS_HOUSE, brokers.spinal.port → NERVUS_BROKERS__SPINAL__PORT. Those win.

# Scope of what concerns the whole house, in topics: …/house/{house}/…
house = "{house}"

# "one": all services share a process, but history and api, which share a second one that gives way
# to it. "separate": each has its own.
processes = "one"

# A brainstem and a thalamus for each of these lists of scopes, and one of each for all other
# scopes; with "separate", each in a process of its own.
# shards = [["room/kitchen", "room/hall"], ["room/attic"]]
shards = []

# Boards connect to the spinal broker, everything else to the core broker. Both ask every
# client for a certificate. An address other than loopback opens the broker to the network.
[brokers.spinal]
host = "127.0.0.1"
port = {spinal_port}

[brokers.core]
host = "127.0.0.1"
port = {core_port}

# Planes record their inputs, so that `nervus replay` can run them again: in data/journal/.
[journal]
enabled = false

# Each plane has a table of its own: [brainstem], [thalamus], [policy], [reliable], [updates],
# [reflect], [history], [api]. Their keys are explained in the plane's README.
"""


class SettingsError(UsageError):
    """The configuration is wrong: names the file, the line and the rule."""


class PortError(NervusError):
    """A broker could not listen where its settings say."""


class BrokerSettings(BaseModel):
    """Where a broker listens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", min_length=1, max_length=253)
    port: int = Field(ge=1, le=65_535)

    @property
    def connect_host(self) -> str:
        """Where clients on this machine reach it: loopback when it listens on every address."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  compared, not bound


class BrokersSettings(BaseModel):
    """Where the two brokers listen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spinal: BrokerSettings
    core: BrokerSettings

    @model_validator(mode="after")
    def _are_apart(self) -> Self:
        hosts = {self.spinal.connect_host, self.core.connect_host}
        everywhere = {self.spinal.host, self.core.host} & {"0.0.0.0", "::"}  # noqa: S104  compared, not bound
        if self.spinal.port == self.core.port and (len(hosts) == 1 or everywhere):
            raise ValueError(f"both listen on port {self.core.port}: give each its own")
        return self

    def get(self, broker: BrokerName) -> BrokerSettings:
        """Return one broker's settings."""
        return self.spinal if broker == "spinal" else self.core


def _is_level(text: str) -> str:
    level(text)
    return text


def _is_shared_out(shards: tuple[frozenset[str], ...]) -> tuple[frozenset[str], ...]:
    for number, scopes in enumerate(shards):
        for scope in scopes:
            level(scope.partition("/")[2])
        for other in shards[:number]:
            if both := sorted(scopes & other):
                raise ValueError(f"{both[0]} has two owners")
    return shards


ShardScopes = Annotated[
    frozenset[Annotated[str, Field(pattern=r"^(device|room|house|user_session)/.+$")]],
    Field(min_length=1, max_length=1_024),
]
"""The scopes of one shard, as level/name."""


class Settings(BaseSettings):
    """The whole configuration; a plane's own table is checked by that plane."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
    )

    house: Annotated[str, AfterValidator(_is_level)] = "home"
    processes: Literal["one", "separate"] = "one"
    shards: Annotated[tuple[ShardScopes, ...], AfterValidator(_is_shared_out)] = ()
    brokers: BrokersSettings
    journal: JournalSettings = Field(default_factory=JournalSettings)
    brainstem: dict[str, Any] = Field(default_factory=dict)
    thalamus: dict[str, Any] = Field(default_factory=dict)
    policy: dict[str, Any] = Field(default_factory=dict)
    reliable: dict[str, Any] = Field(default_factory=dict)
    updates: dict[str, Any] = Field(default_factory=dict)
    reflect: dict[str, Any] = Field(default_factory=dict)
    history: dict[str, Any] = Field(default_factory=dict)
    api: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose content arrives as keywords."""
        del settings_cls
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `nervus.toml`.

        Raises:
            SettingsError: The file cannot be read, is not TOML, or breaks a rule.
        """
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(
                f"not valid TOML: {error}",
                where=_decode_position(path, str(error)),
                hint="correct this line",
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else f"no UTF-8: {error.reason}"
            raise SettingsError(
                f"cannot be read ({why})",
                where=str(path),
                hint="mend it, or restore it from a backup",
            ) from error
        try:
            return cls(**values)
        except ValidationError as error:
            raise broken_rule(path, text, error) from error
        except SourceError as error:
            named = re.search(r'field "(\w+)"', str(error))
            key = named[1] if named else ""
            raise SettingsError(
                f"{key}: not valid JSON",
                where=f"environment variable {ENVIRONMENT_PREFIX}{key.upper()}",
                hint=f"give one key of it alone, as {ENVIRONMENT_PREFIX}BROKERS__CORE__PORT=8883, "
                "or all of it as JSON",
            ) from error


def create_settings(
    state: StateFolder, *, house: str = "home", spinal_port: int = 0, core_port: int = 0
) -> Settings:
    """Write the state folder's `nervus.toml` unless it has one, and load it.

    Args:
        state: Whose settings.
        house: Scope of house-level topics, in a new file.
        spinal_port: Port in a new file; 0 chooses one that is free now.
        core_port: As `spinal_port`.

    Raises:
        SettingsError: The file is wrong, or no port is free.
    """
    if not state.settings_file.exists():
        spinal = spinal_port or free_port()
        core = core_port or free_port(besides=spinal)
        content = _TEMPLATE.format(house=house, spinal_port=spinal, core_port=core)
        write_private(state.settings_file, content)
    return Settings.load(state.settings_file)


def free_port(besides: int = 0) -> int:
    """Return a loopback TCP port that nothing listens on now, other than `besides`.

    Raises:
        SettingsError: None was found.
    """
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        if port != besides and port_is_free("127.0.0.1", port):
            return port
    raise SettingsError(
        f"found no free port between {_PORTS.start} and {_PORTS.stop}",
        hint="name free ports in nervus.toml",
    )


def port_is_free(host: str, port: int) -> bool:
    """Say whether a broker could listen there now."""
    try:
        _listen(host, port)
    except (OSError, UnicodeError):
        return False
    return True


def obstacle(broker: BrokerName, settings: BrokerSettings) -> PortError | None:
    """Say why a broker could not listen where its settings say; None if it could."""
    host, port = settings.host, settings.port
    keep, change = f"brokers.{broker}.host", f"brokers.{broker}.port"
    try:
        _listen(host, port)
    except (socket.gaierror, UnicodeError):
        what, hint = f"no machine is known as {host}", f"put an address of this machine as {keep}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what = f"another program listens on {host}:{port}, the port of the {broker} broker"
            hint = f"end it, or change {change}"
        elif error.errno == errno.EADDRNOTAVAIL:
            what = f"{host} is no address of this machine now"
            hint = f"is its network up? put an address of its own, or 0.0.0.0 for all, as {keep}"
        elif error.errno == errno.EACCES:
            what = f"only root may listen on port {port}"
            hint = f"put one above 1023 as {change}"
        else:
            what = f"nobody can listen on {host}:{port} ({error.strerror})"
            hint = f"change {keep} or {change}"
    else:
        return None
    return PortError(what, where=f"brokers.{broker} in nervus.toml", hint=hint)


def _listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        # Two sockets may share an address until one of them listens.
        probe.listen(1)


def plane_table(path: Path, plane: Plane, model: type[Table]) -> Table:
    """Read a plane's own table of `nervus.toml`.

    Raises:
        SettingsError: As `Settings.load`, or the table breaks a rule of the plane.
    """
    settings = Settings.load(path)
    try:
        return model(**getattr(settings, plane))
    except ValidationError as error:
        raise broken_rule(path, path.read_text(encoding="utf-8"), error, (plane,)) from error


def broken_rule(
    path: Path, text: str, error: ValidationError, table: tuple[str, ...] = ()
) -> SettingsError:
    """Return the error that tells where in `nervus.toml` a rule is broken.

    Args:
        path: The file.
        text: Its content.
        error: What the model of the file, or of one of its tables, refused.
        table: The table that model is for; empty for the whole file.
    """
    wrong, rule = first_refusal(error)
    keys = [*table, *wrong]
    others = error.error_count() - 1
    more = f" ({others} more after this)" if others else ""
    variable = ENVIRONMENT_PREFIX + "__".join(keys).upper()
    if variable in os.environ:
        where = f"environment variable {variable}"
    else:
        line = _line_of(text, keys)
        where = f"{path}:{line}" if line else str(path)
    return SettingsError(
        f"{'.'.join(keys)}: {rule}{more}", where=where, hint="correct this setting"
    )


def _decode_position(path: Path, message: str) -> str:
    found = re.search(r"at line (\d+)", message)
    return f"{path}:{found[1]}" if found else f"{path} (at its end)"


def _line_of(text: str, keys: list[str]) -> int | None:
    """Find the line of a key, or of the nearest table around it that is written down."""
    best: tuple[int, int] | None = None
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.fullmatch(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?", line):
            table = _split_key(header[1])
            path = table
        elif assignment := re.match(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=", line):
            path = table + _split_key(assignment[1])
        else:
            continue
        if path == keys[: len(path)] and (best is None or len(path) > best[0]):
            best = (len(path), number)
    return best[1] if best else None


def _split_key(key: str) -> list[str]:
    return [part.strip().strip("\"'") for part in key.split(".")]
