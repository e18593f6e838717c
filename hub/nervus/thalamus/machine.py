"""The relay's pure part, built alike by the service and by a replay."""

from typing import Final

from nervus.bus import Granted, Machine, Origin
from nervus.thalamus.relay import Relay
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "relay"
TAKES: Final = (topics.RELAY_BUNDLE, topics.GATE_STATE)


def build(settings: ThalamusSettings, origin: Origin, granted: Granted) -> Machine:
    """Return core, guard and lane of one start; no board speaks on the core broker."""
    del granted
    mint = Mint(IDENTITY, "thalamus", seed=origin.seed, boot=origin.boot)
    return Machine(
        Relay(settings, mint, origin.house), Guard(TAKES), RejectLane(mint, origin.house)
    )
