"""The pure part of the command service: policy and reliable, who share what is decided."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from nervus import reliable
from nervus.bus import Granted, Machine, Origin
from nervus.policy.core import Policy, RegimeChanged, Unannounced
from nervus.policy.settings import PolicySettings
from nervus.reliable import Committed, ReliableSettings
from nervus.wire import Guard, Mint, RejectLane, topics

IDENTITY: Final = "policy"
SERVICE: Final = "command"
RELIABLE: Final = "reliable"
TAKES: Final = (topics.COMMAND_REQUEST,)
EVENTS: Final = (RegimeChanged, Unannounced, *reliable.EVENTS)
HANDED: Final = (Committed,)
_SEEDS: Final = 1 << 64


class CommandSettings(BaseModel):
    """The tables of both planes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: PolicySettings = Field(default_factory=PolicySettings)
    reliable: ReliableSettings = Field(default_factory=ReliableSettings)


def build(settings: CommandSettings, origin: Origin, granted: Granted) -> Machine:
    """Return the machine of one start: members policy and reliable, in one journal."""
    below = reliable.build(settings.reliable, origin, granted)
    # Two mints of one seed would make the same ids.
    mint = Mint(IDENTITY, "policy", seed=~origin.seed % _SEEDS, boot=origin.boot)
    above = Machine(
        Policy(settings.policy, mint, below.core),
        Guard(TAKES),
        RejectLane(mint, origin.house),
    )
    return Machine(
        above.core,
        above.guard,
        above.lane,
        EVENTS,
        members={IDENTITY: above, RELIABLE: below},
        handed=HANDED,
    )
