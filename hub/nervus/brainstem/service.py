"""Brainstem's I/O: boards on the spinal broker, everybody else on the core broker."""

from nervus.brainstem.machine import FROM_PARTS, IDENTITY, TAKES, build
from nervus.brainstem.settings import BrainstemSettings
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


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    settings = plane_settings(context, "brainstem", BrainstemSettings)
    sessions = [
        Session(
            IDENTITY,
            "spinal",
            context.session_config(IDENTITY, "spinal"),
            filters=subscriptions(TAKES),
        ),
        Session(
            IDENTITY,
            "core",
            context.session_config(IDENTITY, "core"),
            filters=subscriptions(FROM_PARTS),
        ),
    ]

    def granted(device_id: str) -> str | None:
        return context.grants().get(device_id)

    with recording(context, "brainstem", settings) as journal:
        told = granted if journal is None else journal.granted(granted)
        machine = build(settings, origin(context), told)
        async with Store(context.data / "brainstem.db", (KEPT,)) as store:
            shell = Shell(
                machine.core, sessions, machine.guard, machine.lane, journal=journal, store=store
            )
            await shell.run(context.ready, context.trouble)
