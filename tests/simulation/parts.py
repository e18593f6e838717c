"""The parts of a simulated house that are not ours: modulators, a hypothalamus, a controller."""

from random import Random
from typing import Any, Final

from nervus.wire import Mint, Publish, timestamp, topics
from nervus.wire.contracts import (
    GlobalModeUpdate,
    GlobalModeUpdatePayload,
    ModulatorSignal,
    ModulatorSignalPayload,
    ParameterUpdate,
    ParameterUpdatePayload,
    PatternTrigger,
    PatternTriggerPayload,
)
from nervus.wire.registries import names

HOUSE: Final = ("house", "home")
_SCOPES: Final = (("room", "kitchen"), ("room", "hall"), ("room", "bath"), HOUSE)
_MODULATORS: Final = 3


class Others:
    """Say what such parts say, each of its own kind.

    Args:
        random: Decides what.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._modulators = [self._mint(f"modulator-{n}") for n in range(_MODULATORS)]
        self._hypothalamus = self._mint("hypothalamus")
        self._controller = self._mint("controller")
        self._tuned = 0

    def proposal(self, clock_ms: int) -> Publish:
        """A modulator: a little attention more or less, or a gate shut for a while."""
        choose = self._random.choice
        scope = choose(_SCOPES)
        kind, target = choose([
            ("channel", choose(["somatic", "auditory", "visual_orient"])),
            ("nucleus", choose(["LGN", "VPL"])),
            ("topic_prefix", f"/bs/relay/event/room/{choose(_SCOPES[:3])[1]}"),
        ])  # fmt: skip
        intent: Any = choose(["boost", "suppress", "suppress", "set_inhibition"])
        how: dict[str, Any] = {"strength": choose([0.2, 0.4, 0.7, 1.0])}
        if intent == "set_inhibition":
            how = {"inhibition": choose([0.0, 0.2, 0.3, 0.5, 0.79, 0.8, 0.95, 1.0, 1.0])}
        payload = ModulatorSignalPayload(
            target_kind=kind,  # type: ignore[arg-type]
            target_id=target, intent=intent, **how,
        )  # fmt: skip
        address = topics.modulator_signal(*scope, kind, target)
        lives_ms = choose([500, 2_000, 8_000, 20_000])
        mint = choose(self._modulators)
        return mint.full(ModulatorSignal, address, payload, clock_ms, ttl_ms=lives_ms)

    def mode(self, clock_ms: int) -> Publish:
        """The hypothalamus: a mode for a while, of a room or the house."""
        scope = self._random.choice([HOUSE, ("room", "hall")])
        name = self._random.choice(sorted(names("modes")))
        payload = GlobalModeUpdatePayload(mode=name, reason="because")
        address, until = topics.mode(*scope), self._until(clock_ms)
        mint = self._hypothalamus
        return mint.full(GlobalModeUpdate, address, payload, clock_ms, expires_at=until)

    def parameter(self, clock_ms: int) -> Publish:
        """A controller: a parameter of the house."""
        self._tuned += 1
        value = {"window_ms": self._random.choice([100, 1_000, 5_000])}
        payload = ParameterUpdatePayload(name="brainstem", value=value, version=self._tuned)
        address, until = topics.global_parameters(*HOUSE), self._until(clock_ms)
        mint = self._controller
        return mint.full(ParameterUpdate, address, payload, clock_ms, expires_at=until)

    def trigger(self, clock_ms: int) -> Publish:
        """A trigger source: something is up."""
        choose = self._random.choice
        payload = PatternTriggerPayload(
            pattern_type=choose(["startle", "startle", "orient"]),
            trigger=choose(["smoke", "person"]),
            urgency=choose([0.2, 0.9, 1.0]),
        )
        address = topics.pattern_trigger(*choose(_SCOPES), payload.pattern_type)
        return self._controller.full(PatternTrigger, address, payload, clock_ms, deadline_ms=1_000)

    def _until(self, clock_ms: int) -> str:
        return timestamp(clock_ms + self._random.choice([2_000, 60_000]))

    def _mint(self, name: str) -> Mint:
        return Mint(name, "consumer", seed=self._random.getrandbits(64), boot=1)
