"""Brainstem's pure part, built alike by the service and by a replay."""

from typing import Final

from nervus.brainstem.core import Brainstem
from nervus.brainstem.settings import BrainstemSettings
from nervus.bus import Granted, Machine, Origin
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "brainstem"
TAKES: Final = (topics.AFFERENT, topics.DEVICE_STATUS, topics.REFLEX_FIRE)
"""From boards, on the spinal broker."""

FROM_PARTS: Final = (
    topics.PATTERN_TRIGGER,
    topics.PATTERN_REPORT,
    topics.MODE,
    topics.GLOBAL_PARAMETERS,
    # Our own, as a former run of ours left them.
    topics.GLOBAL_ALERT,
    topics.GLOBAL_AROUSAL,
)
"""On the core broker."""


def build(settings: BrainstemSettings, origin: Origin, granted: Granted) -> Machine:
    """Return core, guard and lane of one start."""
    mint = Mint(IDENTITY, "brainstem", seed=origin.seed, boot=origin.boot)
    return Machine(
        Brainstem(settings, mint),
        Guard((*TAKES, *FROM_PARTS), granted=granted),
        RejectLane(mint, origin.house),
    )
