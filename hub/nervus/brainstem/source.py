"""The devices that speak: each with its own budget, clock and memory."""

from collections import OrderedDict
from sys import intern
from typing import Final

from nervus.brainstem.clock import SourceClock
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.signal import Signal
from nervus.wire.bucket import TokenBucket

HistoryKey = tuple[str, str, str, str, bool]
"""Sensor type, unit, scope level, scope, and whether it was measured long ago."""

SIGNALS_OF_A_SOURCE: Final = 64


class Source:
    """One device."""

    __slots__ = ("clock", "device_id", "samples", "signals", "urgent")

    def __init__(self, device_id: str, settings: BrainstemSettings, now_ms: int) -> None:
        self.device_id = device_id
        self.clock = SourceClock()
        self.samples = TokenBucket(settings.source_rate, settings.source_burst, now_ms)
        self.urgent: TokenBucket | None = None
        self.signals: dict[HistoryKey, Signal] = {}


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
        self._sources: OrderedDict[str, Source] = OrderedDict()
        self._signals = 0

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def signals(self) -> int:
        """How many signals are remembered."""
        return self._signals

    def get(self, device_id: str, now_ms: int) -> Source:
        """The device, made if it is new."""
        source = self._sources.get(device_id)
        if source is not None:
            self._sources.move_to_end(device_id)
            return source
        if len(self._sources) >= self._settings.device_limit:
            self._evict()
        source = self._sources[device_id] = Source(device_id, self._settings, now_ms)
        return source

    def signal(self, source: Source, key: HistoryKey) -> Signal:
        """A signal of the device that was got last, made if it is new."""
        signal = source.signals.get(key)
        if signal is not None:
            return signal
        if len(source.signals) >= SIGNALS_OF_A_SOURCE:
            del source.signals[next(iter(source.signals))]
            self.signals_evicted += 1
            self._signals -= 1
        while self._signals >= self._settings.signal_limit and len(self._sources) > 1:
            self._evict()
        self._signals += 1
        name, unit, scope_level, scope, historical = key
        # Of ten thousand thermometers each message brings the same words anew.
        name, unit = intern(name), intern(unit)
        signal = Signal((source.device_id, name, unit), self._settings.average_ms)
        source.signals[name, unit, scope_level, scope, historical] = signal
        return signal

    def hurries(self, source: Source, now_ms: int) -> bool:
        """Whether something urgent of the device may close its window at once."""
        if source.urgent is None:
            settings = self._settings
            source.urgent = TokenBucket(settings.urgent_rate, settings.urgent_burst, now_ms)
        return source.urgent.take(now_ms)

    def forget_signals(self, device_id: str) -> None:
        """Drop what is remembered of a device's signals, but not its budget."""
        source = self._sources.get(device_id)
        if source is not None:
            self._signals -= len(source.signals)
            source.signals.clear()

    def _evict(self) -> None:
        _, source = self._sources.popitem(last=False)
        self._signals -= len(source.signals)
        self.evicted += 1
