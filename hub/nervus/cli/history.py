"""`nervus history`: what went over the core plane, and when."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from nervus.api import ApiClient, ApiSettings
from nervus.cli.moments import moment
from nervus.cli.options import State
from nervus.errors import UsageError
from nervus.history import Archive, Query, Recorded, every
from nervus.runtime.settings import plane_table
from nervus.runtime.state import StateFolder
from nervus.wire.plain import plain

Get = Callable[[Query], list[Recorded]]

_FOLLOW_S: Final = 0.5
_WIDTH: Final = 120


def history(  # noqa: PLR0913 - each is an option
    state: State,
    *,
    from_: Annotated[
        str, typer.Option("--from", metavar="TIME", help="A date, or how long ago: 15m, 2h, 3d.")
    ] = "1h",
    to: Annotated[str, typer.Option("--to", metavar="TIME", help="Strictly before it.")] = "now",
    scope: Annotated[str | None, typer.Option(help="As room/kitchen.")] = None,
    channel: Annotated[str | None, typer.Option(help="As somatic.")] = None,
    contract: Annotated[str | None, typer.Option(help="As Outcome.")] = None,
    plane: Annotated[str | None, typer.Option(help="As th: the topic's first level.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Messages at most.")] = 1_000,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Lines of JSON, in full.")] = False,
) -> None:
    r"""Show what went over the core plane, in the order it was recorded.

    Each message has a sequence that rises by one within its scope. Removed by age and size, see
    \[history] in nervus.toml.

    [bold]Examples[/bold]

      nervus history --from 15m --scope room/kitchen

      nervus history --from 2026-11-20T08:00 --to 2026-11-20T09:00 --contract Outcome --json

      nervus history --follow --channel somatic
    """
    fields: dict[str, Any] = {"from_ms": moment("--from", from_), "channel": channel}
    fields |= {"contract": contract, "plane": plane}
    if scope is not None:
        fields["scope_level"], _, fields["scope"] = scope.partition("/")
        if not fields["scope"]:
            raise UsageError(f"--scope: {scope!r} is no scope", hint="write it as room/kitchen")
    if not follow:
        fields["to_ms"] = moment("--to", to)
    query = Query.of(**fields)
    with _source(StateFolder.open(state)) as get:
        found = _following(get, query) if follow else every(get, query)
        _show(found, limit=limit, as_json=as_json, follow=follow)


@contextmanager
def _source(folder: StateFolder) -> Iterator[Get]:
    """Asks the hub where it runs; else the store itself."""
    api = plane_table(folder.settings_file, "api", ApiSettings)
    client = ApiClient(api.path(folder.run))
    if client.answers():
        yield partial(_asked, client)
        return
    with Archive.open(folder.data / "history.db") as archive:
        yield archive.get


def _asked(client: ApiClient, query: Query) -> list[Recorded]:
    answer = client.get("/v1/history", query.model_dump(exclude_defaults=True))
    return [Recorded(**one) for one in answer["payload"]]


def _following(get: Get, query: Query) -> Iterator[Recorded]:
    while True:
        for one in every(get, query):
            query = query.model_copy(update={"after": one.number})
            yield one
        time.sleep(_FOLLOW_S)


def _show(found: Iterable[Recorded], *, limit: int, as_json: bool, follow: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("when", "scope", "seq", "contract", "from", "what", box=None, pad_edge=False)
    shown, more = 0, False
    for one in found:
        if shown >= limit and not follow:
            more = True
            break
        shown += 1
        if as_json:
            typer.echo(json.dumps(asdict(one)))
        elif follow:
            console.print("  ".join(_cells(one)), markup=False)
        else:
            table.add_row(*_cells(one))
    if not as_json and shown:
        console.print(table, markup=False)
    if not as_json and not shown:
        console.print("nothing was recorded there")
    if more:
        Console(stderr=True).print(f"the first {limit}; ask for more with --limit")


def _cells(one: Recorded) -> tuple[str, ...]:
    meta, payload = one.message["meta"], one.message["payload"]
    at = datetime.fromtimestamp(one.recorded_ms / 1000).astimezone()
    text = json.dumps(payload, ensure_ascii=False)
    return (
        f"{at:%m-%d %H:%M:%S}.{one.recorded_ms % 1000:03d}",
        plain(f"{one.scope_level}/{one.scope}"),
        str(one.sequence),
        meta["contract"],
        plain(meta["source"]),
        plain(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"),
    )
