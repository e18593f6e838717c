"""The `[history]` table of nervus.toml."""

from pydantic import BaseModel, ConfigDict, Field


class HistorySettings(BaseModel):
    """How much of the past is kept.

    Args:
        keep_days: Age beyond which messages are deleted.
        limit_mib: Size beyond which the oldest are deleted.
        trim_ms: How often either is looked at.
        slice_rows: Messages deleted at once, so that recording never waits long.
        batch_ms: How long a message waits for others to be written with; it is acknowledged, and
            found by queries, after that.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep_days: float = Field(default=30, gt=0, le=3_650)
    limit_mib: int = Field(default=1_024, ge=1, le=1_048_576)
    trim_ms: int = Field(default=1_000, ge=50, le=3_600_000)
    slice_rows: int = Field(default=5_000, ge=1, le=100_000)
    batch_ms: int = Field(default=50, ge=0, le=10_000)
