"""Examines a machine and a state folder without changing either."""

import ctypes
import os
import platform
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from shutil import disk_usage, which
from tempfile import TemporaryFile
from typing import Final, get_args

from nervus import resources
from nervus.bus import Plane
from nervus.errors import NervusError
from nervus.runtime.broker_health import DOCTOR, examine_brokers
from nervus.runtime.brokers import brokers, require_mosquitto
from nervus.runtime.finding import Finding, Verdict
from nervus.runtime.identity import RENEW_BEFORE, Authority
from nervus.runtime.settings import Settings, obstacle, plane_table
from nervus.runtime.state import StateFolder

OLDEST_PYTHON: Final = (3, 11)
SLOW_FSYNC_MS: Final = 50
LOW_DISK_BYTES: Final = 200_000_000
SCANT_DISK_BYTES: Final = 1_000_000_000
_ANSWER_S: Final = 2.0
# Of the Raspberry Pi's firmware: now, and at some time since it was switched on.
_LOW_NOW, _LOW_BEFORE = 1 << 0, 1 << 16
_VOLATILE: Final = frozenset({"tmpfs", "ramfs", "overlay"})
_OF_A_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs"})
_WITHOUT_OWNERS: Final = frozenset({"vfat", "exfat", "msdos"})
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
# No clock that was ever set shows a time before this program was written.
EARLIEST_TIME: Final = datetime(2025, 6, 1, tzinfo=UTC)


def examine(path: Path) -> list[Finding]:
    """Look at everything the system needs, on this machine and in the state folder at `path`."""
    findings = [check() for check in _MACHINE]
    if foreign := StateFolder(path.absolute()).foreign():
        # As another user one sees little of it, and that wrongly.
        found = f"{foreign.where}: {foreign.what}"
        return [*findings, Finding(Verdict.FAILURE, "state folder", found, foreign.hint)]
    if not (path / "nervus.toml").is_file():
        hint = "nothing to do: the first `nervus up` creates it"
        return [*findings, Finding(Verdict.WARNING, "state folder", f"none at {path}", hint)]
    state = StateFolder.open(path)
    for what, check in _STATE.items():
        try:
            findings.extend(check(state))
        except NervusError as error:
            found = f"{error.where}: {error.what}" if error.where else error.what
            findings.append(Finding(Verdict.FAILURE, what, found, error.hint))
        except OSError as error:
            hint = "run this as the user whom the state folder belongs to"
            found = f"{error.filename}: {error.strerror}"
            findings.append(Finding(Verdict.FAILURE, what, found, hint))
    return findings


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= OLDEST_PYTHON:
        return Finding(Verdict.OK, "Python", found)
    hint = f"use Python {'.'.join(map(str, OLDEST_PYTHON))} or later"
    return Finding(Verdict.FAILURE, "Python", found, hint)


def _mosquitto() -> Finding:
    try:
        version = require_mosquitto()
    except NervusError as error:
        return Finding(Verdict.FAILURE, "mosquitto", error.what, error.hint)
    return Finding(Verdict.OK, "mosquitto", ".".join(map(str, version)))


def _mosquitto_clients() -> Finding:
    if found := which("mosquitto_sub"):
        return Finding(Verdict.OK, "mosquitto_sub", found)
    hint = "to look at topics by hand: sudo apt install mosquitto-clients"
    return Finding(Verdict.WARNING, "mosquitto_sub", "not installed", hint)


def _micropython() -> Finding:
    try:
        local = resources.find("firmware").parent / ".tools" / "micropython" / "micropython"
    except NervusError as error:
        return Finding(Verdict.FAILURE, "firmware", error.what, error.hint)
    found = str(local) if local.is_file() else which("micropython")
    if found:
        return Finding(Verdict.OK, "MicroPython", found)
    hint = "only simulated boards need it: tools/demo installs it"
    return Finding(Verdict.WARNING, "MicroPython", "not installed", hint)


def _clock() -> Finding:
    return _judged_clock(datetime.now(UTC), synchronized=_synchronized())


def _judged_clock(now: datetime, *, synchronized: bool | None) -> Finding:
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now < EARLIEST_TIME:
        hint = "set the clock (timedatectl), or certificates will not be valid"
        return Finding(Verdict.FAILURE, "clock", found, hint)
    if synchronized is False:
        hint = "boards get their time from here: sudo timedatectl set-ntp true"
        return Finding(Verdict.WARNING, "clock", f"{found}, not synchronized", hint)
    return Finding(Verdict.OK, "clock", found)


def _synchronized() -> bool | None:
    """Whether the kernel's clock is kept by NTP, by adjtimex(2); None where it does not tell."""
    adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    if adjtimex is None:
        return None
    # struct timex is 208 bytes; its first field, modes, is 0: only read.
    state = adjtimex(ctypes.create_string_buffer(256))
    return None if state < 0 else state != _TIME_ERROR


def _power() -> Finding:
    return judged_power(_answer_of("vcgencmd", "get_throttled"))


def judged_power(answer: str) -> Finding:
    """Judge what a Raspberry Pi's firmware says of its supply: `throttled=0x50000`; else ""."""
    bits = re.fullmatch(r"throttled=0x([0-9a-f]+)\s*", answer)
    if bits is None:
        return Finding(Verdict.OK, "power", "nothing here tells of it")
    flags = int(bits[1], 16)
    hint = "a stronger supply or a shorter cable: low voltage damages SD cards and databases"
    if flags & _LOW_NOW:
        return Finding(Verdict.FAILURE, "power", "the voltage is too low", hint)
    if flags & _LOW_BEFORE:
        found = "the voltage was too low since it was switched on"
        return Finding(Verdict.WARNING, "power", found, hint)
    return Finding(Verdict.OK, "power", "the voltage never was too low")


def _answer_of(*command: str) -> str:
    if which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603  programs of the system
            command, capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _user() -> Finding:
    if os.getuid() != 0:
        return Finding(Verdict.OK, "user", f"uid {os.getuid()}")
    hint = "outside of tests, run as an ordinary user: nothing here needs root"
    return Finding(Verdict.WARNING, "user", "root", hint)


def _permissions(state: StateFolder) -> Iterator[Finding]:
    keys = (state.ca / "key.pem", state.update_key, *state.identities.glob("*/key.*"))
    exposed = [
        path
        for path in (state.path, *keys)
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if exposed:
        found = f"others may read {exposed[0]}" + (
            f" and {len(exposed) - 1} more" * (len(exposed) > 1)
        )
        hint = f"run: chmod -R go= {state.path}"
        yield Finding(Verdict.FAILURE, "permissions", found, hint)
    else:
        yield Finding(Verdict.OK, "permissions", f"{state.path} is private")


def _settings(state: StateFolder) -> Iterator[Finding]:
    path = state.settings_file
    settings = Settings.load(path)
    for plane in get_args(Plane):
        # Most say nothing, and a plane takes time to load.
        if getattr(settings, plane):
            plane_table(
                path, plane, getattr(import_module(f"nervus.{plane}"), f"{plane.title()}Settings")
            )
    yield Finding(Verdict.OK, "settings", str(path))
    for broker in brokers(state, settings):
        what = f"{broker.name} port"
        address = f"{broker.settings.host}:{broker.settings.port}"
        if broker.running_pid() is not None:
            yield Finding(Verdict.OK, what, f"{address} is served")
        elif in_the_way := obstacle(broker.name, broker.settings):
            hint = f"{in_the_way.hint} in nervus.toml"
            yield Finding(Verdict.FAILURE, what, in_the_way.what, hint)
        else:
            yield Finding(Verdict.OK, what, f"{address} is free")


def _certificates(state: StateFolder) -> Iterator[Finding]:
    authority = Authority(state)
    authority.check()
    identities, now = authority.identities(), datetime.now(UTC)
    problems = [(one, told) for one in identities if (told := authority.problem(one)) is not None]
    own = _renewed_at_each_start(state) if problems else set()
    for identity, problem in problems:
        expiring = now < identity.not_after < now + RENEW_BEFORE
        verdict = Verdict.WARNING if expiring else Verdict.FAILURE
        hint = (
            "restart the system: it renews its own"
            if identity.role is None or identity.name in own
            else f"run: nervus identity issue {identity.name} --role {identity.role}"
            + (f" --scope {identity.scope}" if identity.scope else "")
        )
        yield Finding(verdict, f"identity {identity.name}", problem, hint)
    if valid := [one for one in identities if one.not_after > now]:
        first = min(valid, key=lambda identity: identity.not_after)
        days = (first.not_after - now) // timedelta(days=1)
        found = f"{len(valid)}, the first ({first.name}) expires in {days} days"
        yield Finding(Verdict.OK, "certificates", found)


def _renewed_at_each_start(state: StateFolder) -> set[str]:
    # Loaded where something is wrong alone: they take as long as all else here together.
    from nervus.runtime.services import services_of  # noqa: PLC0415

    services = services_of(Settings.load(state.settings_file)).values()
    return {DOCTOR, *(one.name for service in services for one in service.identities)}


def file_system(path: Path, mounts: str) -> str:
    """Return the type of the file system that a path lies on; "" where the list does not tell.

    Args:
        path: Absolute.
        mounts: The content of /proc/self/mounts; of several on one place the last counts.
    """
    rows = [line.split() for line in mounts.splitlines()]
    places = {Path(row[1].replace("\\040", " ")): row[2] for row in rows}
    # In a chroot what lies at its root need not be mounted.
    return next((places[each] for each in (path, *path.parents) if each in places), "")


def judged_file_system(path: Path, kind: str) -> Finding | None:
    """Say what is wrong with keeping the state folder on a file system of this type, if anything.

    SQLite's write-ahead log needs shared memory, which no file system of a network gives.
    """
    if kind in _VOLATILE:
        found, hint = f"{path} is on {kind}: gone with the next restart", "for keeps name another"
        if kind == "overlay":
            hint = "on a Raspberry Pi: raspi-config, Performance, Overlay File System, off"
        return Finding(Verdict.WARNING, "file system", found, hint)
    if kind in _OF_A_NETWORK:
        found = f"{path} is on {kind}: databases are not safe there"
        return Finding(Verdict.WARNING, "file system", found, "use a disk of this machine")
    if kind in _WITHOUT_OWNERS:
        found = f"{path} is on {kind}: it keeps no secret from other users"
        return Finding(Verdict.FAILURE, "file system", found, "use a disk with ext4 or the like")
    return None


def _disk(state: StateFolder) -> Iterator[Finding]:
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    if judged := judged_file_system(state.path, file_system(state.path.resolve(), mounts)):
        yield judged
    free = disk_usage(state.path).free
    if free < LOW_DISK_BYTES:
        found = f"{free // 1_000_000} MB free"
        yield Finding(Verdict.FAILURE, "disk", found, f"make room on the disk of {state.path}")
    elif free < SCANT_DISK_BYTES:
        found = f"{free // 1_000_000} MB free"
        yield Finding(
            Verdict.WARNING, "disk", found, f"make room soon: stores stop when {state.path} is full"
        )
    try:
        with TemporaryFile(dir=state.data) as file:
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fsync(file.fileno())
            took_ms = (time.perf_counter() - started) * 1000
    except OSError as error:
        hint = "stores cannot promise anything on this disk: use another for the state folder"
        yield Finding(Verdict.FAILURE, "fsync", str(error), hint)
        return
    slow = took_ms > SLOW_FSYNC_MS
    verdict = Verdict.WARNING if slow else Verdict.OK
    hint = "commands wait for the disk: use a faster one" if slow else ""
    yield Finding(verdict, "fsync", f"{took_ms:.1f} ms", hint)


_MACHINE: Final[tuple[Callable[[], Finding], ...]] = (
    _python,
    _mosquitto,
    _mosquitto_clients,
    _micropython,
    _clock,
    _power,
    _user,
)
_STATE: Final[dict[str, Callable[[StateFolder], Iterator[Finding]]]] = {
    "permissions": _permissions,
    "settings": _settings,
    "certificates": _certificates,
    "disk": _disk,
    "brokers": examine_brokers,
}
"""Each by what it is about, told where it cannot look."""
