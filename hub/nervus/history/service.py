"""History's I/O: reads the core plane, keeps it in data/history.db."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from nervus.bus import (
    DURABLE,
    KEPT,
    Context,
    Session,
    Shell,
    origin,
    plane_settings,
    recording,
    subscriptions,
)
from nervus.history.core import Record, Trim
from nervus.history.machine import IDENTITY, TAKES, build
from nervus.history.records import SCHEMA, record, trim
from nervus.history.settings import HistorySettings
from nervus.store import Store


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    settings = plane_settings(context, "history", HistorySettings)
    machine = build(settings, origin(context), lambda _: None)
    session = Session(
        IDENTITY,
        "core",
        context.session_config(IDENTITY, "core"),
        filters=subscriptions(TAKES),
        limits=replace(DURABLE, rest_ms=settings.batch_ms // 2),
    )
    async with Store(
        context.data / "history.db", (SCHEMA, KEPT), gather_s=settings.batch_ms / 1_000
    ) as store:

        async def commit(effects: Sequence[Record | Trim]) -> None:
            def write(connection: sqlite3.Connection) -> None:
                for effect in effects:
                    if isinstance(effect, Record):
                        record(connection, effect)
                    else:
                        trim(connection, effect)

            await store.write(write)

        with recording(context, IDENTITY, settings) as journal:
            shell = Shell(
                machine.core,
                [session],
                machine.guard,
                machine.lane,
                commit=commit,
                journal=journal,
                store=store,
            )
            await shell.run(context.ready, context.trouble)
