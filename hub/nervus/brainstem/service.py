"""Brainstem's I/O: boards on the spinal broker, everybody else on the core broker."""

from dataclasses import replace
from typing import Final

from nervus.brainstem.machine import FOR_ALL, IDENTITY, SHARED_OUT, TAKES, build
from nervus.brainstem.settings import BrainstemSettings
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

_CORE: Final = replace(DURABLE, rest_ms=5)
"""Hardly anything comes there but a confirmation for each bundle that was urgent."""


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it.

    A shard summarises the boards of its scopes and tells their levels, and knows all modes and
    parameters: those of the house hold in its scopes, too.
    """
    settings = plane_settings(context, "brainstem", BrainstemSettings)
    identity, shard = context.identity(IDENTITY), context.shard

    def granted(device_id: str) -> str | None:
        return context.grants().get(device_id)

    sessions = [
        Session(
            identity,
            "spinal",
            context.session_config(identity, "spinal"),
            filters=shard.filters(TAKES),
            limits=DURABLE,
            wants=shard.wants(TAKES, granted),
        ),
        Session(
            identity,
            "core",
            context.session_config(identity, "core"),
            filters=[*shard.filters(SHARED_OUT), *subscriptions(FOR_ALL)],
            limits=_CORE,
            wants=shard.wants(SHARED_OUT),
        ),
    ]
    with recording(context, IDENTITY, settings) as journal:
        told = granted if journal is None else journal.granted(granted)
        machine = build(settings, origin(context), told)
        async with Store(context.data / f"{identity}.db", (KEPT,)) as store:
            shell = Shell(
                machine.core, sessions, machine.guard, machine.lane, journal=journal, store=store
            )
            await shell.run(context.ready, context.trouble)
