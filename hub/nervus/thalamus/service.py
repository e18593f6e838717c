"""Thalamus's I/O: the relay role on the core broker."""

from typing import Final

from nervus.bus import KEPT, Context, Session, Shell, plane_settings, subscriptions
from nervus.store import Store
from nervus.thalamus.relay import Relay
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "relay"
TAKES: Final = (topics.RELAY_BUNDLE, topics.GATE_STATE)


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    settings = plane_settings(context, "thalamus", ThalamusSettings)
    mint = Mint(IDENTITY, "thalamus", seed=context.seed, boot=context.boot)
    session = Session(
        IDENTITY,
        "core",
        context.session_config(IDENTITY, "core"),
        filters=subscriptions(TAKES),
    )
    async with Store(context.data / "relay.db", (KEPT,)) as store:
        shell = Shell(
            Relay(settings, mint, context.house),
            [session],
            Guard(TAKES),
            RejectLane(mint, context.house),
            store=store,
        )
        await shell.run(context.ready)
