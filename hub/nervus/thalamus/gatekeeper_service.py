"""The gatekeeper's I/O: proposals and modes from the core broker, leases in a shared store."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from nervus.bus import Context, Session, Shell, plane_settings, subscriptions
from nervus.store import Store
from nervus.thalamus.gatekeeper import Gatekeeper
from nervus.thalamus.lease import Claim
from nervus.thalamus.lease_store import SCHEMA, claim
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "gatekeeper"
TAKES: Final = (topics.MODULATOR_SIGNAL, topics.MODE)


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it. A standby has an identity of its own."""
    identity = context.identity(IDENTITY)
    settings = plane_settings(context, "thalamus", ThalamusSettings)
    mint = Mint(identity, "thalamus", seed=context.seed, boot=context.boot)
    store = Store(context.data / "gates.db", (SCHEMA,), shared=True)

    async def commit(claims: Sequence[Claim]) -> None:
        for wanted in claims:
            await shell.offer(await store.write(partial(claim, wanted=wanted)))

    session = Session(
        identity, "core", context.session_config(identity, "core"), filters=subscriptions(TAKES)
    )
    shell = Shell(
        Gatekeeper(settings.gates, mint, context.house),
        [session],
        Guard(TAKES),
        RejectLane(mint, context.house),
        commit=commit,
    )
    try:
        await shell.run(context.ready)
    finally:
        await store.close()
