"""`nervus up` and `nervus run`: the system, whole or in parts."""

import asyncio
import logging
import os
import signal
from typing import Annotated, Final, Literal

import typer
from rich.console import Console

from nervus.about import NAME
from nervus.cli.clean import IDENTITY
from nervus.cli.log import sessions_at, set_up_log
from nervus.cli.options import State
from nervus.errors import NervusError
from nervus.runtime.brokers import brokers, require_mosquitto
from nervus.runtime.identity import Authority
from nervus.runtime.notify import (
    READY,
    READY_DESCRIPTOR_VARIABLE,
    STOPPING,
    notify,
)
from nervus.runtime.rights import refresh_rights
from nervus.runtime.services import SERVICES, find_services, run_services, services_of
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder
from nervus.runtime.system import prepare, run_system, service_children

_LOG: Final = logging.getLogger(__name__)


def up(
    state: State,
    *,
    separate: Annotated[
        bool, typer.Option("--separate", help="Give each service a process of its own.")
    ] = False,
) -> None:
    """Start brokers and services, and keep them running until Ctrl-C.

    The first start creates the state folder: settings, a local certificate authority, one
    certificate for each part, and the brokers' configuration.

    [bold]Examples[/bold]

      nervus up

      nervus up --state /tmp/house --separate
    """
    set_up_log(with_time=True)
    require_mosquitto()
    folder, settings, authority = prepare(state)
    if separate:
        settings = settings.model_copy(update={"processes": "separate"})
    raise typer.Exit(asyncio.run(_run_until_signal(folder, settings, authority)))


def run(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help=f"Services: {', '.join(SERVICES)}.")
    ],
    state: State,
) -> None:
    """Run services in the foreground, beside brokers that are up.

    [bold]Examples[/bold]

      nervus run brainstem

      nervus run thalamus reflect --state /tmp/house
    """
    set_up_log(with_time=READY_DESCRIPTOR_VARIABLE not in os.environ)
    folder = StateFolder.open(state)
    settings = Settings.load(folder.settings_file)
    services = find_services(names, services_of(settings))
    asyncio.run(run_services(folder, settings, services))


async def _run_until_signal(state: StateFolder, settings: Settings, authority: Authority) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def request_stop() -> None:
        if not stop.is_set():
            Console(stderr=True).print("stopping …")
            notify(STOPPING)
            stop.set()

    async def reload() -> None:
        # mosquitto misses a signal that comes while it reads: it is tried whether it has.
        try:
            with sessions_at(logging.ERROR):
                told = await refresh_rights(state, settings, authority, IDENTITY)
        except NervusError as error:
            _LOG.error("rights were not read again: %s", error)
        else:
            _LOG.info("rights are in force on %s", " and ".join(told) or "no broker: none runs")

    reloads: set[asyncio.Task[None]] = set()

    def request_reload() -> None:
        task = asyncio.create_task(reload(), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    told = False

    def announce() -> None:
        nonlocal told
        if told:
            _LOG.info("all parts serve again")
            return
        told = True
        _say_ready(state, settings)
        notify(READY)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, request_stop)
    loop.add_signal_handler(signal.SIGHUP, request_reload)
    return await run_system(
        state,
        brokers(state, settings),
        service_children(state, settings),
        stop,
        on_ready=announce,
    )


def _say_ready(state: StateFolder, settings: Settings) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold green]{NAME} is up.[/] Stop it with Ctrl-C.")
    console.print(f"  state   {state.path}", markup=False)
    names: tuple[Literal["spinal", "core"], ...] = ("spinal", "core")
    for name in names:
        listener = settings.brokers.get(name)
        console.print(f"  {name:7} mqtts://{listener.host}:{listener.port}", markup=False)
    console.print(
        f"  join    nervus identity issue NAME --role consumer --state {state.path}", markup=False
    )
