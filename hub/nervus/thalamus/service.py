"""Thalamus's I/O: the relay role on the core broker."""

from nervus.bus import (
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
from nervus.thalamus.machine import IDENTITY, TAKES, build
from nervus.thalamus.settings import ThalamusSettings


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    settings = plane_settings(context, "thalamus", ThalamusSettings)
    session = Session(
        IDENTITY,
        "core",
        context.session_config(IDENTITY, "core"),
        filters=subscriptions(TAKES),
    )
    machine = build(settings, origin(context), lambda _: None)
    with recording(context, "relay", settings) as journal:
        async with Store(context.data / "relay.db", (KEPT,)) as store:
            shell = Shell(
                machine.core, [session], machine.guard, machine.lane, journal=journal, store=store
            )
            await shell.run(context.ready)
