"""Reflect's I/O: reads RejectEvents on both brokers, keeps them in data/reflect.db."""

from collections.abc import Sequence
from typing import Final, Literal

from nervus.bus import KEPT, Context, Session, Shell, plane_settings, subscriptions
from nervus.reflect.core import Keep, Reflect
from nervus.reflect.quarantine import SCHEMA, keep
from nervus.reflect.settings import ReflectSettings
from nervus.store import Store
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "reflect"
TAKES: Final = (topics.REJECT,)
BROKERS: Final[tuple[Literal["spinal", "core"], ...]] = ("spinal", "core")


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    mint = Mint(IDENTITY, "reflect", seed=context.seed, boot=context.boot)
    store = Store(context.data / "reflect.db", (SCHEMA, KEPT))

    async def commit(effects: Sequence[Keep]) -> None:
        for effect in effects:
            await store.write(lambda connection: keep(connection, effect.rejects, effect.limit))  # noqa: B023 - awaited within the turn

    sessions = [
        Session(
            IDENTITY,
            broker,
            context.session_config(IDENTITY, broker),
            filters=subscriptions(TAKES),
        )
        for broker in BROKERS
    ]
    shell = Shell(
        Reflect(plane_settings(context, "reflect", ReflectSettings)),
        sessions,
        Guard(TAKES),
        RejectLane(mint, context.house),
        commit=commit,
        store=store,
    )
    try:
        await shell.run(context.ready)
    finally:
        await store.close()
