"""The `[journal]` table of nervus.toml."""

from pydantic import BaseModel, ConfigDict, Field


class JournalSettings(BaseModel):
    """Whether planes record their inputs, and how much.

    Args:
        enabled: Whether they do. `nervus replay` needs it.
        segment_mib: Size of a file; the next one is begun beyond it.
        limit_mib: Size of all files of a plane; the oldest go first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    segment_mib: int = Field(default=16, ge=1, le=1_024)
    limit_mib: int = Field(default=256, ge=2, le=1_048_576)
