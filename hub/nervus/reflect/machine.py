"""Reflect's pure part, built alike by the service and by a replay."""

from typing import Final

from nervus.bus import Granted, Machine, Origin
from nervus.reflect.core import Reflect
from nervus.reflect.settings import ReflectSettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "reflect"
TAKES: Final = (topics.REJECT,)


def build(settings: ReflectSettings, origin: Origin, granted: Granted) -> Machine:
    """Return core, guard and lane of one start; nothing here depends on what boards are granted."""
    del granted
    mint = Mint(IDENTITY, "reflect", seed=origin.seed, boot=origin.boot)
    return Machine(Reflect(settings), Guard(TAKES), RejectLane(mint, origin.house))
