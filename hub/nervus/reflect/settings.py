"""Settings of the reflect plane: the table [reflect] of nervus.toml."""

from pydantic import BaseModel, ConfigDict, Field


class ReflectSettings(BaseModel):
    """Bounds of the quarantine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept_rows: int = Field(default=100_000, ge=1, le=100_000_000)
    """Rejects kept; the oldest go first."""

    batch_ms: int = Field(default=200, ge=0, le=10_000)
    """How long a reject waits for others to be written with; it is acknowledged after that."""
