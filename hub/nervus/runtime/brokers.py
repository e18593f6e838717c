"""The two mosquitto brokers: configuration, rights, start, reload and recovery."""

import os
import pwd
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from shutil import which
from typing import Final

from nervus.about import NAME, VERSION
from nervus.errors import NervusError
from nervus.runtime import raw
from nervus.runtime.files import locked, write_private
from nervus.runtime.identity import Authority, Identity
from nervus.runtime.settings import BrokerSettings, Settings
from nervus.runtime.state import BROKERS, BrokerName, StateFolder
from nervus.wire import acl

# (identity, role, scope, broker) → its block of a mosquitto ACL file, `user` line first.
AclLines = Callable[[str, str, str | None, BrokerName], Iterable[str]]

OLDEST_MOSQUITTO: Final = (2, 0, 11)
MAX_PACKET_BYTES: Final = 16_384
MAX_INFLIGHT_MESSAGES: Final = 256
MAX_QUEUED_MESSAGES: Final = 10_000
MAX_QUEUED_BYTES: Final = 4_194_304
MAX_CONNECTIONS: Final = 1_000
AUTOSAVE_SECONDS: Final = 30

_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/sbin")
_SYSTEM_TOPIC_READERS: Final = frozenset({"observer", "operator"})
_ANSWER_S: Final = 20.0
"""Of a program that is asked for its version, on a machine that starts everything at once."""

_CRASHES: Final = frozenset({-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS})
_DATABASE_REFUSED: Final = re.compile(
    r"couldn't open database|persist(ence|ent database).*(error|unrecogni|unsupported|unable)"
    r"|unable to restore persistent database",
    re.IGNORECASE,
)


class BrokerError(NervusError):
    """A broker cannot be found, configured or started."""


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker of a state folder; `prepare` writes what it reads."""

    name: BrokerName
    state: StateFolder
    settings: BrokerSettings

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.state.broker(self.name)

    @property
    def configuration_file(self) -> Path:
        """The generated `mosquitto.conf`."""
        return self.folder / "mosquitto.conf"

    @property
    def acl_file(self) -> Path:
        """The generated rights of every identity."""
        return self.folder / "acl"

    @property
    def pid_file(self) -> Path:
        """Written by mosquitto itself, whoever started it."""
        return self.state.run / f"{self.name}.pid"

    @property
    def database(self) -> Path:
        """Retained messages and sessions, saved by mosquitto."""
        return self.folder / "data" / "mosquitto.db"

    def command(self) -> list[str]:
        """Return the command line that runs it in the foreground.

        Raises:
            BrokerError: mosquitto is not installed.
        """
        return [str(find_mosquitto()), "-c", str(self.configuration_file)]

    def prepare(self, authority: Authority) -> None:
        """Write configuration, certificate and rights."""
        server = authority.ensure_server(f"broker-{self.name}", _hosts(self.settings.host))
        content = render_configuration(self, server, authority.revocation_list)
        write_private(self.configuration_file, content)
        self.write_acl(authority)

    def write_acl(self, authority: Authority, lent: Sequence[str] = ()) -> None:
        """Write the rights of all identities; a running broker takes them on `reload`.

        Args:
            authority: Whose identities, as they are now.
            lent: Lines for the moment, which the next call takes back; the first names the user.
        """
        # Who looked at the identities before another wrote the rights of more must not write.
        with locked(self.folder / ".acl.lock"):
            content = render_acl(self.name, authority.identities(), acl.lines)
            more = [*(raw.permissions(self.state) if self.name == "spinal" else ()), *lent]
            write_private(self.acl_file, "\n".join([content, *more, ""]) if more else content)

    def running_pid(self) -> int | None:
        """Return the process id of the mosquitto that runs this configuration, if one does."""
        with suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text())
            if self.runs_as(pid):
                return pid
        return None

    def runs_as(self, pid: int) -> bool:
        """Whether that process is a mosquitto that runs this configuration, and has not ended."""
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self.configuration_file) in arguments

    def reload(self) -> bool:
        """Make a running broker read its rights and certificate again; False if none runs."""
        pid = self.running_pid()
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGHUP)
        except ProcessLookupError:
            return False
        return True

    def recover(self, exit_code: int, output: Sequence[str]) -> str | None:
        """Move a database aside that mosquitto refuses or dies of, so that it can start empty.

        Args:
            exit_code: How it ended before it was ready; negative for a signal.
            output: The last lines it wrote.

        Returns:
            What was done, to be told to the operator; None when the database is not the cause.
        """
        if not self.database.exists():
            return None
        refused = any(_DATABASE_REFUSED.search(line) for line in output)
        if not refused and exit_code not in _CRASHES:
            return None
        number = 1
        while (aside := self.database.with_name(f"mosquitto.db.corrupt-{number}")).exists():
            number += 1
        self.database.rename(aside)
        return (
            f"the broker's database is corrupt: moved to {aside}, starting empty; "
            "retained states come back as their owners reconnect"
        )


def prepare_brokers(
    state: StateFolder, settings: Settings, authority: Authority
) -> tuple[Broker, Broker]:
    """Write the files of both brokers; returns spinal, core."""
    authority.write_revocation_list()
    spinal, core = brokers(state, settings)
    for broker in (spinal, core):
        broker.prepare(authority)
    return spinal, core


def brokers(state: StateFolder, settings: Settings) -> tuple[Broker, Broker]:
    """Return spinal and core as they are configured, touching nothing."""
    spinal, core = (Broker(name, state, settings.brokers.get(name)) for name in BROKERS)
    return spinal, core


def render_acl(broker: BrokerName, identities: Iterable[Identity], lines: AclLines) -> str:
    """Return a mosquitto ACL file: what is not granted to a user by a line is denied."""
    parts = [f"# Written by {NAME} {VERSION}; changes are lost. Not listed means denied.\n"]
    for identity in identities:
        if identity.role is None:
            continue
        granted = list(lines(identity.name, identity.role, identity.scope, broker))
        if identity.role in _SYSTEM_TOPIC_READERS:
            granted.append("topic read $SYS/#")
        parts.append("\n".join(granted) + "\n")
    return "\n".join(parts)


def render_configuration(broker: Broker, server: Identity, revocation_list: Path) -> str:
    """Return a complete mosquitto.conf, for mosquitto 2.0.11 and later."""
    # Boards' TLS stacks often end at 1.2; everything on the core broker has 1.3.
    tls_version = "tlsv1.2" if broker.name == "spinal" else "tlsv1.3"
    return f"""\
# Written by {NAME} {VERSION} from nervus.toml; changes are lost.

# Started by root, mosquitto would change to a user who may not read the state folder, and a
# change of user also clears the signal that ends it with its supervisor.
user {pwd.getpwuid(os.getuid()).pw_name}
pid_file {broker.pid_file}

listener {broker.settings.port} {broker.settings.host}
protocol mqtt
max_connections {MAX_CONNECTIONS}
# Without it Nagle's algorithm holds small messages back for 40 ms.
set_tcp_nodelay true

# Who: the certificate's common name is user name and client id.
cafile {server.ca}
certfile {server.cert}
keyfile {server.key}
crlfile {revocation_list}
tls_version {tls_version}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false

# May: an ACL file denies all it does not grant.
acl_file {broker.acl_file}

# Limits. Beyond the queue limits mosquitto drops the newest message for that client.
max_packet_size {MAX_PACKET_BYTES}
max_inflight_messages {MAX_INFLIGHT_MESSAGES}
max_queued_messages {MAX_QUEUED_MESSAGES}
max_queued_bytes {MAX_QUEUED_BYTES}
queue_qos0_messages false

# Retained states survive a restart; a power cut costs those of the last {AUTOSAVE_SECONDS} s, which
# their owners publish again. (The default would save every 1800 s.)
retain_available true
persistence true
persistence_location {broker.database.parent}
autosave_interval {AUTOSAVE_SECONDS}
autosave_on_changes false

# The supervisor reads this, adds the time and the broker's name. Not stdout: mosquitto holds
# lines back until a block of them is full, so a killed broker would take its reasons with it.
log_dest stderr
log_timestamp false
log_type error
log_type warning
log_type notice
log_type information
connection_messages true
sys_interval 10
"""


def find_mosquitto() -> Path:
    """Return the mosquitto program.

    Raises:
        BrokerError: It is not installed.
    """
    # Debian installs it where only root's PATH leads.
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_FOLDERS])
    found = which("mosquitto", path=path)
    if found is None:
        raise BrokerError(
            "mosquitto is not installed",
            hint="install it: sudo apt install mosquitto mosquitto-clients",
        )
    return Path(found)


@cache
def mosquitto_version(program: Path) -> tuple[int, ...]:
    """Return the version a mosquitto program reports.

    Raises:
        BrokerError: It reports none.
    """
    # `-h` is the only option that prints the version; its exit code differs between versions.
    try:
        told = subprocess.run(  # noqa: S603  the program comes from find_mosquitto
            [str(program), "-h"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_ANSWER_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        told = f"({error})"
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", told)
    if found is None:
        raise BrokerError(
            "mosquitto does not tell its version",
            where=str(program),
            hint=f"try it: {program} -h; install it anew where it does not run",
        )
    return tuple(int(number) for number in found.groups())


def require_mosquitto() -> tuple[int, ...]:
    """Return the version of the installed mosquitto.

    Raises:
        BrokerError: It is missing or too old.
    """
    program = find_mosquitto()
    version = mosquitto_version(program)
    if version < OLDEST_MOSQUITTO:
        raise BrokerError(
            f"mosquitto {_dotted(version)} is too old",
            where=str(program),
            hint=f"install {_dotted(OLDEST_MOSQUITTO)} or later",
        )
    return version


def _hosts(host: str) -> list[str]:
    hosts = ["localhost", "127.0.0.1", "::1"]
    try:
        address = ip_address(host)
    except ValueError:
        if host not in hosts:
            hosts.append(host)
        return hosts
    if not address.is_loopback:
        hosts.append(socket.gethostname())
    if str(address) not in hosts and not address.is_unspecified:
        hosts.append(str(address))
    return hosts


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)
