"""History's I/O: reads the core plane, keeps it in data/history.db."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from nervus.bus import DURABLE, KEPT, Context, Session, Shell, plane_settings, subscriptions
from nervus.history.core import History, Record, Trim
from nervus.history.records import SCHEMA, record, trim
from nervus.history.settings import HistorySettings
from nervus.store import Store
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "history"
TAKES: Final = tuple(spec for spec in topics.TOPICS if IDENTITY in spec.subscribe)


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    settings = plane_settings(context, "history", HistorySettings)
    mint = Mint(IDENTITY, "history", seed=context.seed, boot=context.boot)
    session = Session(
        IDENTITY,
        "core",
        context.session_config(IDENTITY, "core"),
        filters=subscriptions(TAKES),
        limits=DURABLE,
    )
    async with Store(context.data / "history.db", (SCHEMA, KEPT)) as store:

        async def commit(effects: Sequence[Record | Trim]) -> None:
            def write(connection: sqlite3.Connection) -> None:
                for effect in effects:
                    if isinstance(effect, Record):
                        record(connection, effect)
                    else:
                        trim(connection, effect)

            await store.write(write)

        shell = Shell(
            History(settings),
            [session],
            Guard(TAKES),
            RejectLane(mint, context.house),
            commit=commit,
            store=store,
        )
        await shell.run(context.ready, context.trouble)
