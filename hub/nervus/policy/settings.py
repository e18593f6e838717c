"""Settings of the policy plane: the table [policy] of nervus.toml."""

from pydantic import BaseModel, ConfigDict, Field


class PolicySettings(BaseModel):
    """Bounds; there is no setting that turns policy or audit off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: int = Field(default=20_000, ge=100, le=1_000_000)
    """Rules and patterns looked at for one decision; beyond it the request is denied."""
