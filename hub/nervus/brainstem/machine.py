"""Brainstem's pure part, built alike by the service and by a replay."""

from typing import Final

from nervus.brainstem.core import Brainstem
from nervus.brainstem.settings import BrainstemSettings
from nervus.bus import Granted, Machine, Origin, numbered
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "brainstem"
TAKES: Final = (topics.AFFERENT, topics.MEDIA_EVENT, topics.DEVICE_STATUS, topics.REFLEX_FIRE)
"""From boards, on the spinal broker."""

SHARED_OUT: Final = (
    topics.PATTERN_TRIGGER,
    topics.PATTERN_REPORT,
    # Our own, as a former run of ours left them.
    topics.GLOBAL_ALERT,
    topics.GLOBAL_AROUSAL,
)
"""On the core broker, each for the shard that owns its scope …"""

FOR_ALL: Final = (topics.MODE, topics.GLOBAL_PARAMETERS)
"""… and for every shard: a house's concern all scopes."""

FROM_PARTS: Final = (*SHARED_OUT, *FOR_ALL)


def build(settings: BrainstemSettings, origin: Origin, granted: Granted) -> Machine:
    """Return core, guard and lane of one start."""
    source = numbered(IDENTITY, origin.number)
    mint = Mint(source, "brainstem", seed=origin.seed, boot=origin.boot)
    return Machine(
        Brainstem(settings, mint, origin.shard.owns),
        Guard((*TAKES, *FROM_PARTS), granted=granted),
        RejectLane(mint, origin.house),
    )
