"""The core of brainstem: afferents into windows, windows into RelayBundles, patterns and levels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from nervus.brainstem.agenda import Agenda, Due
from nervus.brainstem.broadcast import Broadcaster
from nervus.brainstem.intake import Intake, IntakeCounters
from nervus.brainstem.patterns import PatternCounters, Patterns
from nervus.brainstem.scope import Open, Scope
from nervus.brainstem.settings import BrainstemSettings
from nervus.brainstem.source import Sources
from nervus.brainstem.stream import LONGEST_MS, Shape, Stream
from nervus.brainstem.tuning import ScopeKey, Tuning
from nervus.brainstem.window import Summary
from nervus.wire import (
    Accepted,
    Address,
    Connected,
    Hold,
    Mint,
    Publish,
    Rejected,
    Release,
    Removed,
    encode,
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
    GlobalBroadcast,
    GlobalModeUpdate,
    MediaEvent,
    ParameterUpdate,
    PatternResponse,
    PatternTrigger,
    ReflexFire,
    RelayBundlePayload,
)
from nervus.wire.topic import LEVEL_LIMIT

Effect = Publish | Rejected | Hold | Release

_TUMBLING = Shape(0, 0)


@dataclass(slots=True)
class BrainstemCounters:
    """What the core has done since it was made, beside what intake and patterns count."""

    bundles: int = 0
    reflex_fires: int = 0
    devices_offline: int = 0
    crowded_scopes: int = 0
    misplaced: int = 0


class Brainstem:
    """Summarises afferents by scope and channel, asks for patterns, tells levels; pure.

    A bundle always carries window statistics and never the afferent: one sample makes a bundle
    only when its window ended with it, or when it was urgent, and urgent bundles are capped for
    each device. An urgent sample above the urgent rate waits for its window's end like any other,
    and the bundle is critical all the same. So nothing waits longer than its window and
    `lateness_ms`. Its packet is held until then, as that of an urgent one of long ago is.

    All it depends on comes by `step`, `tick`, settings, registries and mint, and effects come in a
    defined order: what was due, by the time it was due; then what the event itself causes.
    `owns` tells of a scope, as level/name, whether it is this shard's to speak for.
    """

    def __init__(
        self,
        settings: BrainstemSettings,
        mint: Mint,
        owns: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.counters = BrainstemCounters()
        self._settings = settings
        self._mint = mint
        self._owns = owns
        self._scopes: dict[ScopeKey, Scope] = {}
        self._agenda = Agenda()
        self._sources = Sources(settings)
        self._tuning = Tuning(settings, self._agenda, self._retuned)
        self._broadcaster = Broadcaster(mint, self._agenda, self._retire)
        self._patterns = Patterns(settings, mint, self._agenda, self._broadcaster)
        self._intake = Intake(
            settings, self._sources, self._agenda, self._end_window, self._retire_stream
        )

    @property
    def intake(self) -> IntakeCounters:
        """What became of afferents."""
        return self._intake.counters

    @property
    def due_ms(self) -> int:
        """When something is due next, unix milliseconds."""
        return self._agenda.next_ms

    @property
    def patterns(self) -> PatternCounters:
        """What became of patterns."""
        return self._patterns.counters

    def step(self, event: Accepted | Removed | Connected, now_ms: int) -> Sequence[Effect]:
        """Take a message of a topic that `service.TAKES` names, or what happened to a session."""
        if self._agenda.next_ms <= now_ms:
            return [*self._agenda.run(now_ms), *self._take(event, now_ms)]
        return self._take(event, now_ms)

    def tick(self, now_ms: int) -> list[Due]:
        """Do what is due: end windows, tell levels, give up requests."""
        return self._agenda.run(now_ms)

    def _take(self, event: Accepted | Removed | Connected, now_ms: int) -> Sequence[Effect]:
        if isinstance(event, Accepted):
            # By its very type: models are slow to say that they are of another.
            if type(event.message) is not AfferentSignal:
                return self._message(event, now_ms)
            effects = self._intake.take_more(event, now_ms)
            return self._afferent(event, now_ms) if effects is None else effects
        if isinstance(event, Removed):
            return self._removed(event, now_ms)
        # A connection changes nothing: the shell's ledger retains again what a broker lost.
        return []

    def _afferent(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        scope = self._scope(event.address.levels)
        if scope is None:
            return self._no_room(event)
        outcome = self._intake.take(scope, event, now_ms)
        if outcome is None:
            return []
        if not isinstance(outcome, Open):
            return (outcome,)
        self._intake.cut(outcome, now_ms)
        return self._tell(outcome, now_ms)

    def _message(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        match event.message:
            case DeviceStatus():
                self._status(event)
            case ReflexFire():
                self.counters.reflex_fires += 1
            case MediaEvent():
                return self._afferent(_measured(event), now_ms)
            case _:
                return self._told(event, now_ms)
        return []

    def _told(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        """Take what a part says to other parts."""
        if event.broker != "core":
            # A copy for boards: to take it would be to copy it again.
            self.counters.misplaced += 1
            reason = f"{event.address.topic} is taken from the core broker"
            return [refuse(event, "wrong_broker", "apply", reason)]
        match event.message:
            case PatternResponse():
                return self._patterns.respond(event)
            case GlobalModeUpdate():
                return self._tuning.set_mode(event, now_ms)
            case ParameterUpdate():
                return self._parameters(event, now_ms)
            case PatternTrigger() | GlobalBroadcast():
                return self._of_scope(event, now_ms)
            case other:
                raise TypeError(f"brainstem takes no {type(other).__name__}")

    def _of_scope(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        scope = self._scope(event.address.levels)
        if scope is None:
            return self._no_room(event)
        if isinstance(event.message, PatternTrigger):
            return self._patterns.trigger(scope, event, now_ms)
        return self._broadcaster.restore(scope, event, now_ms)

    def _parameters(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        effects = self._tuning.set_parameters(event, now_ms)
        if effects is None:
            return []
        levels = event.address.levels
        if not self._owns(f"{levels['scope_level']}/{levels['scope']}"):
            # Its owner tells the boards, or refuses it.
            return [effect for effect in effects if isinstance(effect, Publish)]
        if any(isinstance(effect, Rejected) for effect in effects):
            return effects
        return [self._copy(event, now_ms), *effects]

    def _copy(self, event: Accepted, now_ms: int) -> Publish:
        """What everybody on the core broker was told, for the boards."""
        meta, payload = event.message.meta, event.message.payload
        copy = self._mint.compact(
            ParameterUpdate, event.address, payload, now_ms,
            expires_at=meta.expires_at, message_id=meta.message_id,
        )  # fmt: skip
        return copy.to("spinal")

    def _removed(self, event: Removed, now_ms: int) -> Sequence[Publish]:
        levels = event.address.levels
        if event.broker != "core":
            return []
        if event.address.spec is topics.MODE:
            return self._tuning.remove_mode((levels["scope_level"], levels["scope"]), now_ms)
        if event.address.spec is topics.GLOBAL_PARAMETERS:
            return self._tuning.remove_parameters((levels["scope_level"], levels["scope"]), now_ms)
        return []

    def _status(self, event: Accepted) -> None:
        if event.message.payload.status == "offline":
            self.counters.devices_offline += 1
            # An average across a gap of unknown length would say nothing.
            self._sources.forget_signals(event.address.levels["device_id"])

    def _scope(self, levels: dict[str, str]) -> Scope | None:
        key = (levels["scope_level"], levels["scope"])
        scope = self._scopes.get(key)
        if scope is None:
            if len(self._scopes) >= self._settings.scope_limit:
                return None
            scope = self._scopes[key] = Scope(key, self._settings)
        return scope.tuned(self._tuning)

    def _no_room(self, event: Accepted) -> list[Rejected]:
        self.counters.crowded_scopes += 1
        return [refuse(event, "queue_full", "queue", "too many scopes are in use")]

    def _retuned(self, key: ScopeKey, now_ms: int) -> Sequence[Publish]:
        """A mode or parameter of a scope has changed; a house's concern all scopes."""
        scopes = [
            scope
            for scope in (self._scopes.values() if key[0] == "house" else ())
            if scope.key != key
        ]
        own = None
        if self._owns("/".join(key)):
            own = self._scope({"scope_level": key[0], "scope": key[1]})
        effects: list[Publish] = []
        for scope in [*([own] if own else []), *scopes]:
            effects += self._broadcaster.review(scope.tuned(self._tuning), now_ms)
            self._retire(scope)
        return effects

    def _end_window(self, ended: Open, now_ms: int) -> Sequence[Due]:
        scope, stream, window = ended
        if window.closed:
            return []
        stream.end(window)
        effects = self._tell(ended, now_ms)
        if stream.past and not stream.open:
            # A sliding window goes on while it has something to tell.
            self._intake.open(scope, stream, window.end_ms, now_ms)
        return effects

    def _retire_stream(self, subject: tuple[Scope, Stream], now_ms: int) -> Sequence[Publish]:
        scope, stream = subject
        if stream.open or stream.closed_ms + LONGEST_MS > now_ms:
            self._agenda.put(now_ms + LONGEST_MS, self._retire_stream, subject)
        else:
            scope.streams = tuple(each for each in scope.streams if each is not stream)
            self._retire(scope)
        return []

    def _retire(self, scope: Scope) -> None:
        if scope.idle():
            self._scopes.pop(scope.key, None)

    def _tell(self, closed: Open, now_ms: int) -> list[Due]:
        """What comes of a window that has closed; with it goes what was held for it."""
        effects: list[Due] = [*self._summed(closed, now_ms)]
        if closed.window.held:
            effects.append(Release(closed.window.held))
        return effects

    def _summed(self, closed: Open, now_ms: int) -> list[Publish]:
        """The bundles of a window, and what follows from them."""
        stream = closed.stream
        scope = closed.scope.tuned(self._tuning)
        shape = _TUMBLING if stream.historical else scope.shape(stream.channel)
        summary = stream.summary(closed.window, shape)
        if summary is None:
            return []
        effects = self._bundles(scope, stream, summary, now_ms)
        if not stream.historical:
            bundle = effects[0]
            effects += self._broadcaster.excite(scope, summary.salience, now_ms)
            effects += self._patterns.inspect(scope, summary, bundle, now_ms)
        return effects

    def _bundles(
        self, scope: Scope, stream: Stream, summary: Summary, now_ms: int
    ) -> list[Publish]:
        address = _address(*scope.key, stream.channel)
        trace_id = self._mint.id(now_ms)
        correlation_id = None
        if not stream.historical:
            correlation_id = scope.episodes.join(
                summary, scope.settings, lambda: self._mint.id(now_ms)
            )

        def make(features: Sequence[Feature]) -> Publish:
            payload = RelayBundlePayload(
                channel=stream.channel,
                window_start=timestamp(summary.start_ms),
                window_ms=summary.length_ms,
                summary_features=list(features),
                sources=sorted({each.device_id for each in features if each.device_id}),
                salience=summary.salience,
                confidence=summary.confidence,
                correlation_id=correlation_id,
            )
            return self._mint.around(
                encode(payload),
                address,
                now_ms,
                ttl_ms=scope.settings.bundle_ttl_ms,
                priority="critical" if summary.critical else "normal",
                trace_id=trace_id,
                historical=stream.historical or None,
            )

        bundles = fit(summary.features, make)
        self.counters.bundles += len(bundles)
        return bundles


@lru_cache(maxsize=4_096)
def _address(scope_level: str, scope: str, channel: str) -> Address:
    return topics.relay_bundle(scope_level, scope, channel)


def _measured(event: Accepted) -> Accepted:
    """A camera's or microphone's event as a measurement: which events, and how sure it was.

    Its sensor type is `media_KIND`, which the registry gives a channel; nothing of it leads to the
    stream, which is asked for at the gateway.
    """
    seen = event.message.payload
    payload = AfferentSignalPayload(
        sensor_type=f"{_MEDIA}{seen.kind}"[:LEVEL_LIMIT],
        value={"event": seen.event, "confidence": seen.confidence},
    )
    return event._replace(
        message=AfferentSignal.model_construct(meta=event.message.meta, payload=payload)
    )


_MEDIA: Final = "media_"
