"""The whole system as supervised children: two brokers, then the services."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Final

from nervus.errors import NervusError
from nervus.runtime import raw
from nervus.runtime.broker_health import DOCTOR
from nervus.runtime.brokers import (
    Broker,
    brokers,
    prepare_brokers,
    require_mosquitto,
)
from nervus.runtime.child import Child
from nervus.runtime.files import LockedError, locked
from nervus.runtime.identity import Authority
from nervus.runtime.services import ASIDE, ensure_identities, services_of
from nervus.runtime.settings import Settings, create_settings, obstacle
from nervus.runtime.state import StateFolder
from nervus.runtime.supervision import Timing
from nervus.runtime.supervisor import AlreadyRunningError, Supervisor

_PORT_WAIT_S: Final = 3.0
_PORT_PAUSE_S: Final = 0.05


class NotReadyError(NervusError):
    """Brokers and services were started and did not all serve in time."""


def prepare(path: Path) -> tuple[StateFolder, Settings, Authority]:
    """Create or complete a state folder: settings, authority, services' identities, brokers' files.

    Raises:
        AlreadyRunningError: The system runs on this state folder: nothing of it was touched.
        NervusError: The folder, its settings or its authority cannot be used.
    """
    state = StateFolder.create(path)
    with _alone(state):
        settings = create_settings(state)
        authority = Authority.create(state)
        ensure_identities(authority, services_of(settings).values())
        authority.ensure(DOCTOR, "observer")
        raw.forget(state)
        prepare_brokers(state, settings, authority)
    return state, settings, authority


def broker_child(broker: Broker) -> Child:
    """Return a broker as a child of the first stage."""
    return Child(
        name=f"broker-{broker.name}",
        command=tuple(broker.command()),
        stage=0,
        port=broker.settings.port,
        # It saves its retained messages and always obeys.
        orphan_signal=SIGTERM,
        recover=broker.recover,
    )


def service_children(state: StateFolder, settings: Settings) -> list[Child]:
    """Return the services as children: two for all, or one each where the settings say so."""
    command = (sys.executable, "-m", "nervus", "run", "--state", str(state.path))
    names = list(services_of(settings))
    if settings.processes == "separate":
        return [Child(name, (*command, name), aside=name in ASIDE) for name in names]
    hurried = [name for name in names if name not in ASIDE]
    return [
        Child("services", (*command, *hurried)),
        Child("+".join(ASIDE), (*command, *ASIDE), aside=True),
    ]


async def run_system(
    state: StateFolder,
    to_run: Iterable[Broker],
    children: Iterable[Child],
    stop: asyncio.Event,
    *,
    on_ready: Callable[[], None] = lambda: None,
    timing: Timing | None = None,
) -> int:
    """Supervise brokers and further children until `stop` is set and all have ended.

    Returns:
        0, or 2 when a child refused its settings.

    Raises:
        AlreadyRunningError: The system already runs on this state folder.
        BrokerError: mosquitto is missing or too old.
        PortError: A broker cannot listen where its settings say.
    """
    to_run = list(to_run)
    require_mosquitto()
    with _alone(state):
        # A killed supervisor left its own account of children that are gone.
        state.status_file.unlink(missing_ok=True)
        await _wait_for_ports(to_run)
        supervisor = Supervisor(
            [*(broker_child(broker) for broker in to_run), *children],
            state.status_file,
            timing,
            on_ready,
        )
        return await supervisor.run(stop)


@asynccontextmanager
async def running_system(
    state: StateFolder, settings: Settings, *, services: bool = True, within_s: float = 30.0
) -> AsyncIterator[None]:
    """Run brokers and services of a prepared folder while the block runs; it begins when all serve.

    Args:
        state: The folder that `prepare` returned.
        settings: Where the brokers listen, and how services share processes.
        services: Whether the services run, or the brokers alone.
        within_s: How long they may take to be ready, in seconds.

    Raises:
        NotReadyError: They were not ready in time.
        NervusError: As `run_system`.
    """
    up, stop = asyncio.Event(), asyncio.Event()
    children = service_children(state, settings) if services else []
    system = asyncio.create_task(
        run_system(state, brokers(state, settings), children, stop, on_ready=up.set),
        name="system",
    )
    ready = asyncio.create_task(up.wait(), name="system is up")
    try:
        await asyncio.wait({system, ready}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if not up.is_set():
            if system.done():
                await system
            raise NotReadyError(
                f"brokers and services were not ready within {within_s:g} s"
                if not system.done()
                else "a part refused its settings: its last lines say why",
                where=str(state.path),
                hint="run: nervus doctor",
            )
        yield
    finally:
        ready.cancel()
        stop.set()
        await system


@contextmanager
def _alone(state: StateFolder) -> Iterator[None]:
    """Be the one system on a state folder; raises AlreadyRunningError."""
    try:
        with locked(state.lock_file, wait=False):
            yield
    except LockedError as error:
        raise AlreadyRunningError(
            "the system already runs here",
            where=str(state.path),
            hint="look at it with `nervus status`, or name another folder with --state",
        ) from error


async def _wait_for_ports(to_run: Iterable[Broker]) -> None:
    """Give brokers of a killed supervisor a moment to end."""
    deadline = time.monotonic() + _PORT_WAIT_S
    for broker in to_run:
        while in_the_way := obstacle(broker.name, broker.settings):
            if time.monotonic() > deadline:
                raise in_the_way
            await asyncio.sleep(_PORT_PAUSE_S)
