"""The core of brainstem: afferents into windows, windows into RelayBundles."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from nervus.brainstem.bucket import TokenBucket
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.signal import Signal
from nervus.brainstem.window import SignalKey, Window, devices
from nervus.wire import (
    Accepted,
    Connected,
    Mint,
    Publish,
    Rejected,
    Removed,
    refuse,
    timestamp,
    topics,
)
from nervus.wire.bundles import fit
from nervus.wire.contracts import (
    AfferentSignal,
    AfferentSignalPayload,
    DeviceStatus,
    Feature,
    ReflexFire,
    RelayBundle,
    RelayBundlePayload,
    Scalar,
)
from nervus.wire.registries import sensor_channels
from nervus.wire.topic import LEVEL_LIMIT

Effect = Publish | Rejected

K = TypeVar("K")
V = TypeVar("V")

_URGENT: Final = ("critical", "control")
_NEVER: Final = 2**63


@dataclass(slots=True)
class BrainstemCounters:
    """What the core has seen since it was made."""

    afferents: int = 0
    bad_quality: int = 0
    over_rate: int = 0
    over_urgent_rate: int = 0
    bundles: int = 0
    reflex_fires: int = 0
    devices_offline: int = 0


@dataclass(frozen=True, slots=True)
class _WindowKey:
    scope_level: str
    scope: str
    channel: str
    historical: bool


@dataclass(slots=True)
class _Device:
    samples: TokenBucket
    urgent: TokenBucket

    @classmethod
    def new(cls, settings: BrainstemSettings, now_ms: int) -> Self:
        return cls(
            TokenBucket(settings.source_rate, settings.source_burst, now_ms),
            TokenBucket(settings.urgent_rate, settings.urgent_burst, now_ms),
        )


class Brainstem:
    """Summarises afferents by (scope, channel) in tumbling windows; pure.

    A bundle always carries window statistics and never the afferent: one sample makes a bundle
    only when its window ended with it, or when it was urgent, and urgent bundles are capped for
    each device. Windows go by the time of receipt; `Window` holds all that event time would change.

    Above its rate a device's samples are refused as `queue_full` and lower the confidence of their
    window. An urgent sample above the urgent rate waits for its window's end like any other, and
    the bundle is critical all the same.
    """

    def __init__(self, settings: BrainstemSettings, mint: Mint) -> None:
        self.counters = BrainstemCounters()
        self._settings = settings
        self._mint = mint
        self._channels = sensor_channels()
        self._windows: dict[_WindowKey, Window] = {}
        self._devices: OrderedDict[str, _Device] = OrderedDict()
        self._signals: OrderedDict[tuple[SignalKey, str, str, bool], Signal] = OrderedDict()
        self._due_ms = _NEVER

    def step(self, event: Accepted | Removed | Connected, now_ms: int) -> Sequence[Effect]:
        """Take an afferent, a device's status or a reflex's report."""
        effects = self.tick(now_ms)
        if isinstance(event, Accepted):
            match event.message:
                case AfferentSignal():
                    effects += self._afferent(event, now_ms)
                case DeviceStatus():
                    self._status(event)
                case ReflexFire():
                    self.counters.reflex_fires += 1
                case other:
                    raise TypeError(f"brainstem takes no {type(other).__name__}")
        return effects

    def tick(self, now_ms: int) -> list[Effect]:
        """Close the windows that have ended."""
        if now_ms < self._due_ms:
            return []
        ended = [key for key, window in self._windows.items() if window.end_ms <= now_ms]
        effects: list[Effect] = []
        for key in ended:
            window = self._windows.pop(key)
            effects += self._bundles(key, window, window.end_ms, now_ms)
        self._due_ms = min((window.end_ms for window in self._windows.values()), default=_NEVER)
        return effects

    def _afferent(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        self.counters.afferents += 1
        levels, meta, payload = event.address.levels, event.message.meta, event.message.payload
        channel = self._channels.get(payload.sensor_type)
        if channel is None:
            reason = f"no channel for sensor type {payload.sensor_type!r} in the registry"
            return [refuse(event, "unknown_channel", "apply", reason)]
        members = list(_members(payload))
        if not all(len(name) <= LEVEL_LIMIT and name.isprintable() for name, _ in members):
            reason = f"payload.value: with the sensor type, a name has {LEVEL_LIMIT} characters"
            return [refuse(event, "schema_invalid", "apply", reason)]
        key = _WindowKey(
            levels["scope_level"], levels["scope"], channel, historical=bool(meta.historical)
        )
        urgent = meta.priority in _URGENT
        at_once, allowed = self._admit(levels["device_id"], now_ms, urgent=urgent)
        if not allowed:
            if key in self._windows:
                self._windows[key].refused += 1
            return [refuse(event, "queue_full", "queue", "above the device's sample rate")]
        window = self._window(key, now_ms)
        signals = [
            (SignalKey(name, levels["device_id"], payload.unit), value) for name, value in members
        ]
        if window is None or window.would_hold(signals) > self._settings.window_signal_limit:
            return [refuse(event, "queue_full", "queue", "too many signals are being summarised")]
        if not window.judge(payload.quality):
            self.counters.bad_quality += 1
            return []
        window.critical = window.critical or urgent
        for signal, value in signals:
            window.take(signal, self._signal(signal, key), value, now_ms)
        return self._close_early(key, window, now_ms) if at_once else []

    def _admit(self, device_id: str, now_ms: int, *, urgent: bool) -> tuple[bool, bool]:
        """Whether a sample closes its window at once, and whether it is taken at all."""
        device = _recent(
            self._devices,
            device_id,
            self._settings.device_limit,
            lambda: _Device.new(self._settings, now_ms),
        )
        if urgent:
            if device.urgent.take(now_ms):
                return True, True
            self.counters.over_urgent_rate += 1
        if device.samples.take(now_ms):
            return False, True
        self.counters.over_rate += 1
        return False, False

    def _window(self, key: _WindowKey, now_ms: int) -> Window | None:
        window = self._windows.get(key)
        if window is None and len(self._windows) < self._settings.window_limit:
            start_ms = now_ms - now_ms % self._settings.window_ms
            window = Window(start_ms, start_ms + self._settings.window_ms)
            self._windows[key] = window
            self._due_ms = min(self._due_ms, window.end_ms)
        return window

    def _signal(self, signal: SignalKey, key: _WindowKey) -> Signal:
        # What was measured long ago must not move the averages of what is measured now.
        return _recent(
            self._signals,
            (signal, key.scope_level, key.scope, key.historical),
            self._settings.signal_limit,
            lambda: Signal(self._settings.average_ms),
        )

    def _close_early(self, key: _WindowKey, window: Window, now_ms: int) -> Sequence[Effect]:
        self._windows[key] = Window(now_ms, window.end_ms)
        return self._bundles(key, window, now_ms, now_ms)

    def _bundles(
        self, key: _WindowKey, window: Window, end_ms: int, now_ms: int
    ) -> Sequence[Publish]:
        if not window:
            return []
        address = topics.relay_bundle(key.scope_level, key.scope, key.channel)
        salience, confidence = window.salience(), window.confidence()
        trace_id = self._mint.id(now_ms)

        def make(features: Sequence[Feature]) -> Publish:
            payload = RelayBundlePayload(
                channel=key.channel,
                window_start=timestamp(window.start_ms),
                window_ms=end_ms - window.start_ms,
                summary_features=list(features),
                sources=devices(features),
                salience=salience,
                confidence=confidence,
            )
            return self._mint.full(
                RelayBundle,
                address,
                payload,
                now_ms,
                ttl_ms=self._settings.bundle_ttl_ms,
                priority="critical" if window.critical else "normal",
                trace_id=trace_id,
                historical=key.historical or None,
            )

        bundles = fit(window.features(end_ms - window.start_ms), make)
        self.counters.bundles += len(bundles)
        return bundles

    def _status(self, event: Accepted) -> None:
        if event.message.payload.status != "offline":
            return
        self.counters.devices_offline += 1
        device_id = event.address.levels["device_id"]
        # An average across a gap of unknown length would say nothing.
        for key in [key for key in self._signals if key[0].device_id == device_id]:
            del self._signals[key]


def _members(payload: AfferentSignalPayload) -> Iterator[tuple[str, Scalar]]:
    """The values of a sample: one, or each member of a typed object by its name."""
    if isinstance(payload.value, dict):
        for member, value in payload.value.items():
            yield f"{payload.sensor_type}:{member}", value
    else:
        yield payload.sensor_type, payload.value


def _recent(table: OrderedDict[K, V], key: K, limit: int, make: Callable[[], V]) -> V:
    """The entry of a key, made if there is none; the one unused for longest makes room."""
    entry = table.get(key)
    if entry is not None:
        table.move_to_end(key)
        return entry
    if len(table) >= limit:
        table.popitem(last=False)
    entry = table[key] = make()
    return entry
