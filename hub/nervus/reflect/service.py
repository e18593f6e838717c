"""Reflect's I/O: reads RejectEvents on both brokers, keeps them in data/reflect.db."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Literal, Never

from nervus.bus import (
    DURABLE,
    KEPT,
    Context,
    Filter,
    Session,
    Shell,
    first_failure,
    origin,
    plane_settings,
    recording,
    subscriptions,
)
from nervus.errors import NervusError
from nervus.reflect.core import Effect, EraseRetained, Keep
from nervus.reflect.machine import IDENTITY, TAKES, build
from nervus.reflect.quarantine import ONCE, SCHEMA, keep
from nervus.reflect.settings import ReflectSettings
from nervus.store import Store
from nervus.wire import TopicSpec

_LOG: Final = logging.getLogger(__name__)
BROKERS: Final[tuple[Literal["spinal", "core"], ...]] = ("spinal", "core")


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    settings = plane_settings(context, "reflect", ReflectSettings)
    store = Store(
        context.data / "reflect.db", (SCHEMA, KEPT, ONCE), gather_s=settings.batch_ms / 1_000
    )

    to_erase: asyncio.Queue[tuple[TopicSpec, ...]] = asyncio.Queue()

    async def commit(effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Keep(rejects, limit):
                    await store.write(lambda connection: keep(connection, rejects, limit))
                case EraseRetained(specs):
                    to_erase.put_nowait(specs)  # one in ten seconds

    sessions = [
        Session(
            IDENTITY,
            broker,
            context.session_config(IDENTITY, broker),
            # At QoS 1, as parts with a store send them; a board's come at QoS 0.
            filters=[Filter(each.topic, 1) for each in subscriptions(TAKES)],
            limits=DURABLE,
        )
        for broker in BROKERS
    ]
    machine = build(settings, origin(context), lambda _: None)
    try:
        with recording(context, IDENTITY, settings) as journal:
            shell = Shell(
                machine.core,
                sessions,
                machine.guard,
                machine.lane,
                commit=commit,
                journal=journal,
                store=store,
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(shell.run(context.ready, context.trouble), name="reflect")
                tasks.create_task(_erase(context, to_erase), name="retained events")
    except BaseExceptionGroup as group:
        raise first_failure(group) from group
    finally:
        await store.close()


async def _erase(context: Context, to_erase: asyncio.Queue[tuple[TopicSpec, ...]]) -> Never:
    while True:
        specs = await to_erase.get()
        names = ", ".join(spec.name for spec in specs)
        try:
            number = await context.erase_retained(specs)
        except NervusError as error:
            # Whoever reads them refuses them all the same, and so reminds us.
            _LOG.warning("retained events stay at the broker (%s): %s", names, error)
        else:
            _LOG.info("erased %d retained events (%s)", number, names)
