"""The devices that speak: each with its own budget, clock and memory."""

from collections import OrderedDict
from functools import lru_cache
from sys import intern
from typing import Final

from nervus.brainstem.clock import SourceClock
from nervus.brainstem.rate import Rate
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.signal import HistoryKey, Signal

SIGNALS_OF_A_SOURCE: Final = 64


class Source:
    """One device. There may be ten thousand of them, so it is made of few and small objects."""

    __slots__ = ("clock", "device_id", "samples_ms", "signals", "urgent_ms")

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.clock = SourceClock()
        self.samples_ms = 0.0
        """When its budget of samples is whole again."""
        self.urgent_ms = 0.0
        """When its budget of urgent ones is."""
        self.signals: tuple[Signal, ...] = ()
        """The oldest first. A board has a few sensors, and of so few each is found at once."""


class Sources:
    """All devices, at most `device_limit` with `signal_limit` signals between them.

    A bulkhead: what one device sends is bounded in rate and in memory by itself. One with more than
    64 signals loses its own oldest; when all together have too many, the device that was quiet
    longest is forgotten. Both are counted.
    """

    def __init__(self, settings: BrainstemSettings) -> None:
        self.evicted = 0
        self.signals_evicted = 0
        self._settings = settings
        self._urgent = Rate(settings.urgent_rate, settings.urgent_burst)
        self._sources: OrderedDict[str, Source] = OrderedDict()
        self._signals = 0
        self.known: Final = self._sources.get
        """The device of an id, if it is known."""
        self.spoke: Final = self._sources.move_to_end
        """Note that one that is known has spoken last."""

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def signals(self) -> int:
        """How many signals are remembered."""
        return self._signals

    def get(self, device_id: str) -> Source:
        """The device, made if it is new."""
        source = self._sources.get(device_id)
        if source is not None:
            self._sources.move_to_end(device_id)
            return source
        if len(self._sources) >= self._settings.device_limit:
            self._evict()
        source = self._sources[device_id] = Source(device_id)
        return source

    def signal(self, source: Source, key: HistoryKey) -> Signal:
        """A signal of the device that was got last, made if it is new."""
        for signal in source.signals:
            if signal.history == key:
                return signal
        kept = source.signals
        if len(kept) >= SIGNALS_OF_A_SOURCE:
            kept = kept[1:]
            self.signals_evicted += 1
            self._signals -= 1
        while self._signals >= self._settings.signal_limit and len(self._sources) > 1:
            self._evict()
        self._signals += 1
        signal = Signal(source.device_id, _shared(key), self._settings.average_ms)
        source.signals = (*kept, signal)
        return signal

    def hurries(self, source: Source, now_ms: int) -> bool:
        """Whether something urgent of the device may close its window at once; if so, it has."""
        whole_ms = self._urgent.take(source.urgent_ms, now_ms)
        if whole_ms is None:
            return False
        source.urgent_ms = whole_ms
        return True

    def forget_signals(self, device_id: str) -> None:
        """Drop what is remembered of a device's signals, but not its budget."""
        source = self._sources.get(device_id)
        if source is not None:
            self._signals -= len(source.signals)
            source.signals = ()

    def _evict(self) -> None:
        _, source = self._sources.popitem(last=False)
        self._signals -= len(source.signals)
        self.evicted += 1


@lru_cache(maxsize=1_024)
def _shared(key: HistoryKey) -> HistoryKey:
    """The same for all devices: of ten thousand thermometers each message brings the words anew."""
    name, unit, scope, historical = key
    return intern(name), intern(unit), scope, historical
