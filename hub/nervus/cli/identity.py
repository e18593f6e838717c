"""`nervus identity issue` and `revoke`: who takes part, and who no longer."""

import asyncio
import logging
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nervus.cli.clean import IDENTITY
from nervus.cli.log import sessions_at
from nervus.cli.options import State, output_folder
from nervus.runtime.clean import CleanError, Search, clean
from nervus.runtime.files import write_private
from nervus.runtime.identity import Authority, Identity
from nervus.runtime.revocation import revoke as revoke_identity
from nervus.runtime.rights import RightsError, refresh_rights
from nervus.runtime.services import services_of
from nervus.runtime.settings import Settings
from nervus.runtime.state import BrokerName, StateFolder
from nervus.wire.topic import TopicSpec
from nervus.wire.topics import ROLES, TOPICS


def issue(
    name: Annotated[str, typer.Argument(help="1 to 64 of A-Z a-z 0-9 _ -")],
    role: Annotated[str, typer.Option(help=f"One of: {', '.join(ROLES)}.")],
    state: State,
    scope: Annotated[
        str | None, typer.Option(help="For boards: the place it speaks for, as room/kitchen.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also copy key and certificates there.")
    ] = None,
) -> None:
    """Let a part or board join: a certificate, and rights on both brokers at once.

    A name that exists gets a new key and certificate.

    [bold]Examples[/bold]

      nervus identity issue lamp-logic --role consumer

      nervus identity issue kitchen-1 --role board --scope room/kitchen --out ./kitchen-1
    """
    folder = StateFolder.open(state)
    settings = Settings.load(folder.settings_file)
    authority = Authority.create(folder)
    target = None if out is None else output_folder(out)
    before = authority.find(name)
    identity = authority.issue(name, role, scope)
    # Until the new rights are in force, the broker denies what is tried.
    with sessions_at(logging.ERROR):
        told = asyncio.run(refresh_rights(folder, settings, authority, IDENTITY))
    if target is not None:
        identity = _copy(identity, target)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold green]Issued[/] {name} as {role}{f' of {scope}' if scope else ''}.")
    for label, path in (("key", identity.key), ("cert", identity.cert), ("ca", identity.ca)):
        console.print(f"  {label:7} {path}", markup=False)
    console.print(f"  until   {identity.not_after:%Y-%m-%d}", markup=False)
    console.print(
        f"  rights  in force on {' and '.join(told)}"
        if told
        else "  rights  in force at the next start of the brokers",
        markup=False,
    )
    if before is not None and (before.role, before.scope) != (role, scope):
        _clear(console, folder, name, before.role)
    command = example_command(identity, settings)
    if command is not None:
        console.print("Try it:", markup=False)
        console.print(f"  {command}", markup=False)


def revoke(
    name: Annotated[str, typer.Argument(help="An identity of `nervus identity list`.")],
    state: State,
) -> None:
    """Shut a part or board out, at once and for good; brokers that run restart for it.

    Every certificate of that name is refused from now on. Issue the name anew to let it join again.

    [bold]Examples[/bold]

      nervus identity revoke kitchen-1
    """
    folder = StateFolder.open(state)
    settings = Settings.load(folder.settings_file)
    revocation = revoke_identity(folder, settings, Authority.create(folder), name)
    console = Console(highlight=False, soft_wrap=True)
    number = len(revocation.certificates)
    console.print(f"[bold green]Revoked[/] {name}: {number} certificate{'s'[: number != 1]}.")
    console.print(
        f"  in force on {' and '.join(revocation.restarted)}, which restarted: all sessions of "
        f"{name} are cut"
        if revocation.restarted
        else "  in force at the next start of the brokers",
        markup=False,
    )
    _clear(console, folder, name, revocation.certificates[-1].role)
    services = {
        one.name for service in services_of(settings).values() for one in service.identities
    }
    if name in services:
        console.print(
            f"  {name} is a part of the hub: `nervus up` issues it anew at its next start"
        )


def _clear(console: Console, folder: StateFolder, name: str, role: str | None) -> None:
    """Erase what an identity retained that was revoked, or now speaks for another place."""
    if not any(
        spec.retained and role in (*spec.publish, *(spec.spinal_publish or ())) for spec in TOPICS
    ):
        return
    search = Search(wanted=lambda orphan: name in (orphan.source, orphan.device_id), disowned=name)
    settings, authority = Settings.load(folder.settings_file), Authority(folder)
    try:
        found = asyncio.run(clean(folder, settings, authority, IDENTITY, search, erase=True))
    except (CleanError, RightsError) as error:
        told = f"stays for now, {error.what}; later: nervus clean --yes"
    else:
        number = len(found.orphans)
        told = f"{number} message{'s'[: number != 1]}, erased"
    console.print(f"  retained {told}", markup=False)


def example_command(identity: Identity, settings: Settings) -> str | None:
    """Return a mosquitto_sub command that shows what an identity may read, if anything."""
    readable = [spec for spec in TOPICS if identity.role in spec.subscribe]
    if not readable:
        return None
    spec = min(readable, key=_preference)
    broker: BrokerName = "core" if "core" in spec.brokers else "spinal"
    listener = settings.brokers.get(broker)
    scope_level, _, scope = (identity.scope or "").partition("/")
    levels = {"identity": identity.name}
    if identity.role == "board":
        levels = {"device_id": identity.name, "scope_level": scope_level, "scope": scope}
        if spec.board_scope_is_device:
            levels |= {"scope_level": "device", "scope": identity.name}
    words = ["mosquitto_sub", "-h", listener.connect_host, "-p", str(listener.port)]
    words += ["--cafile", str(identity.ca), "--cert", str(identity.cert)]
    words += ["--key", str(identity.key), "-V", "mqttv5", "-q", "1", "-v"]
    words += ["-t", spec.filter(**levels)]
    return shlex.join(words)


def _preference(spec: TopicSpec) -> tuple[bool, bool]:
    """Prefer the stream behind the gate, then the core broker."""
    return spec.name != "gated_relay", "core" not in spec.brokers


def _copy(identity: Identity, target: Path) -> Identity:
    for source in sorted(identity.folder.iterdir()):
        write_private(target / source.name, source.read_bytes())
    return replace(identity, folder=target)
