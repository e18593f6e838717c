"""The core of the gatekeeper role: proposals and modes in, authoritative gates out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from nervus.thalamus.gate import Mode
from nervus.thalamus.lease import Claim, Lease, Leases, Scope
from nervus.thalamus.proposals import POLICY, Override, Proposal, Reasons
from nervus.thalamus.settings import GatesSettings, StandingGate
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
from nervus.wire.bucket import TokenBucket
from nervus.wire.contracts import (
    GateState,
    GateStatePayload,
    GlobalModeUpdate,
    ModulatorSignal,
    ModulatorSignalPayload,
)
from nervus.wire.mint import lifetime
from nervus.wire.model import Contract

Effect = Publish | Rejected | Claim

EVERYTHING: Final = "/bs/relay"
"""Topic prefix of every driver."""

_RENEW: Final = 3
"""A lease is renewed after this part of its time …"""
_MARGIN: Final = 5
"""… and not acted upon in this last part of it, when another may be about to take it."""


class Selector(NamedTuple):
    """What a gate stands before."""

    scope_level: str
    scope: str
    target_kind: str
    target_id: str


@dataclass(frozen=True, slots=True)
class _Published:
    inhibition: float
    mode: Mode
    at_ms: int
    expires_ms: int


@dataclass(slots=True)
class _Gate:
    """A selector's reasons, the gate that was last published for them, and when to look again."""

    reasons: Reasons
    published: _Published | None = None
    due_ms: int = 0


@dataclass(slots=True)
class GatekeeperCounters:
    """What the core has done since it was made."""

    proposals: int = 0
    refused: int = 0
    published: int = 0
    postponed: int = 0


class Gatekeeper:
    """Decides the gates of the scopes it holds a lease on; pure.

    Proposals of modulators and modes are combined as `Reasons` says. A gate is published when it
    changes and again before it expires, as long as something speaks for it; its life never exceeds
    that of its reasons. A standby without lease takes in the same proposals and publishes nothing.

    `step` takes the guard's verdicts, `Connected`, and `Leases`, the answer to a `Claim` effect.
    """

    def __init__(self, settings: GatesSettings, mint: Mint, house: str) -> None:
        self.counters = GatekeeperCounters()
        self._settings = settings
        self._mint = mint
        self._start = mint.id(0)
        self._gates: dict[Selector, _Gate] = {}
        self._leases: dict[Scope, Lease] = {}
        self._claim_at: dict[Scope, int] = {}
        self._allowance = TokenBucket(settings.publish_rate, settings.publish_rate, 0)
        self.due_ms = 0
        """When something is due next, unix milliseconds."""
        first = StandingGate(
            scope=f"house/{house}",
            target_kind="topic_prefix",
            target_id=EVERYTHING,
            base=settings.base,
        )
        for one in (first, *settings.standing):
            level, _, scope = one.scope.partition("/")
            selector = Selector(level, scope, one.target_kind, one.target_id)
            self._gates[selector] = _Gate(Reasons(base=one.base, mode=one.mode, standing=True))

    def __len__(self) -> int:
        return len(self._gates)

    def epoch(self, scope: Scope, now_ms: int) -> int | None:
        """Under which epoch it may set gates of a scope now; None if it may not."""
        lease = self._leases.get(scope)
        if lease is None or lease.epoch is None:
            return None
        margin_ms = self._settings.lease_ms // _MARGIN
        return lease.epoch if now_ms < lease.until_ms - margin_ms else None

    def step(self, event: Accepted | Removed | Connected | Leases, now_ms: int) -> Sequence[Effect]:
        """Take a proposal, a mode or its removal, a connection, or an answer about leases."""
        effects: list[Effect] = []
        match event:
            case Accepted(message=ModulatorSignal()):
                effects += self._propose(event, now_ms)
            case Accepted(message=GlobalModeUpdate()):
                effects += self._set_mode(event, now_ms)
            case Removed():
                self._clear_mode(
                    (event.address.levels["scope_level"], event.address.levels["scope"])
                )
            case Connected():
                # The broker may have lost every gate.
                self._publish_again(None)
            case Leases():
                self._take_leases(event, now_ms)
            case _:
                raise TypeError(f"the gatekeeper takes no {type(event.message).__name__}")
        return [*effects, *self.tick(now_ms)]

    def tick(self, now_ms: int) -> Sequence[Effect]:
        """Let strengths fade, renew gates and leases, forget what has ended."""
        if now_ms < self.due_ms:
            return []
        effects: list[Effect] = []
        due = sorted(
            (gate.due_ms, key) for key, gate in self._gates.items() if gate.due_ms <= now_ms
        )
        for _, selector in due:
            effects += self._serve(selector, now_ms, None)
        effects += self._claim(now_ms)
        looks = [gate.due_ms for gate in self._gates.values()]
        self.due_ms = min([*looks, *self._claim_at.values()])
        return effects

    def _propose(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        assert event.left_ms is not None  # noqa: S101  the contract requires an end
        message, levels = event.message, event.address.levels
        payload: ModulatorSignalPayload = message.payload
        problem = _problem(payload)
        if problem is not None:
            self.counters.refused += 1
            return [refuse(event, "schema_invalid", "apply", problem)]
        selector = Selector(
            levels["scope_level"], levels["scope"], levels["target_kind"], levels["target_id"]
        )
        gate = self._open(selector)
        key = (message.meta.source, payload.intent)
        if gate is None or (
            payload.strength is not None
            and key not in gate.reasons.proposals
            and len(gate.reasons.proposals) >= self._settings.source_limit
        ):
            self.counters.refused += 1
            return [refuse(event, "queue_full", "apply", "too many selectors or proposals")]
        self.counters.proposals += 1
        # A gate it would act on until then, whatever the sender's clock said.
        end_ms = event.received_ms + event.left_ms
        if payload.strength is None:
            gate.reasons.override = Override(float(payload.inhibition or 0), end_ms)
        else:
            weight = payload.strength if payload.intent == "suppress" else -payload.strength
            # It fades from when it was made, whenever it came: after a restart it comes again.
            start_ms = min(now_ms, lifetime(message.meta.__dict__, now_ms)[0])
            gate.reasons.proposals[key] = Proposal(weight, start_ms, end_ms)
        effects = self._serve(selector, now_ms, message)
        self.due_ms = min(self.due_ms, gate.due_ms)
        return effects

    def _set_mode(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        assert event.left_ms is not None  # noqa: S101  the contract requires expires_at
        scope = (event.address.levels["scope_level"], event.address.levels["scope"])
        self._clear_mode(scope)
        effects: list[Effect] = []
        end_ms = event.received_ms + event.left_ms
        for rule in self._settings.rules(event.message.payload.mode):
            selector = Selector(*scope, rule.target_kind, rule.target_id)
            gate = self._open(selector)
            if gate is None:
                self.counters.refused += 1
                effects.append(refuse(event, "queue_full", "apply", "too many selectors"))
                break
            gate.reasons.rules = (*gate.reasons.rules, rule)
            gate.reasons.rules_end_ms = end_ms
            self._look(gate, now_ms)
        return effects

    def _clear_mode(self, scope: Scope) -> None:
        for selector, gate in self._gates.items():
            if selector[:2] == scope and gate.reasons.rules:
                gate.reasons.rules = ()
                self._look(gate, 0)

    def _open(self, selector: Selector) -> _Gate | None:
        """The state of a selector, made if there is room; None if not."""
        gate = self._gates.get(selector)
        if gate is None and len(self._gates) < self._settings.selector_limit:
            gate = self._gates[selector] = _Gate(Reasons())
            self.due_ms = 0
        return gate

    def _look(self, gate: _Gate, at_ms: int) -> None:
        gate.due_ms = min(gate.due_ms, at_ms)
        self.due_ms = min(self.due_ms, gate.due_ms)

    def _serve(self, selector: Selector, now_ms: int, cause: Contract | None) -> Sequence[Effect]:
        """Publish the gate of a selector if it is time, and say when to look again."""
        gate = self._gates[selector]
        reasons = gate.reasons
        reasons.forget(now_ms)
        epoch = self.epoch(selector[:2], now_ms)
        if epoch is None and reasons.alive:
            # A lease makes it look again.
            gate.due_ms = reasons.changes_ms
            return []
        if epoch is None or not reasons.alive:
            return self._end(selector, gate, epoch, now_ms)
        inhibition = round(reasons.inhibition(now_ms), 4)
        before, ends_ms = gate.published, reasons.ends_ms
        gate.due_ms = self._next_look(gate, inhibition, now_ms)
        if before is not None and gate.due_ms > now_ms:
            return []
        if not self._may_publish(gate, now_ms):
            return []
        expires_ms = min(now_ms + self._settings.gate_ms, ends_ms)
        gate.published = _Published(inhibition, reasons.gate_mode, now_ms, expires_ms)
        gate.due_ms = self._next_look(gate, inhibition, now_ms)
        return [self._publish(selector, gate.published, epoch, now_ms, cause)]

    def _next_look(self, gate: _Gate, inhibition: float, now_ms: int) -> int:
        """When a gate may have to be published again; `now_ms` if it is now."""
        reasons, published = gate.reasons, gate.published
        if published is None:
            return now_ms
        difference = abs(inhibition - published.inhibition)
        reached = difference > 0 and inhibition in (0.0, 1.0)
        if (
            reached
            or difference >= self._settings.step
            or reasons.gate_mode != published.mode
            or published.expires_ms > reasons.ends_ms
        ):
            return max(now_ms, published.at_ms + self._settings.publish_ms)
        look_ms = reasons.changes_ms
        if published.expires_ms < reasons.ends_ms:
            look_ms = min(look_ms, published.expires_ms - self._settings.gate_ms // 2)
        if reasons.fades:
            look_ms = min(look_ms, now_ms + self._settings.publish_ms)
        return max(now_ms, look_ms)

    def _may_publish(self, gate: _Gate, now_ms: int) -> bool:
        if self._allowance.take(now_ms):
            return True
        self.counters.postponed += 1
        gate.due_ms = now_ms + 1 + 1_000 // self._settings.publish_rate
        return False

    def _end(
        self, selector: Selector, gate: _Gate, epoch: int | None, now_ms: int
    ) -> Sequence[Effect]:
        """Open a gate that nothing speaks for any longer, unless it has expired by itself."""
        published = gate.published
        closed = published is not None and (published.inhibition > 0 or published.mode != "multi")
        if epoch is None or published is None or not closed or published.expires_ms <= now_ms:
            del self._gates[selector]
            return []
        gate.due_ms = max(now_ms, published.at_ms + self._settings.publish_ms)
        if gate.due_ms > now_ms or not self._may_publish(gate, now_ms):
            return []
        del self._gates[selector]
        opened = _Published(0.0, "multi", now_ms, published.expires_ms)
        return [self._publish(selector, opened, epoch, now_ms, None)]

    def _publish(
        self,
        selector: Selector,
        gate: _Published,
        epoch: int,
        now_ms: int,
        cause: Contract | None,
    ) -> Publish:
        self.counters.published += 1
        payload = GateStatePayload(
            target_kind=selector.target_kind,  # type: ignore[arg-type]  # from a contract or settings
            target_id=selector.target_id,
            inhibition=gate.inhibition,
            mode=gate.mode,
            set_by=self._mint.source,
            epoch=epoch,
            policy_id=POLICY,
        )
        return self._mint.full(
            GateState,
            topics.gate_state(*selector),
            payload,
            now_ms,
            cause=cause,
            priority="control",
            expires_at=timestamp(gate.expires_ms),
        )

    def _publish_again(self, scope: Scope | None) -> None:
        """Publish the gates of a scope, or all, whatever was published before."""
        for selector, gate in self._gates.items():
            if scope is None or selector[:2] == scope:
                gate.published = None
                self._look(gate, 0)

    def _claim(self, now_ms: int) -> Sequence[Effect]:
        """Ask for leases on what is gated, and renew them; let go of others."""
        scopes = {selector[:2] for selector in self._gates}
        for scope in self._claim_at.keys() - scopes:
            del self._claim_at[scope]
            self._leases.pop(scope, None)
        wanted = tuple(sorted(s for s in scopes if self._claim_at.get(s, 0) <= now_ms))
        if not wanted:
            return []
        lease_ms = self._settings.lease_ms
        for scope in wanted:
            self._claim_at[scope] = now_ms + lease_ms // _RENEW
        return [Claim(wanted, self._mint.source, self._start, now_ms, now_ms + lease_ms)]

    def _take_leases(self, event: Leases, now_ms: int) -> None:
        for lease in event.leases:
            if lease.scope not in self._claim_at:
                continue
            before = self.epoch(lease.scope, now_ms)
            self._leases[lease.scope] = lease
            if lease.epoch is None:
                self._claim_at[lease.scope] = lease.until_ms
                self.due_ms = min(self.due_ms, lease.until_ms)
            elif lease.epoch != before:
                self._publish_again(lease.scope)


def _problem(payload: ModulatorSignalPayload) -> str | None:
    """What the contract cannot say: the intent decides which number there is."""
    if payload.intent == "set_inhibition" and payload.inhibition is None:
        return "set_inhibition comes with inhibition"
    if payload.intent != "set_inhibition" and payload.strength is None:
        return f"{payload.intent} comes with strength"
    return None
