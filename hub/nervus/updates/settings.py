"""Settings of the updates plane: the table [updates] of nervus.toml."""

from pydantic import BaseModel, ConfigDict, Field


class UpdatesSettings(BaseModel):
    """Bounds and times; the defaults suit boards on Wi-Fi."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_once: int = Field(default=4, ge=1, le=64)
    """Boards that fetch or are on trial at the same time, in all roll-outs together."""

    chunks_per_s: float = Field(default=100.0, ge=1.0, le=1_000.0)
    """Chunks a second that one board gets; beyond that one request of it waits."""

    settle_ms: int = Field(default=1_000, ge=0, le=30_000)
    """After a start: how long the boards' retained births may take to arrive."""

    answer_ms: int = Field(default=15_000, ge=100, le=600_000)
    """After such a silence a board is offered the update again; the pause doubles each time."""

    quiet_ms: int = Field(default=120_000, ge=1_000, le=86_400_000)
    """A board that says nothing for so long has gone quiet; for a chunk it asks every 10 s."""

    probe_ms: int = Field(default=45_000, ge=100, le=600_000)
    """So long after the last news of a trial its board is asked by another offer; a boot is good
    after 30 s."""

    trial_ms: int = Field(default=300_000, ge=1_000, le=86_400_000)
    """How long a trial may last, three bad boots and the way back included."""

    whole_ms: int = Field(default=1_800_000, ge=1_000, le=86_400_000)
    """How long a board may take from the offer to the trial."""

    tries: int = Field(default=3, ge=1, le=100)
    """How often a board may fail for a reason that may pass before it counts as failed."""

    kept_rollouts: int = Field(default=100, ge=1, le=10_000)
    """Ended roll-outs that are remembered; the oldest go first."""
