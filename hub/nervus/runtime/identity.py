"""The local authority: who takes part, in which role, with which certificate.

An identity's name is its certificate's common name, its MQTT user name and its MQTT client id.
"""

import json
import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any, Final, Self

from nervus.about import NAME
from nervus.errors import NervusError, UsageError
from nervus.runtime.certificates import (
    KeyPair,
    Usage,
    create_authority,
    issue_certificate,
    read_key_pair,
    revocation_list,
)
from nervus.runtime.files import locked, make_private_folder, sync_folder, write_private
from nervus.runtime.state import StateFolder
from nervus.wire.topic import LevelError, level
from nervus.wire.topics import ROLES

RENEW_BEFORE: Final = timedelta(days=30)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SCOPE_LEVELS: Final = ("device", "room", "house", "user_session")
_REGISTRY_VERSION: Final = 2
_RESTORE: Final = (
    "restore it from a backup, or remove ca/, identities/ and identities.json; "
    "every part and board then needs a new certificate"
)


class IdentityError(UsageError):
    """A name, role or scope that no identity can have, or an identity that does not exist."""


class AuthorityError(NervusError):
    """The authority's own files are damaged or unreadable."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One participant and the files that prove it.

    `role` is None for a broker's own server certificate; `scope` is `level/name`, for boards.
    """

    name: str
    role: str | None
    scope: str | None
    serial: str
    not_after: datetime
    folder: Path

    @property
    def cert(self) -> Path:
        """Certificate, PEM."""
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        """Private key, PEM, mode 0600."""
        return self.folder / "key.pem"

    @property
    def ca(self) -> Path:
        """Certificate of the authority that brokers are checked against, PEM."""
        return self.folder / "ca.pem"

    def ssl_context(self) -> ssl.SSLContext:
        """Return a client context: this certificate shown, the broker's checked, TLS ≥ 1.2."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert, self.key)
        return context


@dataclass(frozen=True, slots=True)
class RevokedCertificate:
    """A certificate that brokers refuse although it has not expired."""

    name: str
    role: str | None
    scope: str | None
    serial: str
    not_after: datetime
    revoked_at: datetime


def utc_now() -> datetime:
    """Return the wall clock, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Authority:
    """Issues identities of one state folder and remembers them in `identities.json`.

    Safe to use from several processes at once: every change holds a lock.
    """

    state: StateFolder
    clock: Callable[[], datetime] = field(default=utc_now)

    @classmethod
    def create(cls, state: StateFolder, clock: Callable[[], datetime] = utc_now) -> Self:
        """Take the folder's authority, creating it when there is none and never was.

        Raises:
            AuthorityError: Its files are damaged or missing.
        """
        authority = cls(state, clock)
        with authority._lock():
            registry = authority._registry()
            if not authority._key.exists() and not _has_issued(registry):
                pair = create_authority(f"{NAME} local CA", clock())
                write_private(state.ca / "cert.pem", pair.certificate_pem)
                authority._write_registry(registry)
                # The last of them: where it is, all of them were.
                write_private(authority._key, pair.key_pem)
            authority._signer()
        return authority

    def check(self) -> None:
        """Look whether the authority can issue, where there is one.

        Raises:
            AuthorityError: Its files are damaged or missing.
        """
        if _has_issued(self._registry()):
            self._signer()

    @property
    def _key(self) -> Path:
        return self.state.ca / "key.pem"

    @property
    def revocation_list(self) -> Path:
        """Which certificates brokers refuse, signed, PEM."""
        return self.state.ca / "crl.pem"

    def issue(self, name: str, role: str, scope: str | None = None) -> Identity:
        """Issue a new key and certificate; an identity of that name is replaced (rotated).

        What is replaced stays valid, so that a board works until it got the new one: where the old
        key is in wrong hands, revoke first.

        A board's folder also holds DER copies, for firmware without a PEM parser.

        Args:
            name: 1 to 64 of `A-Z a-z 0-9 _ -`.
            role: One of `ROLES`.
            scope: `level/name`, such as `room/kitchen`; boards only, and required for them.

        Raises:
            IdentityError: Name, role or scope are not possible.
        """
        _check(name, role, scope)
        with self._lock():
            self._refuse_broker_name(name)
            return self._issue(name, role, scope, "client", ())

    def ensure(self, name: str, role: str, scope: str | None = None) -> Identity:
        """Return the identity as it is if it fits and stays valid 30 days, else issue it anew."""
        current = self.find(name)
        fits = current is not None and (current.role, current.scope) == (role, scope)
        if current is not None and fits and self.problem(current) is None:
            return current
        return self.issue(name, role, scope)

    def ensure_server(self, name: str, hosts: Sequence[str]) -> Identity:
        """Return a broker's own certificate, valid for `hosts`, issuing it anew when it must be."""
        with self._lock():
            record = self._registry()["identities"].get(name)
            if record is not None:
                current = self._identity(name, record)
                if record["hosts"] == list(hosts) and self.problem(current) is None:
                    return current
            return self._issue(name, None, None, "server", hosts)

    def revoke(self, name: str) -> list[RevokedCertificate]:
        """Take back every certificate of that name, replaced ones too; its key is removed.

        Brokers that run have to be told: see `nervus.runtime.revocation`. Revoking again changes
        nothing more.

        Returns:
            All revoked certificates of that name.

        Raises:
            IdentityError: There is no such identity, or it is a broker.
        """
        with self._lock():
            self._refuse_broker_name(name)
            registry = self._registry()
            taken = [record for record in registry["superseded"] if record["name"] == name]
            registry["superseded"] = [
                record for record in registry["superseded"] if record["name"] != name
            ]
            current = registry["identities"].pop(name, None)
            if current is not None:
                taken.append(_certificate_record(name, current))
            now = self.clock().isoformat()
            registry["revoked"] += [record | {"revoked_at": now} for record in taken]
            revoked = [one for one in _revoked(registry) if one.name == name]
            if not revoked:
                raise self._missing(name)
            self._write_registry(registry)
            self._write_revocation_list(registry)
            folder = self.state.identity(name)
            if folder.exists():
                rmtree(folder)
            return revoked

    def write_revocation_list(self) -> None:
        """Write the list that brokers refuse by, as it follows from `identities.json`."""
        with self._lock():
            self._write_revocation_list(self._registry())

    def revoked(self) -> list[RevokedCertificate]:
        """Return every certificate that was taken back, in the order of that."""
        return _revoked(self._registry())

    def find(self, name: str) -> Identity | None:
        """Return the identity of that name, or None; one that was revoked is none."""
        record = self._registry()["identities"].get(name)
        return None if record is None else self._identity(name, record)

    def get(self, name: str) -> Identity:
        """Return the identity of that name.

        Raises:
            IdentityError: There is none.
        """
        identity = self.find(name)
        if identity is None:
            raise self._missing(name)
        return identity

    def identities(self) -> list[Identity]:
        """Return every identity, brokers' own included, by name."""
        records = self._registry()["identities"]
        return [self._identity(name, records[name]) for name in sorted(records)]

    def problem(self, identity: Identity) -> str | None:
        """Say why an identity's files cannot be used for the next 30 days; None if they can."""
        try:
            pair = read_key_pair(identity.key.read_bytes(), identity.cert.read_bytes())
            ca = identity.ca.read_bytes()
        except (OSError, ValueError) as error:
            return f"its files cannot be used ({error})"
        if ca != (self.state.ca / "cert.pem").read_bytes():
            return "another authority signed it"
        if _serial(pair) != identity.serial:
            return "its certificate is not the registered one"
        remaining = identity.not_after - self.clock()
        if remaining < timedelta(0):
            return f"it expired on {identity.not_after:%Y-%m-%d}"
        if remaining < RENEW_BEFORE:
            return f"it expires on {identity.not_after:%Y-%m-%d}"
        return None

    def _issue(
        self,
        name: str,
        role: str | None,
        scope: str | None,
        usage: Usage,
        hosts: Sequence[str],
    ) -> Identity:
        signer = self._signer()
        pair = issue_certificate(signer, name, usage, hosts, self.clock())
        registry = self._registry()
        if name in registry["identities"]:
            old = _certificate_record(name, registry["identities"][name])
            registry["superseded"].append(old)
        record = {
            "role": role,
            "scope": scope,
            "hosts": list(hosts),
            "serial": _serial(pair),
            "not_after": pair.certificate.not_valid_after_utc.isoformat(),
        }
        registry["identities"][name] = record
        self._write_files(name, pair, signer, der=role == "board")
        self._write_registry(registry)
        return self._identity(name, record)

    def _write_files(self, name: str, pair: KeyPair, signer: KeyPair, *, der: bool) -> None:
        # Key and certificate change together: the whole folder is exchanged.
        target = self.state.identity(name)
        fresh = target.with_name(f".{name}.new")
        old = target.with_name(f".{name}.old")
        for leftover in (fresh, old):
            if leftover.exists():
                rmtree(leftover)
        make_private_folder(fresh)
        write_private(fresh / "key.pem", pair.key_pem)
        write_private(fresh / "cert.pem", pair.certificate_pem)
        write_private(fresh / "ca.pem", signer.certificate_pem)
        if der:
            write_private(fresh / "key.der", pair.key_der)
            write_private(fresh / "cert.der", pair.certificate_der)
            write_private(fresh / "ca.der", signer.certificate_der)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        sync_folder(target.parent)
        if old.exists():
            rmtree(old)

    def _signer(self) -> KeyPair:
        try:
            return read_key_pair(self._key.read_bytes(), (self.state.ca / "cert.pem").read_bytes())
        except (OSError, ValueError) as error:
            raise AuthorityError(
                f"the local authority cannot be used ({error})",
                where=str(self.state.ca),
                hint=_RESTORE,
            ) from error

    def _registry(self) -> dict[str, Any]:
        path = self.state.registry_file
        try:
            registry: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            if self._key.exists():
                # Empty it would let in whoever was revoked, and shut out everybody else.
                raise AuthorityError(
                    "the list of identities is missing", where=str(path), hint=_RESTORE
                ) from error
            return {
                "version": _REGISTRY_VERSION,
                "identities": {},
                "superseded": [],
                "revoked": [],
            }
        except ValueError as error:
            raise AuthorityError(
                f"the list of identities is damaged ({error})", where=str(path), hint=_RESTORE
            ) from error
        if registry.get("version") != _REGISTRY_VERSION:
            raise AuthorityError(
                f"the list of identities has version {registry.get('version')!r}",
                where=str(path),
                hint=f"this program reads version {_REGISTRY_VERSION}: move the file and "
                "identities/ away, then issue anew",
            )
        return registry

    def _write_registry(self, registry: dict[str, Any]) -> None:
        write_private(self.state.registry_file, json.dumps(registry, indent=1) + "\n")

    def _write_revocation_list(self, registry: dict[str, Any]) -> None:
        revoked = {int(one.serial, 16): one.revoked_at for one in _revoked(registry)}
        write_private(self.revocation_list, revocation_list(self._signer(), revoked))

    def _identity(self, name: str, record: dict[str, Any]) -> Identity:
        return Identity(
            name=name,
            role=record["role"],
            scope=record["scope"],
            serial=record["serial"],
            not_after=datetime.fromisoformat(record["not_after"]),
            folder=self.state.identity(name),
        )

    def _missing(self, name: str) -> IdentityError:
        return IdentityError(
            f"there is no identity {name!r}",
            where=str(self.state.registry_file),
            hint=f"issue it: nervus identity issue {name} --role ROLE",
        )

    def _refuse_broker_name(self, name: str) -> None:
        record = self._registry()["identities"].get(name)
        if record is not None and record["role"] is None:
            raise IdentityError(f"the name {name!r} belongs to a broker", hint="name another one")

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self.state.ca / ".lock")


def _has_issued(registry: dict[str, Any]) -> bool:
    return any(registry.get(kind) for kind in ("identities", "superseded", "revoked"))


def _certificate_record(name: str, record: dict[str, Any]) -> dict[str, Any]:
    kept = ("role", "scope", "serial", "not_after")
    return {"name": name} | {key: record[key] for key in kept}


def _revoked(registry: dict[str, Any]) -> list[RevokedCertificate]:
    return [
        RevokedCertificate(
            name=record["name"],
            role=record["role"],
            scope=record["scope"],
            serial=record["serial"],
            not_after=datetime.fromisoformat(record["not_after"]),
            revoked_at=datetime.fromisoformat(record["revoked_at"]),
        )
        for record in registry["revoked"]
    ]


def _serial(pair: KeyPair) -> str:
    return f"{pair.certificate.serial_number:x}"


def _check(name: str, role: str, scope: str | None) -> None:
    if not _NAME.fullmatch(name):
        raise IdentityError(
            f"{name!r} cannot be an identity's name",
            hint="use 1 to 64 of the characters A-Z a-z 0-9 _ -",
        )
    if role not in ROLES:
        raise IdentityError(
            f"there is no role {role!r}", hint=f"the roles are {', '.join(sorted(ROLES))}"
        )
    if role == "board" and scope is None:
        raise IdentityError(
            f"the board {name!r} has no scope",
            hint="name the place it may speak for, such as --scope room/kitchen",
        )
    if scope is None:
        return
    if role != "board":
        raise IdentityError(f"the role {role!r} has no scope", hint="leave --scope out")
    scope_level, _, scope_name = scope.partition("/")
    try:
        level(scope_name)
    except LevelError:
        scope_name = ""
    if scope_level not in _SCOPE_LEVELS or not scope_name or "/" in scope_name:
        raise IdentityError(
            f"{scope!r} is not a scope",
            hint=f"write level/name, such as room/kitchen; "
            f"the levels are {', '.join(_SCOPE_LEVELS)}",
        )
