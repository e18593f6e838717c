"""The `[thalamus]` table of nervus.toml."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nervus.thalamus.gate import Thresholds

ScopeName = Annotated[str, Field(pattern=r"^(device|room|house|user_session)/.+$")]

PARENT_LIMIT = 4
"""How many parents a scope may have above it."""


class ThalamusSettings(BaseModel):
    """How the relay gates.

    Args:
        gatekeeper: Whether a gatekeeper runs; then what no living gate decides is aggregated, not
            passed.
        attenuate_from: Inhibition from which only `attenuate_keep` messages of a window pass.
        aggregate_from: Inhibition from which messages are merged.
        drop_from: Inhibition from which nothing passes.
        attenuate_keep: Messages of a scope and channel that pass an attenuating gate in a window.
        attenuate_window_ms: That window.
        aggregate_ms: Least time between two merged messages of a scope and channel.
        contest_window_ms: Window in which channels compete where the winner takes all.
        contest_winners: Channels that win.
        gate_limit: Gates kept; more are refused as queue_full.
        stream_limit: Streams (scope, channel) held back at once; beyond it they are dropped.
        parents: Scope → the scope it lies in, both as level/name; what is not named lies in the
            house.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gatekeeper: bool = False
    attenuate_from: float = Field(default=0.3, ge=0, le=1)
    aggregate_from: float = Field(default=0.8, ge=0, le=1)
    drop_from: float = Field(default=1.0, ge=0, le=1)
    attenuate_keep: int = Field(default=1, ge=1, le=1_000)
    attenuate_window_ms: int = Field(default=5_000, ge=100, le=3_600_000)
    aggregate_ms: int = Field(default=1_000, ge=100, le=60_000)
    contest_window_ms: int = Field(default=1_000, ge=50, le=60_000)
    contest_winners: int = Field(default=1, ge=1, le=64)
    gate_limit: int = Field(default=4_096, ge=1, le=100_000)
    stream_limit: int = Field(default=4_096, ge=1, le=100_000)
    parents: dict[ScopeName, ScopeName] = Field(default_factory=dict)

    @property
    def thresholds(self) -> Thresholds:
        """The thresholds of the gate algebra."""
        return Thresholds(self.attenuate_from, self.aggregate_from, self.drop_from)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.attenuate_from <= self.aggregate_from <= self.drop_from:
            raise ValueError("attenuate_from <= aggregate_from <= drop_from must hold")
        for scope in self.parents:
            above, name = 0, scope
            while (name := self.parents.get(name, "")) != "":
                above += 1
                if above > PARENT_LIMIT:
                    raise ValueError(f"{scope} has more than {PARENT_LIMIT} parents, or is its own")
        return self
