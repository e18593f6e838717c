"""The core of the relay role: driver messages in, what passes the gate out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from nervus.thalamus.admission import Admission
from nervus.thalamus.contest import Contest, Entrant
from nervus.thalamus.frames import Frames, StreamName
from nervus.thalamus.gate import Decision, judge
from nervus.thalamus.gates import GateCache
from nervus.thalamus.settings import ThalamusSettings
from nervus.thalamus.stream import Merged, Stream
from nervus.wire import (
    Accepted,
    Address,
    Connected,
    Mint,
    Publish,
    Rejected,
    Removed,
    encode,
    refuse,
    topics,
)
from nervus.wire.bundles import fit
from nervus.wire.contracts import (
    Feature,
    GateState,
    RelayBundle,
    RelayBundlePayload,
)
from nervus.wire.mint import quoted

Effect = Publish | Rejected

_HOUSEKEEPING_MS: Final = 1_000
_DECISION_MS: Final = 10_000
_DECISION: Final = (
    '{"input_ref":{"message_id":"%s","contract":"%s","source_topic":%s,"source":%s},'
    '"allowed":%s,"decision":"%s","effective_inhibition":%r,"routed_to":[%s],'
    '"reason_codes":["%s"]}'
)
"""The payload of a RouteDecision: as many are made as drivers come."""

_SLACK_MS: Final = 100
_new: Final = tuple.__new__


@dataclass(slots=True)
class RelayCounters:
    """What the core has decided since it was made."""

    decisions: dict[Decision, int] = field(
        default_factory=lambda: {"pass": 0, "attenuate": 0, "aggregate": 0, "drop": 0}
    )
    relayed: int = 0
    suppressed: int = 0
    expired_waiting: int = 0


class _StreamKey(NamedTuple):
    scope_level: str
    scope: str
    channel: str
    principal: str
    priority: str
    historical: bool


class Relay:
    """Decides for each driver message by the gates it meets; pure.

    Content is never changed but by merging. Every decision becomes a RouteDecision. A relayed
    message has a new message_id, `parent_id` names what it came from (`input_refs` when merged),
    trace and principal go on, and it expires with the earliest of its inputs.
    """

    def __init__(self, settings: ThalamusSettings, mint: Mint, house: str) -> None:
        self.counters = RelayCounters()
        self.admission = Admission(settings)
        self._settings = settings
        self._mint = mint
        self._frames = Frames(settings)
        self._gates = GateCache(settings, house)
        self._streams: dict[_StreamKey, Stream] = {}
        self._contests: dict[tuple[str, str], Contest] = {}
        self._thresholds = settings.thresholds
        self._gatekeeper = settings.gatekeeper
        self.due_ms = 0
        """When something is due next, unix milliseconds."""

    def step(self, event: Accepted | Removed | Connected, now_ms: int) -> Sequence[Effect]:
        """Take a driver message, a gate, or the removal of a gate."""
        if now_ms >= self.due_ms:
            return [*self.tick(now_ms), *self._take(event, now_ms)]
        return self._take(event, now_ms)

    def _take(self, event: Accepted | Removed | Connected, now_ms: int) -> Sequence[Effect]:
        # By its very type: models are slow to say that they are of another.
        if isinstance(event, Accepted) and type(event.message) is RelayBundle:
            return self._driver(event, now_ms)
        match event:
            case Accepted(message=GateState()):
                rejected = self._gates.put(event)
                return [] if rejected is None else [rejected]
            case Removed():
                self._gates.remove(event.address)
            case Connected():
                # Gates come again with the subscription; what they said until then still holds.
                self._frames.connected()
            case _:
                raise TypeError(f"the relay takes no {type(event.message).__name__}")
        return []

    def tick(self, now_ms: int) -> list[Effect]:
        """Send what was merged, end contests, forget what has expired."""
        if now_ms < self.due_ms:
            return []
        effects: list[Effect] = []
        for scope, contest in list(self._contests.items()):
            if contest.end_ms <= now_ms:
                del self._contests[scope]
                effects += self._end(contest, now_ms)
        for key, stream in self._streams.items():
            merged = stream.release(now_ms, self._settings.aggregate_ms)
            if merged is not None:
                effects += self._send_merged(key, merged, now_ms)
        self._gates.expire(now_ms)
        self.admission.forget(now_ms)
        window_ms = self._settings.attenuate_window_ms
        for key in [k for k, s in self._streams.items() if s.idle(now_ms, window_ms)]:
            del self._streams[key]
        due = [now_ms + _HOUSEKEEPING_MS]
        due += [contest.end_ms for contest in self._contests.values()]
        due += [s.quiet_until_ms for s in self._streams.values() if s.waiting is not None]
        self.due_ms = min(due)
        return effects

    def _driver(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        assert event.left_ms is not None  # noqa: S101  the contract requires an end
        message, levels = event.message, event.address.levels
        scope = (levels["scope_level"], levels["scope"])
        priority = message.meta.priority
        if not self.admission.admits(scope, priority, now_ms):
            # Folded into one event with a count: audit must not add to a flood.
            self.counters.suppressed += 1
            self._frames.dropped((*scope, levels["channel"]))
            reason = f"shed: more than {priority} may have of its scope's budget"
            return [refuse(event, "queue_full", "queue", reason)]
        if message.payload.delta_of is not None:
            reason = "a delta before the gate: its key frame may have been dropped"
            return [refuse(event, "schema_invalid", "apply", reason)]
        gates = self._gates.met(event, now_ms)
        verdict = judge(
            priority,
            gates,
            gatekeeper=self._gatekeeper,
            thresholds=self._thresholds,
        )
        entrant = _new(Entrant, (event, verdict, event.received_ms + event.left_ms))
        if not verdict.contest:
            return self._route(entrant, now_ms)
        window_ms = self._settings.contest_window_ms
        contest = self._contests.setdefault(scope, Contest(now_ms - now_ms % window_ms + window_ms))
        self.due_ms = min(self.due_ms, contest.end_ms)
        if contest.enter(entrant):
            return []
        return self._refuse(entrant, "queue_full", now_ms)

    def _end(self, contest: Contest, now_ms: int) -> list[Effect]:
        winners = contest.winners(self._settings.contest_winners)
        effects: list[Effect] = []
        for entrant in contest.entrants:
            if entrant.expires_ms <= now_ms:
                effects += self._expired(entrant, now_ms)
            elif entrant.channel in winners:
                won = entrant.verdict._replace(reasons=(*entrant.verdict.reasons, "won"))
                effects += self._route(entrant._replace(verdict=won), now_ms)
            else:
                effects += self._refuse(entrant, "outcompeted", now_ms)
        return effects

    def _route(self, entrant: Entrant, now_ms: int) -> Sequence[Effect]:
        match entrant.verdict.decision:
            case "pass":
                return self._send(entrant, now_ms)
            case "drop":
                return self._refuse(entrant, "inhibited", now_ms)
        stream = self._stream(entrant)
        if stream is None:
            return self._refuse(entrant, "queue_full", now_ms)
        if entrant.verdict.decision == "attenuate":
            limits = self._settings
            if stream.keeps(now_ms, limits.attenuate_window_ms, limits.attenuate_keep):
                return self._send(entrant, now_ms)
            return self._refuse(entrant, "attenuated", now_ms, "attenuate")
        return self._aggregate(stream, entrant, now_ms)

    def _aggregate(self, stream: Stream, entrant: Entrant, now_ms: int) -> Sequence[Effect]:
        if stream.ready(now_ms, self._settings.aggregate_ms):
            return self._send(entrant, now_ms)
        if entrant.expires_ms <= stream.quiet_until_ms + _SLACK_MS:
            return self._expired(entrant, now_ms)
        if not stream.hold(entrant.event.message, entrant.expires_ms):
            return self._refuse(entrant, "queue_full", now_ms)
        self.due_ms = min(self.due_ms, stream.quiet_until_ms)
        return [self._decision(entrant, now_ms, allowed=True, decision="aggregate")]

    def _stream(self, entrant: Entrant) -> Stream | None:
        meta, levels = entrant.event.message.meta, entrant.event.address.levels
        # Only what may stand under one envelope is merged.
        key = _StreamKey(
            levels["scope_level"], levels["scope"], levels["channel"],
            meta.principal, meta.priority, bool(meta.historical),
        )  # fmt: skip
        stream = self._streams.get(key)
        if stream is None and len(self._streams) < self._settings.stream_limit:
            stream = self._streams[key] = Stream()
        return stream

    def _send(self, entrant: Entrant, now_ms: int) -> Sequence[Effect]:
        event, stream = entrant.event, _stream_of(entrant)
        if self._frames.asked(stream):
            relayed = self._send_parts(entrant, stream, now_ms)
        else:
            whole = self._around(entrant, stream, event.payload_json, now_ms)
            # As it came, in a larger envelope: what came just within its cap may be beyond it.
            if len(whole.data) <= whole.address.spec.max_bytes:
                relayed = [whole]
            else:
                relayed = self._send_parts(entrant, stream, now_ms)
        relayed = self._relayed(stream, relayed, now_ms)
        decision = entrant.verdict.decision
        return [*relayed, self._decision(entrant, now_ms, allowed=True, decision=decision)]

    def _send_parts(self, entrant: Entrant, stream: StreamName, now_ms: int) -> list[Publish]:
        whole: RelayBundlePayload = entrant.event.message.payload

        def make(features: Sequence[Feature]) -> Publish:
            part = whole
            if len(features) < len(whole.summary_features):
                part = whole.model_copy(update={"summary_features": list(features)})
            elif self._frames.asked(stream):
                part = self._frames.shortened(stream, whole, now_ms)
            return self._around(entrant, stream, encode(part), now_ms)

        return fit(whole.summary_features, make)

    def _around(self, entrant: Entrant, stream: StreamName, payload: bytes, now_ms: int) -> Publish:
        meta = entrant.event.message.meta
        return self._mint.around(
            payload,
            _gated(stream),
            now_ms,
            ttl_ms=entrant.expires_ms - now_ms,
            priority=meta.priority,
            cause=meta,
            historical=meta.historical,
        )

    def _send_merged(self, key: _StreamKey, merged: Merged, now_ms: int) -> Sequence[Publish]:
        stream = (key.scope_level, key.scope, key.channel)
        if merged.expires_ms <= now_ms:
            self.counters.expired_waiting += 1
            self._frames.dropped(stream)
            return []
        features = [merged.summary.features[name] for name in sorted(merged.summary.features)]

        def make(some: Sequence[Feature]) -> Publish:
            payload = merged.summary.payload(some, merged.input_refs)
            if len(some) == len(features) and self._frames.asked(stream):
                payload = self._frames.shortened(stream, payload, now_ms)
            meta = merged.cause.meta
            return self._mint.around(
                encode(payload),
                _gated(stream),
                now_ms,
                ttl_ms=merged.expires_ms - now_ms,
                priority=meta.priority,
                cause=meta,
                historical=key.historical or None,
            )

        return self._relayed(stream, fit(features, make), now_ms)

    def _relayed(self, stream: StreamName, relayed: list[Publish], now_ms: int) -> list[Publish]:
        self.counters.relayed += len(relayed)
        if len(relayed) == 1 and self._frames.asked(stream):
            message = relayed[0].message
            self._frames.sent(stream, message.meta.message_id, message.payload, now_ms)
        return relayed

    def _expired(self, entrant: Entrant, now_ms: int) -> list[Effect]:
        self.counters.expired_waiting += 1
        return self._refuse(entrant, "expires_waiting", now_ms)

    def _refuse(
        self, entrant: Entrant, reason: str, now_ms: int, decision: Decision = "drop"
    ) -> list[Effect]:
        self.counters.suppressed += 1
        self._frames.dropped(_stream_of(entrant))
        return [self._decision(entrant, now_ms, allowed=False, decision=decision, reason=reason)]

    def _decision(
        self,
        entrant: Entrant,
        now_ms: int,
        *,
        allowed: bool,
        decision: Decision,
        reason: str | None = None,
    ) -> Publish:
        self.counters.decisions[decision] += 1
        meta, address = entrant.event.message.meta, entrant.event.address
        stream, verdict = _stream_of(entrant), entrant.verdict
        reasons = verdict.reasons if reason is None else (*verdict.reasons, reason)
        payload = _DECISION % (
            meta.message_id, meta.contract, quoted(address.topic), quoted(meta.source),
            "true" if allowed else "false", decision, verdict.inhibition,
            quoted(_gated(stream).topic) if allowed else "", '","'.join(reasons),
        )  # fmt: skip
        route = _route(stream)
        return self._mint.around(
            payload.encode(),
            route,
            now_ms,
            ttl_ms=route.spec.ttl_ms or _DECISION_MS,
            priority="background",
            cause=meta,
        )


@lru_cache(maxsize=4_096)
def _gated(stream: StreamName) -> Address:
    return topics.gated_relay(*stream)


@lru_cache(maxsize=4_096)
def _route(stream: StreamName) -> Address:
    return topics.route_decision(*stream)


def _stream_of(entrant: Entrant) -> StreamName:
    levels = entrant.event.address.levels
    return levels["scope_level"], levels["scope"], levels["channel"]
