"""Raw's I/O: opened selectors from the spinal broker, gates from the core broker."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Never

from nervus.bus import (
    KEPT,
    Context,
    Filter,
    Origin,
    Session,
    Shell,
    first_failure,
    origin,
    plane_settings,
    recording,
    subscriptions,
)
from nervus.store import Store
from nervus.thalamus.machine import RAW_IDENTITY, build_raw
from nervus.thalamus.raw import RawSettings
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import topics
from nervus.wire.raw import RawGrant

WATCH_S: Final = 0.25
"""How often it is looked at what policy has opened."""

_SEEDS: Final = 1 << 64
_LOG: Final = logging.getLogger(__name__)


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it.

    Without an opt-in, which is the rule, it connects to nothing. Each change of what is opened
    begins anew, with subscriptions to exactly that.
    """
    settings = plane_settings(context, "thalamus", ThalamusSettings)
    context.ready()
    start = origin(context)
    while True:
        grants = await _changed(context, ())
        start = replace(start, seed=(start.seed + 1) % _SEEDS)
        names = ", ".join(f"{grant.id} ({grant.rate}/s)" for grant in grants)
        _LOG.warning("raw measurements rise: %s", names)
        try:
            async with asyncio.TaskGroup() as tasks:
                relaying = tasks.create_task(
                    _relay(context, RawSettings.of(settings, grants), start), name="raw"
                )
                await _changed(context, grants)
                relaying.cancel()
        except BaseExceptionGroup as group:
            raise first_failure(group) from group
        _LOG.info("what may rise has changed")


async def _changed(context: Context, known: Sequence[RawGrant]) -> tuple[RawGrant, ...]:
    """Wait until something else is opened than what is known."""
    while True:
        grants = tuple(await asyncio.to_thread(context.raw_grants))
        if grants != tuple(known):
            return grants
        await asyncio.sleep(WATCH_S)


async def _relay(context: Context, settings: RawSettings, start: Origin) -> Never:
    def granted(device_id: str) -> str | None:
        return context.grants().get(device_id)

    qos = topics.AFFERENT.critical_qos
    sessions = [
        Session(
            RAW_IDENTITY,
            "spinal",
            context.session_config(RAW_IDENTITY, "spinal"),
            filters=[Filter(grant.filter, qos) for grant in settings.grants],
        ),
        Session(
            RAW_IDENTITY,
            "core",
            context.session_config(RAW_IDENTITY, "core"),
            filters=subscriptions([topics.GATE_STATE]),
        ),
    ]  # fmt: skip
    with recording(context, RAW_IDENTITY, settings, started=start) as journal:
        told = granted if journal is None else journal.granted(granted)
        machine = build_raw(settings, start, told)
        async with Store(context.data / "raw.db", (KEPT,)) as store:
            shell = Shell(
                machine.core, sessions, machine.guard, machine.lane, journal=journal, store=store
            )
            await shell.run(on_trouble=context.trouble)
