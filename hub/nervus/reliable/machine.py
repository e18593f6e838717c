"""Reliable's pure part, built alike by the service and by a replay."""

from typing import Final

from nervus.bus import Granted, Machine, Origin
from nervus.reliable.core import Desired, Grants, Published, Reliable, Restored
from nervus.reliable.settings import ReliableSettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "reliable"
TAKES: Final = (
    topics.EFFERENT_REPORT,
    topics.DEVICE_STATUS,
    topics.DEVICE_INFO,
    topics.PING,
    topics.REFLEX_STATE,
    topics.REFLEX_REPORT,
    topics.REFLEX_FIRE,
)

EVENTS: Final = (Restored, Grants, Desired, Published)
"""What is offered to it besides what policy hands on."""


def build(settings: ReliableSettings, origin: Origin, granted: Granted) -> Machine:
    """Return core, guard and lane of one start."""
    mint = Mint(IDENTITY, "reliable", seed=origin.seed, boot=origin.boot)
    return Machine(
        Reliable(settings, mint),
        Guard(TAKES, granted=granted),
        RejectLane(mint, origin.house),
    )
