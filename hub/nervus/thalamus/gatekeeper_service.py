"""The gatekeeper's I/O: proposals and modes from the core broker, leases in a shared store."""

import sqlite3
import time
from collections.abc import Collection, Sequence
from typing import Final

from nervus.bus import (
    DURABLE,
    KEPT,
    REMEMBERED,
    Context,
    Memory,
    Ownership,
    Retained,
    Session,
    Shell,
    origin,
    plane_settings,
    recorded,
    recording,
    subscriptions,
)
from nervus.store import Store
from nervus.thalamus.gatekeeper import Gatekeeper
from nervus.thalamus.lease import Claim, Leases, Scope
from nervus.thalamus.lease_store import SCHEMA, claim, lost
from nervus.thalamus.machine import GATEKEEPER_IDENTITY, GATEKEEPER_TAKES, build_gatekeeper
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import Accepted
from nervus.wire.contracts import ModulatorSignal
from nervus.wire.topic_parser import parse

STORE_SCHEMA: Final = (SCHEMA, KEPT, REMEMBERED)


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it. A standby has an identity of its own.

    All gatekeepers of a house share the store: leases, the gates that whoever holds them retains,
    and the proposals that still hold.
    """
    identity = context.identity(GATEKEEPER_IDENTITY)
    settings = plane_settings(context, "thalamus", ThalamusSettings)
    machine = build_gatekeeper(settings, origin(context), lambda _: None)
    session = Session(
        identity,
        "core",
        context.session_config(identity, "core"),
        filters=subscriptions(GATEKEEPER_TAKES),
        limits=DURABLE,
    )
    async with Store(context.data / "gates.db", STORE_SCHEMA, shared=True) as store:
        tenure = Tenure(machine.core)

        async def commit(claims: Sequence[Claim]) -> None:
            for wanted in claims:
                leases, left = await store.write(
                    lambda connection, wanted=wanted: tenure.claim(connection, wanted)  # type: ignore[misc]
                )
                if shell.ledger is not None:
                    shell.ledger.adopt(left)
                await shell.offer(leases)

        with recording(context, GATEKEEPER_IDENTITY, settings, machine.events) as journal:
            shell = Shell(
                machine.core,
                [session],
                machine.guard,
                machine.lane,
                commit=commit,
                journal=journal,
                store=store,
                ownership=Ownership(GATEKEEPER_IDENTITY, tenure.owns, tenure.lost),
                memory=Memory(store, GATEKEEPER_IDENTITY, proposal_key),
            )
            await shell.run(context.ready, context.trouble)


class Tenure:
    """Which scopes' gates are this gatekeeper's to retain: those it holds the lease on."""

    def __init__(self, core: Gatekeeper) -> None:
        self._core = core
        self._me = ("", "")
        self._epochs: dict[Scope, int | None] = {}

    def claim(self, connection: sqlite3.Connection, wanted: Claim) -> tuple[Leases, list[Retained]]:
        """Ask for leases; returns them, and the living gates of scopes newly held."""
        self._me = wanted.holder, wanted.start
        leases = claim(connection, wanted)
        new = {
            lease.scope
            for lease in leases.leases
            if lease.epoch is not None and lease.epoch != self._epochs.get(lease.scope)
        }
        self._epochs |= {lease.scope: lease.epoch for lease in leases.leases}
        if not new:
            return leases, []
        rows = recorded(connection, GATEKEEPER_IDENTITY)
        living = (row for row in rows if not row.is_gone(wanted.now_ms))
        return leases, [row for row in living if _scope(row.topic) in new]

    def owns(self, topic: str) -> bool:
        """Whether the gate of a topic is ours now, as far as the core knows."""
        scope = _scope(topic)
        now_ms = time.time_ns() // 1_000_000
        return scope is not None and self._core.epoch(scope, now_ms) is not None

    def lost(self, connection: sqlite3.Connection, topics: Collection[str]) -> set[str]:
        """Which of these topics belong to another by now."""
        scopes = {topic: _scope(topic) for topic in topics}
        known = {scope for scope in scopes.values() if scope is not None}
        gone = lost(connection, *self._me, known)
        return {topic for topic, scope in scopes.items() if scope is None or scope in gone}


def proposal_key(event: Accepted) -> str | None:
    """What a proposal takes the place of: the same source's intent, or any set_inhibition."""
    message = event.message
    if not isinstance(message, ModulatorSignal):
        return None
    source = "" if message.payload.intent == "set_inhibition" else message.meta.source
    return f"{event.address.topic} {message.payload.intent} {source}"


def _scope(topic: str) -> Scope | None:
    address = parse(topic)
    return (address.levels["scope_level"], address.levels["scope"]) if address else None
