"""Settings of the reliable plane: the table [reliable] of nervus.toml."""

from pydantic import BaseModel, ConfigDict, Field


class ReliableSettings(BaseModel):
    """Bounds and times; the defaults suit a house on a local network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    open_limit: int = Field(default=1024, ge=1, le=100_000)
    """Actions without a published outcome; beyond it requests are refused as retriable."""

    kept_limit: int = Field(default=20_000, ge=1, le=1_000_000)
    """Finished actions remembered, so that a repeat is answered and not done again."""

    kept_ms: int = Field(default=86_400_000, ge=60_000, le=2_678_400_000)
    """How long a finished action is remembered."""

    grace_ms: int = Field(default=2_000, ge=0, le=5_000)
    """How long after the deadline a report of a dispatched command is waited for."""

    first_retry_ms: int = Field(default=1_000, ge=50, le=60_000)
    """First pause before a command or a reflex is sent again; it doubles each time."""

    last_retry_ms: int = Field(default=15_000, ge=50, le=600_000)
    """Longest pause."""

    settle_ms: int = Field(default=2_000, ge=0, le=30_000)
    """After a start or a board's birth: how long retained states may take to arrive."""
