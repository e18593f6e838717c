"""Brainstem's I/O: reads boards on the spinal broker, publishes bundles on the core broker."""

from typing import Final

from nervus.brainstem.core import Brainstem
from nervus.brainstem.settings import BrainstemSettings
from nervus.bus import KEPT, Context, Session, Shell, plane_settings, subscriptions
from nervus.store import Store
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "brainstem"
TAKES: Final = (topics.AFFERENT, topics.DEVICE_STATUS, topics.REFLEX_FIRE)


async def run(context: Context) -> None:
    """Run until cancelled; the first failure ends it."""
    settings = plane_settings(context, "brainstem", BrainstemSettings)
    mint = Mint(IDENTITY, "brainstem", seed=context.seed, boot=context.boot)
    sessions = [
        Session(
            IDENTITY,
            "spinal",
            context.session_config(IDENTITY, "spinal"),
            filters=subscriptions(TAKES),
        ),
        Session(IDENTITY, "core", context.session_config(IDENTITY, "core")),
    ]
    async with Store(context.data / "brainstem.db", (KEPT,)) as store:
        shell = Shell(
            Brainstem(settings, mint),
            sessions,
            Guard(TAKES, granted=lambda device_id: context.grants().get(device_id)),
            RejectLane(mint, context.house),
            store=store,
        )
        await shell.run(context.ready)
