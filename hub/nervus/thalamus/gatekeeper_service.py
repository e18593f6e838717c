"""The gatekeeper's I/O: proposals and modes from the core broker, leases in a shared store."""

from collections.abc import Sequence
from functools import partial

from nervus.bus import Context, Session, Shell, origin, plane_settings, recording, subscriptions
from nervus.store import Store
from nervus.thalamus.lease import Claim
from nervus.thalamus.lease_store import SCHEMA, claim
from nervus.thalamus.machine import GATEKEEPER_IDENTITY, GATEKEEPER_TAKES, build_gatekeeper
from nervus.thalamus.settings import ThalamusSettings


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it. A standby has an identity of its own.

    Without a ledger of what it retains: the topic of a gate passes to whoever holds the lease, and
    a former holder that erased what it once wrote would erase another's. The broker drops a gate
    when it expires.
    """
    identity = context.identity(GATEKEEPER_IDENTITY)
    settings = plane_settings(context, "thalamus", ThalamusSettings)
    machine = build_gatekeeper(settings, origin(context), lambda _: None)
    session = Session(
        identity,
        "core",
        context.session_config(identity, "core"),
        filters=subscriptions(GATEKEEPER_TAKES),
    )
    async with Store(context.data / "gates.db", (SCHEMA,), shared=True) as store:

        async def commit(claims: Sequence[Claim]) -> None:
            for wanted in claims:
                await shell.offer(await store.write(partial(claim, wanted=wanted)))

        with recording(context, GATEKEEPER_IDENTITY, settings, machine.events) as journal:
            shell = Shell(
                machine.core,
                [session],
                machine.guard,
                machine.lane,
                commit=commit,
                journal=journal,
            )
            await shell.run(context.ready, context.trouble)
