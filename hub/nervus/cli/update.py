"""`nervus update`, but `status`: bring a version of the firmware to boards."""

import ast
import getpass
import json
import os
import secrets
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from nervus import resources
from nervus.cli import update_view
from nervus.cli.options import AsJson, State
from nervus.errors import NervusError, UsageError
from nervus.runtime.files import make_private_folder, write_private
from nervus.runtime.identity import Authority
from nervus.runtime.signing_key import create_key, load_key, public_hex
from nervus.runtime.state import StateFolder
from nervus.runtime.status import read_status
from nervus.simulator import modules
from nervus.updates import (
    CHUNK_SIZE,
    DEVICES_LIMIT,
    OPEN,
    NoUpdatesRecordError,
    Order,
    Orders,
    Pack,
    Seen,
    Stored,
    check_version,
    read_pack_file,
    read_record,
    version_number,
)
from nervus.wire.ids import MessageIds

TAKEN_S: Final = 15.0
"""How long the service may take to see an order."""

Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="The key that signs; else the state folder's own."),
]


class UpdateError(UsageError):
    """Boards, pack or roll-out that are not there or do not fit."""


class NotTakenError(NervusError):
    """The service that updates boards did not take an order."""


def key(state: State, *, key_file: Key = None) -> None:
    """Create the key that signs updates, and print what boards have to know of it.

    The private key stays in a file that only you can read; keep a copy of it in a safe place.
    Boards take what it signed once their node.toml names the public key that is printed. A key that
    is there is never replaced.

    [bold]Examples[/bold]

      nervus update key

      nervus update key --key /media/stick/nervus-update.pem
    """
    path = _key_path(state, key_file)
    created = not path.exists()
    public = public_hex(create_key(path) if created else load_key(path))
    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold green]Created[/]" if created else "It is there already:", end=" ")
    console.print(f"{path} (private: keep it, never copy it to a board)", markup=False)
    console.print("In node.toml of each board that is to take updates signed with it:")
    console.print(f'update_keys = ["{public}"]', markup=False)


def pack(
    state: State,
    *,
    version: Annotated[
        str | None,
        typer.Option(help="Numbers and dots, as 1.4.2; boards take only a higher one than theirs."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: nervus-VERSION.pack, here.")
    ] = None,
    firmware: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Another firmware tree than the installed.")
    ] = None,
    key_file: Key = None,
) -> None:
    """Compile the firmware, and sign it as one file for `nervus update send`.

    The same firmware, version and key give the same bytes. Without --version it is the firmware's
    own, which a board that was flashed with it does not take again.

    [bold]Examples[/bold]

      nervus update pack --version 0.2.0

      nervus update pack --version 0.2.1 --firmware ./firmware --out kitchen.pack
    """
    signer = load_key(_key_path(state, key_file))
    tree = firmware or resources.find("firmware")
    number = version or _own_version(tree)
    check_version(number, str(tree))
    files = modules(tree)
    made = Pack.signed(number, files, signer, CHUNK_SIZE)
    made.check(str(tree))
    target = out or Path(f"nervus-{number}.pack")
    try:
        target.write_bytes(made.data)
    except OSError as error:
        raise UpdateError(
            f"cannot be written ({error.strerror})", where=str(target), hint="name another --out"
        ) from error
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold green]Packed[/] {number}: {len(files)} files, {made.size} bytes")
    console.print(f"  file    {target}", markup=False)
    console.print(f"  sha256  {made.digest}", markup=False)
    console.print(f"  key     {made.key}", markup=False)


def send(
    state: State,
    nodes_and_pack: Annotated[
        list[str], typer.Argument(metavar="[NODE]... PACK", help="Boards, then the pack.")
    ],
    *,
    every: Annotated[bool, typer.Option("--all", help="Every board, or each of --scope.")] = False,
    scope: Annotated[
        str | None, typer.Option(help="With --all: only those of this place, as room/kitchen.")
    ] = None,
    canary: Annotated[
        int,
        typer.Option(min=0, max=DEVICES_LIMIT, help="So many first; the others once they confirm."),
    ] = 1,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to watch; it goes on without being watched.")
    ] = 1800.0,
    as_json: AsJson = False,
) -> None:
    """Bring a pack to boards and watch until each runs it, or says why not.

    A board fetches it, restarts into it on trial, and after half a minute keeps it; what does not
    run it takes back by itself. One that does stops the roll-out. Ctrl-C ends the watching alone:
    `nervus update status` shows how it goes on. The exit code is 0 when every board runs it.

    [bold]Examples[/bold]

      nervus update send kitchen-1 nervus-0.2.0.pack

      nervus update send --all --canary 2 nervus-0.2.0.pack

      nervus update send --all --scope room/kitchen --wait 0 nervus-0.2.0.pack
    """
    folder = StateFolder.open(state)
    *nodes, file = nodes_and_pack
    made = read_pack_file(Path(file))
    if read_status(folder) is None:
        raise UpdateError("nothing runs here", where=str(folder.path), hint="start: nervus up")
    seen = {each.device_id: each for each in _record(folder).seen}
    devices = _chosen(folder, nodes, every=every, scope=scope)
    devices = _fitting(devices, seen, made, every=every)
    # Who is there goes first: a canary that is away keeps the others waiting.
    devices.sort(key=lambda name: name in seen and not seen[name].online)
    update_id = _order(folder, devices, made, canary)
    console = Console(highlight=False, soft_wrap=True)
    if wait and not as_json:
        console.print(f"{made.version} to {len(devices)} boards, roll-out {update_id}")
    settled = update_view.watch(folder.data, update_id, wait, live=not as_json)
    stored = read_record(folder.data)
    if as_json:
        typer.echo(json.dumps(update_view.fields(stored, update_id)))
    else:
        update_view.show_rollout(console, stored, update_id)
        if not settled:
            console.print("It goes on: nervus update status")
    states = {board.state for board in stored.boards if board.update_id == update_id}
    raise typer.Exit(0 if states == {"confirmed"} or not wait else 1)


def stop(
    state: State,
    update_id: Annotated[str, typer.Argument(help="A roll-out of `nervus update status`.")],
) -> None:
    """Stop a roll-out: who fetches gets no more, what is on trial ends its trial.

    [bold]Examples[/bold]

      nervus update stop 01KAJ6Y9A3Q5W8B1C2D3E4F5G6
    """
    folder = StateFolder.open(state)
    stored = _record(folder)
    if update_id not in {each.update_id for each in stored.rollouts}:
        raise UpdateError(
            f"there is no roll-out {update_id!r}",
            where=str(folder.data),
            hint="`nervus update status` shows their names",
        )
    if not any(b.update_id == update_id and b.state in OPEN for b in stored.boards):
        raise UpdateError(f"the roll-out {update_id} has ended already", where=str(folder.data))
    orders = Orders.of(folder.data)
    write_private(orders.withdrawal(update_id), _user())
    orders.order(update_id).unlink(missing_ok=True)
    Console(highlight=False).print(f"[bold green]Stopped[/] {update_id}: nervus update status")


def _key_path(state: Path, named: Path | None) -> Path:
    return named or StateFolder.open(state).update_key


def _own_version(firmware: Path) -> str:
    """The version that the firmware says of itself."""
    path = firmware / "lib" / "spinal" / "wiring.py"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise UpdateError(
            f"this is no firmware tree ({error})", where=str(path), hint="name its folder"
        ) from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FIRMWARE":
            return str(ast.literal_eval(node.value))
    raise UpdateError("FIRMWARE is not set here", where=str(path), hint="name a --version")


def _record(folder: StateFolder) -> Stored:
    try:
        return read_record(folder.data)
    except NoUpdatesRecordError:
        return Stored((), (), ())


def _chosen(folder: StateFolder, nodes: list[str], *, every: bool, scope: str | None) -> list[str]:
    """The boards that are meant, each of which there is."""
    boards = {one.name: one.scope for one in Authority(folder).identities() if one.role == "board"}
    if every and nodes:
        raise UpdateError("--all and single boards", where=" ".join(nodes), hint="leave one out")
    if scope is not None and not every:
        raise UpdateError("--scope without --all", where=scope, hint="add --all, or name boards")
    chosen = (
        [name for name in boards if scope in (None, boards[name])]
        if every
        else list(dict.fromkeys(nodes))
    )
    unknown = sorted(set(chosen) - boards.keys())
    if unknown or not chosen:
        what = f"there is no board {unknown[0]!r}" if unknown else "no board is meant"
        known = ", ".join(sorted(boards)) or "none yet: nervus identity issue"
        raise UpdateError(what, where=str(folder.registry_file), hint=f"the boards are {known}")
    if len(chosen) > DEVICES_LIMIT:
        raise UpdateError(
            f"{len(chosen)} boards, at most {DEVICES_LIMIT} at a time", hint="use --scope"
        )
    return chosen


def _fitting(devices: list[str], seen: dict[str, Seen], made: Pack, *, every: bool) -> list[str]:
    """Those that run something older, or of which that is not known."""
    newer = {}
    for name in devices:
        running = seen[name].firmware if name in seen else ""
        try:
            if running and version_number(running) >= made.number:
                newer[name] = running
        except ValueError:
            continue  # it was flashed with something of another kind; it will say what it thinks
    if newer and (not every or len(newer) == len(devices)):
        name, running = next(iter(newer.items()))
        raise UpdateError(
            f"{name} runs {running}, and {made.version} is not newer",
            where=f"board {name}",
            hint="pack it with a higher --version; to go back to an older one, flash the board",
        )
    return [name for name in devices if name not in newer]


def _order(folder: StateFolder, devices: list[str], made: Pack, canary: int) -> str:
    """Write pack and order, and wait until the service has stored it."""
    now_ms = time.time_ns() // 1_000_000
    update_id = MessageIds(secrets.randbits(64)).next(now_ms)
    order = Order(
        update_id=update_id,
        devices=tuple(devices),
        canary=canary,
        asked_ms=now_ms,
        asked_by=_user(),
    )
    orders = Orders.of(folder.data)
    make_private_folder(orders.path)
    write_private(orders.pack(update_id), made.data)
    write_private(orders.order(update_id), order.model_dump_json())
    deadline = time.monotonic() + TAKEN_S
    while update_id not in {each.update_id for each in _record(folder).rollouts}:
        if time.monotonic() > deadline:
            orders.order(update_id).unlink(missing_ok=True)
            orders.pack(update_id).unlink(missing_ok=True)
            raise NotTakenError(
                f"the service updates did not take the order within {TAKEN_S:g} s",
                where=str(orders.order(update_id)),
                hint="is it running? see `nervus status`, and its lines in the log",
            )
        time.sleep(0.1)
    return update_id


def _user() -> str:
    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
