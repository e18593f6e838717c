"""The `[brainstem]` table of nervus.toml."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nervus.wire.registries import channels

Rate = Annotated[float, Field(gt=0, le=100_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class WindowShape(BaseModel):
    """The windows of one channel.

    Args:
        window_ms: Their length.
        hop_ms: How often one ends; a divisor of `window_ms`. Sliding windows when it is shorter,
            tumbling ones when it is absent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_ms: int = Field(ge=50, le=60_000)
    hop_ms: int | None = Field(default=None, ge=50, le=60_000)

    @model_validator(mode="after")
    def _hops_fill_the_window(self) -> Self:
        if self.hop_ms is not None and self.window_ms % self.hop_ms:
            raise ValueError("hop_ms must be a divisor of window_ms")
        return self


class BrainstemSettings(BaseModel):
    """How afferents are summarised, and what brainstem tells everybody.

    Args:
        window_ms: Length of the tumbling windows; they begin at its multiples.
        channels: Windows of single channels that differ from that, by channel.
        lateness_ms: How long after its end a window waits for what was measured in it.
        oldest_ms: How long ago a live sample may have been measured; an older one is refused,
            unless it is urgent.
        historical_window_ms: Length of the windows of what was measured long ago.
        historical_limit: Such windows open at once, for each scope and channel.
        bundle_ttl_ms: How long a bundle is worth reading.
        average_ms: Time constant of moving averages.
        source_rate: Samples a device may send in a second, sustained; more are refused.
        source_burst: Samples a device may send at once.
        urgent_rate: Windows a device may close early in a second, sustained.
        urgent_burst: Windows a device may close early at once.
        scope_rate: Samples taken from a scope in a second, sustained; more are refused.
        scope_burst: Samples taken from a scope at once.
        device_limit: Devices told apart; the one that was quiet longest is forgotten.
        signal_limit: Signals (sensor of a device) whose history is kept, likewise.
        scope_limit: Scopes told apart; more are refused until one was idle for a minute.
        window_signal_limit: Signals in one window.
        correlate_salience: How salient a bundle is at least to be bound to others.
        correlate_gap_ms: How far apart bound windows of a scope may lie.
        correlate_longest_ms: How long one binding lasts at most.
        alert_half_life_ms: Time in which an alert falls to half.
        arousal_half_life_ms: Time in which arousal falls to half.
        arousal_gain: How much the most salient window arouses.
        broadcast_ms: Shortest time between two broadcasts of a scope's decaying level.
        broadcast_ttl_ms: How long a broadcast holds unless it is renewed.
        request_limit: Pattern requests that may wait for an answer.
        triggers: Names of triggers beyond those of the registry, by pattern.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_ms: int = Field(default=1_000, ge=50, le=60_000)
    channels: dict[str, WindowShape] = Field(default_factory=dict)
    lateness_ms: int = Field(default=250, ge=0, le=10_000)
    oldest_ms: int = Field(default=2_000, ge=0, le=60_000)
    historical_window_ms: int = Field(default=60_000, ge=1_000, le=3_600_000)
    historical_limit: int = Field(default=16, ge=1, le=1_000)
    bundle_ttl_ms: int = Field(default=5_000, ge=1_000, le=60_000)
    average_ms: int = Field(default=10_000, ge=100, le=3_600_000)
    source_rate: Rate = 50
    source_burst: int = Field(default=100, ge=1, le=100_000)
    urgent_rate: Rate = 10
    urgent_burst: int = Field(default=20, ge=1, le=1_000)
    scope_rate: Rate = 10_000
    scope_burst: int = Field(default=20_000, ge=1, le=1_000_000)
    device_limit: int = Field(default=16_384, ge=1, le=100_000)
    signal_limit: int = Field(default=32_768, ge=1, le=1_000_000)
    scope_limit: int = Field(default=16_384, ge=1, le=100_000)
    window_signal_limit: int = Field(default=512, ge=1, le=10_000)
    correlate_salience: Share = 0.5
    correlate_gap_ms: int = Field(default=500, ge=0, le=60_000)
    correlate_longest_ms: int = Field(default=30_000, ge=0, le=600_000)
    alert_half_life_ms: int = Field(default=60_000, ge=100, le=86_400_000)
    arousal_half_life_ms: int = Field(default=30_000, ge=100, le=86_400_000)
    arousal_gain: Share = 0.25
    broadcast_ms: int = Field(default=1_000, ge=100, le=60_000)
    broadcast_ttl_ms: int = Field(default=60_000, ge=1_000, le=3_600_000)
    request_limit: int = Field(default=256, ge=1, le=10_000)
    triggers: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("channels")
    @classmethod
    def _channels_exist(cls, value: dict[str, WindowShape]) -> dict[str, WindowShape]:
        if unknown := sorted(set(value) - channels()):
            raise ValueError(f"no such channel: {unknown[0]}")
        return value
