"""The `[brainstem]` table of nervus.toml."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(gt=0, le=10_000)]


class BrainstemSettings(BaseModel):
    """How afferents are summarised.

    Args:
        window_ms: Length of the tumbling windows; they begin at its multiples.
        bundle_ttl_ms: How long a bundle is worth reading.
        average_ms: Time constant of moving averages.
        source_rate: Samples a device may send in a second, sustained; more are refused.
        source_burst: Samples a device may send at once.
        urgent_rate: Windows a device may close early in a second, sustained.
        urgent_burst: Windows a device may close early at once.
        device_limit: Devices told apart; the one that was quiet longest is forgotten.
        signal_limit: Signals (sensor of a device) whose history is kept, likewise.
        window_limit: Windows open at once, over all scopes and channels.
        window_signal_limit: Signals in one window.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_ms: int = Field(default=1_000, ge=50, le=60_000)
    bundle_ttl_ms: int = Field(default=5_000, ge=1_000, le=60_000)
    average_ms: int = Field(default=10_000, ge=100, le=3_600_000)
    source_rate: Rate = 50
    source_burst: int = Field(default=100, ge=1, le=10_000)
    urgent_rate: Rate = 10
    urgent_burst: int = Field(default=20, ge=1, le=1_000)
    device_limit: int = Field(default=4_096, ge=1, le=100_000)
    signal_limit: int = Field(default=16_384, ge=1, le=1_000_000)
    window_limit: int = Field(default=1_024, ge=1, le=100_000)
    window_signal_limit: int = Field(default=512, ge=1, le=10_000)
