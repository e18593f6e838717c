"""History's pure part, built alike by the service and by a replay."""

from typing import Final

from nervus.bus import Granted, Machine, Origin
from nervus.history.core import History
from nervus.history.settings import HistorySettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "history"
TAKES: Final = tuple(spec for spec in topics.TOPICS if IDENTITY in spec.subscribe)


def build(settings: HistorySettings, origin: Origin, granted: Granted) -> Machine:
    """Return core, guard and lane of one start; nothing here depends on what boards are granted."""
    del granted
    mint = Mint(IDENTITY, "history", seed=origin.seed, boot=origin.boot)
    return Machine(History(settings), Guard(TAKES), RejectLane(mint, origin.house))
