"""A scope: a room, a house or a device, with its windows, levels and budget."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from nervus.brainstem.correlation import Episodes
from nervus.brainstem.level import Level
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.stream import LONGEST_MS, Shape, Stream
from nervus.brainstem.tuning import PLAIN, ScopeKey, Tuning
from nervus.brainstem.window import Window

Kind = Literal["alert", "arousal"]


@dataclass(slots=True)
class Said:
    """What was broadcast last of a level."""

    level: float
    state: str
    at_ms: int


class Scope:
    """What brainstem keeps of one scope; a flood in it spends its own budget only.

    There is one for each device where boards are granted no room, so it is small, too.
    """

    __slots__ = (
        "_seen", "alert", "arousal", "episodes", "key", "mode", "reason", "reviewed",
        "said", "samples_ms", "settings", "streams",
    )  # fmt: skip

    def __init__(self, key: ScopeKey, settings: BrainstemSettings) -> None:
        self.key = key
        self.settings = settings
        self.mode = PLAIN
        self._seen = -1
        self.samples_ms = 0.0
        """When its budget of samples is whole again."""
        self.streams: tuple[Stream, ...] = ()
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

    def stream(self, channel: str, *, historical: bool) -> Stream | None:
        """Its stream of a channel, of now or of long ago."""
        for stream in self.streams:
            if stream.channel == channel and stream.historical is historical:
                return stream
        return None

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


class Open(NamedTuple):
    """A window of a stream of a scope."""

    scope: Scope
    stream: Stream
    window: Window
