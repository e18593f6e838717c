"""The services of the hub: what each is, as whom it connects, and how it is run."""

import asyncio
import gc
import logging
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError

from nervus.bus import BrokerAddress, Context, JournalSettings, Shard, numbered
from nervus.bus.context import Plane
from nervus.errors import NervusError, UsageError
from nervus.runtime import raw
from nervus.runtime.clean import Search, clean
from nervus.runtime.grants import Grants
from nervus.runtime.identity import Authority
from nervus.runtime.notify import READY, notify, notify_status
from nervus.runtime.rights import refresh_rights
from nervus.runtime.settings import Settings, broken_rule
from nervus.runtime.state import BrokerName, StateFolder
from nervus.thalamus import ThalamusSettings
from nervus.wire import TopicSpec
from nervus.wire.raw import RawGrant

Run = Callable[[Context], Coroutine[Any, Any, None]]

_LOG: Final = logging.getLogger(__name__)


class UnknownServiceError(UsageError):
    """There is no service of that name."""


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """As whom a service connects; one identity holds at most one connection to each broker."""

    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Service:
    """A service: the module whose `run(context)` it is, and its identities.

    There may be several of a kind: `number` is 0 for the first, whose names carry none.
    """

    name: str
    module: str
    identities: tuple[ServiceIdentity, ...]
    number: int = 0

    def copy(self, number: int) -> "Service":
        """Return a further one of its kind; the first is itself."""
        identities = [
            ServiceIdentity(numbered(one.name, number), one.role) for one in self.identities
        ]
        return Service(numbered(self.name, number), self.module, tuple(identities), number)


SERVICES: Final[dict[str, Service]] = {
    service.name: service
    for service in (
        Service(
            "brainstem", "nervus.brainstem.service", (ServiceIdentity("brainstem", "brainstem"),)
        ),
        Service("thalamus", "nervus.thalamus.service", (ServiceIdentity("relay", "relay"),)),
        Service(
            "gatekeeper",
            "nervus.thalamus.gatekeeper_service",
            (ServiceIdentity("gatekeeper", "gatekeeper"),),
        ),
        Service("raw", "nervus.thalamus.raw_service", (ServiceIdentity(raw.IDENTITY, "relay"),)),
        # Decision, audit and acceptance are one transaction, so the two planes share a process.
        Service(
            "command",
            "nervus.policy.service",
            (ServiceIdentity("policy", "policy"), ServiceIdentity("reliable", "reliable")),
        ),
        Service("updates", "nervus.updates.service", (ServiceIdentity("updater", "updater"),)),
        Service(
            "reflect",
            "nervus.reflect.service",
            (ServiceIdentity("reflect", "reflect"), ServiceIdentity("cleaner", "cleaner")),
        ),
        Service("history", "nervus.history.service", (ServiceIdentity("history", "history"),)),
        # It connects to no broker.
        Service("api", "nervus.api.service", ()),
    )
}

ASIDE: Final = ("history", "api")
"""Services that never share a process with the others and give way to them: nobody waits for what
history writes down, and what people ask must not delay a plane."""

SHARDED: Final = ("brainstem", "thalamus")
"""Services of which there is one for each shard."""


def services_of(settings: Settings) -> dict[str, Service]:
    """Return the services of an installation by name."""
    try:
        thalamus = ThalamusSettings(**settings.thalamus)
    except ValidationError:
        # Thalamus itself refuses its table, and says where.
        thalamus = ThalamusSettings()
    counts = dict.fromkeys(SHARDED, 1 + len(settings.shards))
    counts["gatekeeper"] = 1 + thalamus.gates.standbys if thalamus.gatekeeper else 0
    copies = [
        service.copy(number)
        for service in SERVICES.values()
        for number in range(counts.get(service.name, 1))
    ]
    return {service.name: service for service in copies}


@dataclass(slots=True)
class ServiceContext:
    """What a service is given: settings, folders, sessions' addresses, and what makes ids.

    Args:
        name: The service's name.
        settings: The whole configuration; a plane reads its own table by `table`.
        state: The state folder.
        seed: 64 random bits, so that ids made by two starts never meet.
        boot: When the service started, unix seconds.
        on_ready: Called by `ready`.
        number: Which of several of its kind.
        on_trouble: Called by `trouble`.
    """

    name: str
    settings: Settings
    state: StateFolder
    seed: int
    boot: int
    on_ready: Callable[[], None]
    number: int = 0
    on_trouble: Callable[[str, str | None], None] = lambda *_: None
    _grants: Grants = field(init=False)

    def __post_init__(self) -> None:
        self._grants = Grants(self.state)

    @property
    def house(self) -> str:
        """Scope of what concerns the whole house."""
        return self.settings.house

    @property
    def data(self) -> Path:
        """Folder of the stores."""
        return self.state.data

    @property
    def run(self) -> Path:
        """Folder of what lives only while the system runs, as sockets do."""
        return self.state.run

    @property
    def policy_file(self) -> Path:
        """What may be commanded by whom."""
        return self.state.policy_file

    @property
    def journal(self) -> JournalSettings:
        """Whether planes record their inputs, and how much of them is kept."""
        return self.settings.journal

    @property
    def shard(self) -> Shard:
        """Which scopes are this service's, where several of its kind share the work."""
        return Shard(self.number, self.settings.shards)

    def identity(self, name: str) -> str:
        """Return as whom it connects where the first of its kind is `name`."""
        return numbered(name, self.number)

    def table(self, plane: Plane) -> dict[str, Any]:
        """Return a plane's own table of the configuration, unchecked."""
        table: dict[str, Any] = getattr(self.settings, plane)
        return table

    def grants(self) -> Mapping[str, str]:
        """Return the granted `scope_level/scope` of each board; a change shows within 200 ms."""
        return self._grants.grants()

    def roles(self) -> Mapping[str, str]:
        """Return the role of each identity that stands; a change shows within 200 ms."""
        return self._grants.roles()

    def session_config(self, identity: str, broker: BrokerName) -> BrokerAddress:
        """Return where and as whom to connect.

        Raises:
            IdentityError: There is no such identity.
        """
        listener = self.settings.brokers.get(broker)
        certificate = Authority(self.state).get(identity)
        return BrokerAddress(listener.connect_host, listener.port, certificate.ssl_context())

    def raw_grants(self) -> Sequence[RawGrant]:
        """Return which measurements may rise now; none but those that policy has opened."""
        return raw.living(self.state)

    async def open_raw(self, grants: Sequence[RawGrant]) -> None:
        """Put opt-ins in force, and no others: the spinal broker's permissions follow.

        Raises:
            NervusError: A broker that runs does not hold to them in time.
        """
        if await asyncio.to_thread(raw.write, self.state, grants):
            await refresh_rights(self.state, self.settings, Authority(self.state), "cleaner")

    async def erase_retained(self, topics: Sequence[TopicSpec]) -> int:
        """Erase what running brokers retain of events; returns how many messages.

        Raises:
            NervusError: A broker could not be cleaned.
        """
        search = Search(
            filters=[spec.filter() for spec in topics],
            only={broker for spec in topics for broker in spec.brokers},
            wanted=lambda orphan: orphan.reason_code == "retained_event",
        )
        authority = Authority(self.state)
        found = await clean(self.state, self.settings, authority, "cleaner", search, erase=True)
        return len(found.orphans)

    def ready(self) -> None:
        """Say that this service serves."""
        self.on_ready()

    def trouble(self, who: str, what: str | None) -> None:
        """Say what one of its parts suffers from now; None from nothing any longer."""
        self.on_trouble(who, what)


def find_services(names: Sequence[str], services: Mapping[str, Service]) -> list[Service]:
    """Return services by name.

    Raises:
        UnknownServiceError: One of them does not exist.
    """
    unknown = [name for name in names if name not in services]
    if unknown:
        raise UnknownServiceError(
            f"there is no service {unknown[0]!r}", hint=f"the services are {', '.join(services)}"
        )
    return [services[name] for name in names]


def ensure_identities(authority: Authority, services: Iterable[Service]) -> None:
    """Issue what services connect with, unless it is there and valid."""
    for service in services:
        for identity in service.identities:
            authority.ensure(identity.name, identity.role)


async def run_services(state: StateFolder, settings: Settings, services: Sequence[Service]) -> None:
    """Run services in this process until SIGINT or SIGTERM; the first failure ends all.

    Readiness is told once all of them serve.

    Raises:
        NervusError: A service cannot work as configured.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait(), name="stop signal")
    tasks = _start(state, settings, services)
    try:
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for task, result in zip(tasks, results, strict=True):
        if isinstance(result, Exception):
            raise _told(state, result)
        if result is None and not stop.is_set():
            raise NervusError(f"the service {task.get_name()} ended without being told to")


def _start(
    state: StateFolder, settings: Settings, services: Sequence[Service]
) -> list[asyncio.Task[None]]:
    unready = {service.name for service in services}

    def ready(name: str) -> None:
        if name in unready:
            unready.remove(name)
            _LOG.info("%s is ready", name)
            if not unready:
                # What start-up made stays; a collection that looked at it again would take 50 ms.
                gc.collect()
                gc.freeze()
                notify(READY)

    troubles: dict[str, str] = {}

    def trouble(who: str, what: str | None) -> None:
        troubles.pop(who, None)
        if what is not None:
            troubles[who] = what
        notify_status("; ".join(f"{one}: {troubles[one]}" for one in sorted(troubles)))

    boot = int(time.time())
    tasks = []
    for service in services:
        seed = secrets.randbits(64)
        told = partial(ready, service.name)
        context = ServiceContext(
            service.name, settings, state, seed, boot, told, service.number, trouble
        )
        tasks.append(asyncio.create_task(_entry(service)(context), name=service.name))
    return tasks


def _told(state: StateFolder, error: Exception) -> Exception:
    """Return the one failure a group holds, and a refused table by its line in the file."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    refusal = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(refusal, ValidationError):
        return error
    # A plane's model is named after the plane.
    plane = refusal.title.removesuffix("Settings").lower()
    if plane not in get_args(Plane):
        return error
    path = state.settings_file
    return broken_rule(path, path.read_text(encoding="utf-8"), refusal, (plane,))


def _entry(service: Service) -> Run:
    run: Run = import_module(service.module).run
    return run
