"""The `[thalamus]` table of nervus.toml."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nervus.thalamus.gate import Mode, Thresholds
from nervus.wire.registries import mode_modulators, names

ScopeName = Annotated[str, Field(pattern=r"^(device|room|house|user_session)/.+$")]
TargetKind = Literal["channel", "nucleus", "topic_prefix"]
TargetId = Annotated[str, Field(min_length=1, max_length=64)]
Unit = Annotated[float, Field(ge=0, le=1)]

PARENT_LIMIT = 4
"""How many parents a scope may have above it."""


class ModeRule(BaseModel):
    """One thing a mode asks of the gatekeeper, in the mode's scope and while the mode holds.

    Args:
        target_kind: What kind of thing is meant.
        target_id: Which one.
        intent: As a modulator's.
        strength: Of boost and suppress; it does not fade while the mode holds.
        inhibition: Of set_inhibition; a modulator's own still overrides it.
        gate_mode: How channels compete at this gate while the mode holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_kind: TargetKind
    target_id: TargetId
    intent: Literal["boost", "suppress", "set_inhibition"]
    strength: Unit | None = None
    inhibition: Unit | None = None
    gate_mode: Mode | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.intent == "set_inhibition") != (self.inhibition is not None):
            raise ValueError("set_inhibition comes with inhibition, and nothing else does")
        if (self.intent == "set_inhibition") == (self.strength is not None):
            raise ValueError("boost and suppress come with strength, and nothing else does")
        return self


class StandingGate(BaseModel):
    """A gate that is kept at all times.

    Args:
        scope: Its scope.
        target_kind: What kind of thing it stands before.
        target_id: Which one.
        base: Its inhibition while nobody proposes anything.
        mode: How channels compete there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: ScopeName
    target_kind: TargetKind
    target_id: TargetId
    base: Unit = 0.0
    mode: Mode = "multi"


class GatesSettings(BaseModel):
    """How the gatekeeper decides.

    Args:
        base: Inhibition of the gate that stands before everything in the house.
        gate_ms: Longest life of a published gate; renewed at half of it while its reason lasts.
        lease_ms: How long a gatekeeper may be silent before another takes its scopes over.
        publish_ms: Least time between two gates of one selector.
        publish_rate: Gates published in a second, sustained, over all selectors.
        step: A change of inhibition below this waits for the renewal.
        selector_limit: Selectors gated at once; more are refused as queue_full.
        source_limit: Proposals for one selector, likewise.
        standbys: Further gatekeepers, ready to take over.
        standing: Further gates that are kept at all times.
        modes: What a mode asks; a mode named here is read here and not in registries/modes.json.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: Unit = 0.0
    gate_ms: int = Field(default=10_000, ge=500, le=3_600_000)
    lease_ms: int = Field(default=6_000, ge=500, le=600_000)
    publish_ms: int = Field(default=200, ge=50, le=60_000)
    publish_rate: int = Field(default=200, ge=1, le=10_000)
    step: float = Field(default=0.02, gt=0, le=0.5)
    selector_limit: int = Field(default=4_096, ge=1, le=100_000)
    source_limit: int = Field(default=64, ge=1, le=1_024)
    standbys: int = Field(default=0, ge=0, le=3)
    standing: tuple[StandingGate, ...] = ()
    modes: dict[str, tuple[ModeRule, ...]] = Field(default_factory=dict)

    @field_validator("modes")
    @classmethod
    def _modes_exist(
        cls, value: dict[str, tuple[ModeRule, ...]]
    ) -> dict[str, tuple[ModeRule, ...]]:
        if unknown := sorted(set(value) - names("modes")):
            raise ValueError(f"no such mode: {unknown[0]}")
        return value

    def rules(self, mode: str) -> tuple[ModeRule, ...]:
        """What a mode asks; nothing if nobody says."""
        if mode in self.modes:
            return self.modes[mode]
        return tuple(ModeRule(**one) for one in mode_modulators().get(mode, ()))


class DeltaRule(BaseModel):
    """A stream that is delta-only: deltas with key frames. Whoever reads it uses `BundleReader`.

    Args:
        scope: Its scope.
        channel: Its channel; every channel of the scope when absent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: ScopeName
    channel: str | None = None


class ThalamusSettings(BaseModel):
    """How the relay gates, and how the gatekeeper decides.

    Args:
        gatekeeper: Whether a gatekeeper runs; then what no living gate decides is aggregated, not
            passed.
        gates: How the gatekeeper decides.
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
        scope_rate: Drivers of a scope relayed in a second, sustained; what is more is shed, the
            lowest priority first, control never.
        scope_burst: Drivers of a scope at once.
        relay_rate: Drivers of all scopes in a second, likewise.
        relay_burst: Drivers of all scopes at once.
        deltas: Streams that are sent as deltas; none unless named.
        delta_key_ms: Longest time between two key frames of such a stream.
        parents: Scope → the scope it lies in, both as level/name; what is not named lies in the
            house.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gatekeeper: bool = True
    gates: GatesSettings = GatesSettings()
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
    scope_rate: int = Field(default=2_000, ge=1, le=1_000_000)
    scope_burst: int = Field(default=4_000, ge=1, le=1_000_000)
    relay_rate: int = Field(default=20_000, ge=1, le=1_000_000)
    relay_burst: int = Field(default=20_000, ge=1, le=1_000_000)
    deltas: tuple[DeltaRule, ...] = ()
    delta_key_ms: int = Field(default=10_000, ge=100, le=600_000)
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
