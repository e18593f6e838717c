"""Settings of the policy plane: the table [policy] of nervus.toml."""

from pydantic import BaseModel, ConfigDict, Field


class PolicySettings(BaseModel):
    """Bounds; there is no setting that turns policy or audit off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: int = Field(default=20_000, ge=100, le=1_000_000)
    """Rules and patterns looked at for one decision; beyond it the request is denied."""

    raw_rate_limit: int = Field(default=50, ge=1, le=1_000)
    """Measurements a second that one raw opt-in may ask for."""

    raw_longest_ms: int = Field(default=86_400_000, ge=1_000, le=2_678_400_000)
    """How far ahead the end of a raw opt-in may lie."""
