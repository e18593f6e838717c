"""Thalamus's I/O: the relay role on the core broker."""

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
from nervus.store import Store
from nervus.thalamus.machine import IDENTITY, SHARED_OUT, build
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import topics


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it.

    A shard relays the drivers of its scopes, and knows all gates: those of parents count, too.
    """
    settings = plane_settings(context, "thalamus", ThalamusSettings)
    identity, shard = context.identity(IDENTITY), context.shard
    session = Session(
        identity,
        "core",
        context.session_config(identity, "core"),
        filters=[*shard.filters(SHARED_OUT), *subscriptions([topics.GATE_STATE])],
        limits=DURABLE,
        wants=shard.wants(SHARED_OUT),
    )
    machine = build(settings, origin(context), lambda _: None)
    with recording(context, IDENTITY, settings) as journal:
        async with Store(context.data / f"{identity}.db", (KEPT,)) as store:
            shell = Shell(
                machine.core, [session], machine.guard, machine.lane, journal=journal, store=store
            )
            await shell.run(context.ready, context.trouble)
