"""A scope: a room, a house or a device, with its windows, levels and budget."""

from dataclasses import dataclass
from typing import Literal

from nervus.brainstem.correlation import Episodes
from nervus.brainstem.level import Level
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.stream import LONGEST_MS, Shape, Stream
from nervus.brainstem.tuning import Mode, ScopeKey, Tuning
from nervus.wire.bucket import TokenBucket

Kind = Literal["alert", "arousal"]


@dataclass(slots=True)
class Said:
    """What was broadcast last of a level."""

    level: float
    state: str
    at_ms: int


class Scope:
    """What brainstem keeps of one scope; a flood in it spends its own budget only."""

    __slots__ = (
        "_seen", "alert", "arousal", "budget", "episodes", "key", "mode", "reason", "reviewed",
        "said", "settings", "streams",
    )  # fmt: skip

    def __init__(self, key: ScopeKey, settings: BrainstemSettings, now_ms: int) -> None:
        self.key = key
        self.settings = settings
        self.mode = Mode()
        self._seen = -1
        self.budget = TokenBucket(settings.scope_rate, settings.scope_burst, now_ms)
        self.streams: dict[tuple[str, bool], Stream] = {}
        self.episodes = Episodes()
        self.alert = Level()
        self.arousal = Level()
        self.reason: str | None = None
        self.said: dict[Kind, Said] = {}
        self.reviewed = False

    def tuned(self, tuning: Tuning) -> "Scope":
        """Itself, with the settings and the mode that are in force."""
        if self._seen != tuning.version:
            self._seen = tuning.version
            self.settings, self.mode = tuning.of(self.key)
        return self

    def shape(self, channel: str) -> Shape:
        """The live windows of a channel."""
        of_channel = self.settings.channels.get(channel)
        if of_channel is None:
            length_ms = hop_ms = self.settings.window_ms
        else:
            length_ms = of_channel.window_ms
            hop_ms = of_channel.hop_ms or length_ms
        factor = max(1, min(self.mode.window_factor, LONGEST_MS // length_ms))
        return Shape(length_ms * factor, hop_ms * factor)

    def level(self, kind: Kind) -> Level:
        """One of the levels that are broadcast."""
        return self.alert if kind == "alert" else self.arousal

    def idle(self) -> bool:
        """Whether there is nothing in it that time would not give back."""
        return not (self.streams or self.said or self.reviewed)
