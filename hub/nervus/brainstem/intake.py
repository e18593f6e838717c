"""Afferents into windows: where each belongs, and whether it is taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nervus.brainstem.agenda import Action, Agenda
from nervus.brainstem.rate import Rate
from nervus.brainstem.scope import Open, Scope
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.signal import Signal
from nervus.brainstem.source import Source, Sources
from nervus.brainstem.stream import LONGEST_MS, Stream
from nervus.brainstem.window import Window
from nervus.wire import Accepted, Hold, Rejected, refuse
from nervus.wire.contracts import Scalar
from nervus.wire.registries import sensor_channels
from nervus.wire.topic import LEVEL_LIMIT

_URGENT: Final = ("critical", "control")


@dataclass(slots=True)
class IntakeCounters:
    """What became of afferents; all but the bad of quality and the refused are in a window.

    `moved` are those that came within `oldest_ms`, but after their window had ended.
    """

    afferents: int = 0
    bad_quality: int = 0
    historical: int = 0
    late: int = 0
    moved: int = 0
    over_rate: int = 0
    over_scope_rate: int = 0
    over_urgent_rate: int = 0
    unknown: int = 0
    crowded: int = 0


class Intake:
    """Judges what the guard let through and puts it into the window of its event time.

    In this order: the sensor type has a channel; it is not late (`SourceClock`), unless it is
    urgent or says that it is historical; its device is within its rate, then its scope within its
    own; the window has room. A live window closes `lateness_ms` after its end; one of long ago as
    long after it was opened as live windows last, for what is replayed comes in haste.

    Args:
        settings: Those of the plane.
        sources: What is known of devices.
        agenda: Where the ends of windows are put down.
        end: What is to be done when a window ends.
        retire: What is to be done when a stream may have become idle.
    """

    def __init__(
        self,
        settings: BrainstemSettings,
        sources: Sources,
        agenda: Agenda,
        end: Action,
        retire: Action,
    ) -> None:
        self.counters = IntakeCounters()
        self._settings = settings
        self._sources = sources
        self._agenda = agenda
        self._end = end
        self._retire = retire
        self._channels = sensor_channels()
        self._source_rate = Rate(settings.source_rate, settings.source_burst)
        self._scope_rate = Rate(settings.scope_rate, settings.scope_burst)
        # Settings are models, and slow to answer.
        self._oldest_ms = settings.oldest_ms
        self._signal_limit = settings.window_signal_limit
        self._holds = 0

    def take_more(self, event: Accepted, now_ms: int) -> Sequence[Rejected] | None:
        """Take what goes where the last sample of its signal went, as nearly all do.

        That is one good value, neither urgent nor of long ago, for a window that is still open:
        with the effects of `take`, but nothing is looked for anew.

        Returns:
            What comes of it; None when it is not like that, and nothing has been done.
        """
        address, parts = event.address, event.message.__dict__
        meta, payload = parts["meta"].__dict__, parts["payload"].__dict__
        device_id = address.levels["device_id"]
        source = self._sources.known(device_id)
        if source is None:
            return None
        unit = payload.get("unit") or ""
        for signal in source.signals:
            # The guard makes one address for each topic.
            if signal.address is address and signal.history[1] == unit:
                break
        else:
            return None
        place, value = signal.place, payload["value"]
        if (
            place is None
            or type(value) is dict
            or payload.get("quality") is not None
            or meta.get("priority") in _URGENT
            or meta.get("historical")
        ):
            return None
        # To be placed twice does not change where it lies.
        event_ms = source.clock.place(meta, now_ms, self._oldest_ms)
        scope, _, window = place
        if event_ms is None or not window.opens_ms <= event_ms < window.end_ms:
            return None
        self._sources.spoke(device_id)
        self.counters.afferents += 1
        if self._within_rate(scope, source, now_ms):
            window.take_more(signal, value, event_ms)
            return ()
        window.refused += 1
        return (_above_rate(event),)

    def take(self, scope: Scope, event: Accepted, now_ms: int) -> Open | Rejected | Hold | None:
        """Take one afferent; returns its window when that has to close at once.

        What is urgent and waits for its window all the same is held until that is told.
        """
        counters = self.counters
        counters.afferents += 1
        # As dictionaries: pydantic's models answer each attribute tenfold more slowly.
        parts = event.message.__dict__
        meta, payload = parts["meta"].__dict__, parts["payload"].__dict__
        channel = self._channels.get(payload["sensor_type"])
        if channel is None:
            counters.unknown += 1
            reason = f"no channel for sensor type {payload['sensor_type']!r} in the registry"
            return refuse(event, "unknown_channel", "apply", reason)
        source = self._sources.get(event.address.levels["device_id"])
        historical = bool(meta.get("historical"))
        urgent = meta.get("priority") in _URGENT
        event_ms = _long_ago(meta, now_ms) if historical else self._place(source, meta, now_ms)
        if event_ms is None:
            counters.late += 1
            reason = f"measured {now_ms - meta['t_ms']} ms ago: send it as historical"
            return refuse(event, "expired", "apply", reason)
        stream = scope.stream(channel, historical=historical) or self._stream(
            scope, channel, now_ms, historical=historical
        )
        if event_ms < stream.closed_ms:
            # Its window did not wait so long: it counts in the first one that can still take it.
            counters.moved += 1
            event_ms = stream.closed_ms
        at_once = urgent and not historical and self._hurries(source, now_ms)
        window = stream.find(event_ms)
        if not (at_once or self._within_rate(scope, source, now_ms)):
            if window is not None:
                window.refused += 1
            return _above_rate(event)
        if window is None:
            window = self.open(scope, stream, event_ms, now_ms)
        if window is None:
            counters.crowded += 1
            return refuse(event, "queue_full", "queue", "too many old windows are being summarised")
        counters.historical += historical
        values = self._values(scope, source, payload, historical=historical)
        place = Open(scope, stream, window)
        refused = self._fill(place, values, event, event_ms, urgent=urgent)
        if at_once and refused is None and window.critical:
            return place
        return self._hold(window) if urgent and refused is None else refused

    def _hold(self, window: Window) -> Hold:
        if not window.held:
            self._holds += 1
            window.held = self._holds
        return Hold(window.held)

    def _fill(
        self,
        place: Open,
        values: Sequence[tuple[Signal, Scalar]] | None,
        event: Accepted,
        event_ms: int,
        *,
        urgent: bool,
    ) -> Rejected | None:
        """Take the values of a sample into a window."""
        if values is None:
            self.counters.unknown += 1
            reason = f"payload.value: with the sensor type, a name has {LEVEL_LIMIT} characters"
            return refuse(event, "schema_invalid", "apply", reason)
        _, stream, window = place
        if not window.has_room(values, self._signal_limit):
            self.counters.crowded += 1
            return refuse(event, "queue_full", "queue", "too many signals are being summarised")
        payload = event.message.__dict__["payload"].__dict__
        if not window.take(values, payload.get("quality"), event_ms):
            self.counters.bad_quality += 1
            return None
        if urgent:
            window.critical = True
        if not stream.historical and type(payload["value"]) is not dict:
            # Where the next one goes, most likely.
            signal = values[0][0]
            signal.address, signal.place = event.address, place
        return None

    def _values(
        self, scope: Scope, source: Source, payload: Mapping[str, Any], *, historical: bool
    ) -> Sequence[tuple[Signal, Scalar]] | None:
        """The values of a sample: one, or each of a typed object; None if one is nameless."""
        name, value, unit = payload["sensor_type"], payload["value"], payload.get("unit") or ""
        if type(value) is not dict:
            return ((self._sources.signal(source, (name, unit, scope.key, historical)), value),)
        names = [f"{name}:{member}" for member in value]
        if not all(len(each) <= LEVEL_LIMIT and each.isprintable() for each in names):
            return None
        return [
            (self._sources.signal(source, (each, unit, scope.key, historical)), member)
            for each, member in zip(names, value.values(), strict=True)
        ]

    def open(self, scope: Scope, stream: Stream, event_ms: int, now_ms: int) -> Window | None:
        """Open the window of a moment; None when too many old ones are open."""
        settings = self._settings
        if stream.historical:
            if len(stream.open) >= settings.historical_limit:
                return None
            window = stream.start(event_ms, settings.historical_window_ms)
            due_ms = now_ms + scope.settings.window_ms
        else:
            window = stream.start(event_ms, scope.shape(stream.channel).hop_ms)
            due_ms = window.end_ms + settings.lateness_ms
        self._agenda.put(due_ms, self._end, Open(scope, stream, window))
        return window

    def cut(self, opened: Open, now_ms: int) -> None:
        """Close a window now; the rest of it stays open until its end."""
        rest = opened.stream.cut(opened.window, now_ms)
        due_ms = rest.end_ms + self._settings.lateness_ms
        self._agenda.put(due_ms, self._end, Open(opened.scope, opened.stream, rest))

    def _place(self, source: Source, meta: Mapping[str, Any], now_ms: int) -> int | None:
        event_ms = source.clock.place(meta, now_ms, self._oldest_ms)
        if event_ms is None and meta.get("priority") in _URGENT:
            # It waited for us at the broker, and lives: an alarm of before a restart is one still.
            return meta["t_ms"]  # type: ignore[no-any-return]
        return event_ms

    def _hurries(self, source: Source, now_ms: int) -> bool:
        if self._sources.hurries(source, now_ms):
            return True
        self.counters.over_urgent_rate += 1
        return False

    def _within_rate(self, scope: Scope, source: Source, now_ms: int) -> bool:
        of_source = self._source_rate.take(source.samples_ms, now_ms)
        if of_source is None:
            self.counters.over_rate += 1
            return False
        source.samples_ms = of_source
        of_scope = self._scope_rate.take(scope.samples_ms, now_ms)
        if of_scope is None:
            self.counters.over_scope_rate += 1
            return False
        scope.samples_ms = of_scope
        return True

    def _stream(self, scope: Scope, channel: str, now_ms: int, *, historical: bool) -> Stream:
        stream = Stream(channel, historical=historical)
        scope.streams += (stream,)
        self._agenda.put(now_ms + LONGEST_MS, self._retire, (scope, stream))
        return stream


def _above_rate(event: Accepted) -> Rejected:
    return refuse(event, "queue_full", "queue", "above the sample rate of device or scope")


def _long_ago(meta: Mapping[str, Any], now_ms: int) -> int:
    return now_ms if meta["clk"] == "none" else min(meta["t_ms"], now_ms)
