"""The gatekeepers' rules: one writer for each scope, the stated policy, an end to every gate."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import fsum
from typing import Any, Final

from nervus.thalamus import GatesSettings, Leases
from nervus.wire import Accepted, Publish, Removed, topics
from nervus.wire.contracts import GateStatePayload, GlobalModeUpdate, ModulatorSignal
from nervus.wire.mint import lifetime
from simulation.checks import Checks, Scope, Target, scope_of, target_of
from simulation.process import Process, Step

_NEVER_MS: Final = 1 << 60
_SLACK_MS: Final = 150
_TOGETHER_MS: Final = 60
_EVERYTHING: Final = ("topic_prefix", "/bs/relay")

Selector = tuple[Scope, Target]


@dataclass(slots=True)
class _Reasons:
    """What speaks for a gate, as the specification words it."""

    base: float = 0.0
    mode: str = "multi"
    standing: bool = False
    proposals: dict[tuple[str, str], tuple[float, int, int]] = field(default_factory=dict)
    fixed: tuple[float, int] | None = None
    rules: tuple[Any, ...] = ()
    rules_end_ms: int = 0
    changed_ms: int = 0

    def forget(self, now_ms: int) -> None:
        for key in [k for k, (_, _, end_ms) in self.proposals.items() if end_ms <= now_ms]:
            self.changed_ms = max(self.changed_ms, self.proposals.pop(key)[2])
        if self.fixed is not None and self.fixed[1] <= now_ms:
            self.changed_ms = max(self.changed_ms, self.fixed[1])
            self.fixed = None
        if self.rules and self.rules_end_ms <= now_ms:
            self.changed_ms = max(self.changed_ms, self.rules_end_ms)
            self.rules = ()

    @property
    def alive(self) -> bool:
        return bool(self.standing or self.proposals or self.fixed or self.rules)

    @property
    def end_ms(self) -> int:
        if self.fixed is not None:
            return self.fixed[1]
        if self.standing:
            return _NEVER_MS
        ends = [end_ms for _, _, end_ms in self.proposals.values()]
        return max([*ends, *([self.rules_end_ms] if self.rules else [])], default=0)

    def inhibition(self, now_ms: int) -> float:
        if self.fixed is not None:
            return self.fixed[0]
        base, terms = self.base, []
        for rule in self.rules:
            if rule.intent == "set_inhibition":
                base = rule.inhibition
            else:
                terms.append(rule.strength if rule.intent == "suppress" else -rule.strength)
        for weight, start_ms, end_ms in self.proposals.values():
            terms.append(weight * min(1.0, max(0, end_ms - now_ms) / (end_ms - start_ms)))
        return min(1.0, max(0.0, fsum([base, *terms])))

    def fades(self, over_ms: int) -> float:
        """How much of the inhibition time alone may take in `over_ms`."""
        spans = self.proposals.values()
        return fsum(abs(weight) * over_ms / (end - start) for weight, start, end in spans)

    @property
    def gate_mode(self) -> str:
        asked = [rule.gate_mode for rule in self.rules if rule.gate_mode is not None]
        return asked[-1] if asked else self.mode


@dataclass(slots=True)
class _Keeper:
    """What one gatekeeper was told and has said since it started."""

    reasons: dict[Selector, _Reasons]
    leases: dict[Scope, tuple[int, int]] = field(default_factory=dict)
    said: dict[Selector, tuple[GateStatePayload, int]] = field(default_factory=dict)
    due: list[tuple[int, Selector]] = field(default_factory=list)
    held_since_ms: dict[Scope, int] = field(default_factory=dict)


class GatekeeperRules:
    """A model of each gatekeeper's reasons, and of who may write for which scope.

    Args:
        checks: Where rules are held.
        settings: How gatekeepers decide.
    """

    def __init__(self, checks: Checks, settings: GatesSettings) -> None:
        self._hold = checks.hold
        self._settings = settings
        self._keepers: dict[str, _Keeper] = {}
        self._epochs: dict[Scope, tuple[int, str]] = {}
        self._processes: dict[str, Process] = {}

    def restart(self, name: str) -> None:
        """One of them knows nothing any longer."""
        settings = self._settings
        reasons = {(("house", "home"), _EVERYTHING): _Reasons(base=settings.base, standing=True)}
        for one in settings.standing:
            level, _, scope = one.scope.partition("/")
            selector = ((level, scope), (one.target_kind, one.target_id))
            reasons[selector] = _Reasons(base=one.base, mode=one.mode, standing=True)
        self._keepers[name] = _Keeper(reasons)

    def __call__(self, step: Step) -> None:
        """Check one step."""
        keeper = self._keepers[step.process.name]
        self._processes[step.process.name] = step.process
        event = step.event
        if isinstance(event, Leases):
            self._take_leases(keeper, event, step.now_ms)
        if not step.refused:
            for selector in self._take(keeper, step):
                self._promise(keeper, selector, step.now_ms)
        for publish in step.sent:
            if publish.address.spec is topics.GATE_STATE:
                self._check_gate(keeper, step, publish)
        while keeper.due and keeper.due[0][0] < step.now_ms:
            self._check_prompt(keeper, heapq.heappop(keeper.due)[1], step.now_ms)

    # ---- what comes in ----

    def _take(self, keeper: _Keeper, step: Step) -> Iterator[Selector]:
        """Note a proposal, a mode or its end; yields the selectors it is about."""
        verdict = step.verdict
        if isinstance(verdict, Removed):
            yield from self._clear(keeper, scope_of(verdict))
        elif not isinstance(verdict, Accepted):
            return
        elif isinstance(verdict.message, ModulatorSignal):
            yield self._propose(keeper, verdict, step.now_ms)
        elif isinstance(verdict.message, GlobalModeUpdate):
            scope = scope_of(verdict)
            yield from self._clear(keeper, scope)
            assert verdict.left_ms is not None
            for rule in self._settings.rules(verdict.message.payload.mode):
                selector = (scope, (rule.target_kind, rule.target_id))
                reasons = keeper.reasons.setdefault(selector, _Reasons())
                reasons.rules = (*reasons.rules, rule)
                reasons.rules_end_ms = verdict.received_ms + verdict.left_ms
                yield selector

    def _propose(self, keeper: _Keeper, event: Accepted, now_ms: int) -> Selector:
        payload, selector = event.message.payload, (scope_of(event), target_of(event))
        assert event.left_ms is not None
        end_ms = event.received_ms + event.left_ms
        reasons = keeper.reasons.setdefault(selector, _Reasons())
        if payload.intent == "set_inhibition":
            reasons.fixed = payload.inhibition, end_ms
        else:
            weight = payload.strength if payload.intent == "suppress" else -payload.strength
            key = (event.message.meta.source, payload.intent)
            made_ms = min(now_ms, lifetime(event.message.meta.__dict__, now_ms)[0])
            reasons.proposals[key] = weight, made_ms, end_ms
        return selector

    def _clear(self, keeper: _Keeper, scope: Scope) -> Iterator[Selector]:
        for selector, reasons in keeper.reasons.items():
            if selector[0] == scope and reasons.rules:
                reasons.rules = ()
                yield selector

    def _take_leases(self, keeper: _Keeper, event: Leases, now_ms: int) -> None:
        for lease in event.leases:
            scope = lease.scope
            if lease.epoch is None:
                keeper.leases.pop(scope, None)
                keeper.held_since_ms.pop(scope, None)
                continue
            before = keeper.leases.get(scope)
            keeper.leases[scope] = lease.epoch, lease.until_ms
            if before is None or before[0] != lease.epoch or before[1] <= now_ms:
                keeper.held_since_ms[scope] = now_ms
                for selector in keeper.reasons:
                    if selector[0] == scope:
                        self._promise(keeper, selector, now_ms)

    # ---- what comes out ----

    def _check_gate(self, keeper: _Keeper, step: Step, publish: Publish) -> None:
        hold, now_ms, payload = self._hold, step.now_ms, publish.message.payload
        levels, name = publish.address.levels, step.process.name
        scope, target = (
            (levels["scope_level"], levels["scope"]),
            (payload.target_kind, payload.target_id),
        )
        selector = (scope, target)
        hold("set by", payload.set_by == publish.message.meta.source == name, payload)
        hold("heard", publish.message.meta.priority == "control" and publish.qos == 1, publish)
        self._check_writer(keeper, name, scope, payload.epoch, now_ms)
        reasons = keeper.reasons.get(selector) or _Reasons()
        reasons.forget(now_ms)
        wanted = (round(reasons.inhibition(now_ms), 4), reasons.gate_mode)
        if not reasons.alive:
            wanted = (0.0, "multi")
        hold("policy", (payload.inhibition, payload.mode) == wanted, selector, payload, wanted)
        assert publish.expiry_ms is not None
        until_ms = now_ms + publish.expiry_ms
        # A gate that nothing speaks for any longer is opened for as long as it was shut.
        end_ms = reasons.end_ms if reasons.alive else keeper.said[selector][1]
        hold("brief", until_ms <= min(now_ms + self._settings.gate_ms, end_ms), selector, payload)
        keeper.said[selector] = payload, until_ms
        self._renew(keeper, selector, reasons, until_ms, now_ms)

    def _renew(
        self, keeper: _Keeper, selector: Selector, reasons: _Reasons, until_ms: int, now_ms: int
    ) -> None:
        """It is to be said again before it ends, as long as something speaks for it."""
        if reasons.end_ms > until_ms:
            heapq.heappush(keeper.due, (max(until_ms - _SLACK_MS, now_ms + 1), selector))

    def _check_writer(
        self, keeper: _Keeper, name: str, scope: Scope, epoch: int, now_ms: int
    ) -> None:
        held = keeper.leases.get(scope)
        self._hold(
            "lease", held is not None and held[0] == epoch and now_ms < held[1],
            name, "set a gate of", scope, "under", epoch, "holding", held,
        )  # fmt: skip
        # Parts of which one knows the new time and one does not yet: there, epochs decide.
        clocks = [each.now_ms for each in self._processes.values() if each.alive]
        if max(clocks) - min(clocks) <= _TOGETHER_MS:
            last = self._epochs.get(scope, (0, name))
            alone = epoch > last[0] or (epoch == last[0] and name == last[1])
            self._hold("single writer", alone, name, epoch, scope, "after", last)
        self._epochs[scope] = max(self._epochs.get(scope, (0, name)), (epoch, name))

    def _promise(self, keeper: _Keeper, selector: Selector, now_ms: int) -> None:
        keeper.reasons[selector].changed_ms = now_ms
        due_ms = now_ms + self._settings.publish_ms + _SLACK_MS
        heapq.heappush(keeper.due, (due_ms, selector))

    def _check_prompt(self, keeper: _Keeper, selector: Selector, now_ms: int) -> None:
        """What was proposed has become the gate, for whoever has held the lease meanwhile."""
        settings, scope = self._settings, selector[0]
        late_ms = settings.publish_ms + _SLACK_MS
        since_ms = keeper.held_since_ms.get(scope, _NEVER_MS)
        held = keeper.leases.get(scope)
        reasons = keeper.reasons.get(selector)
        if held is None or reasons is None or since_ms + late_ms > now_ms:
            return
        reasons.forget(now_ms)
        if reasons.changed_ms + late_ms > now_ms:
            return
        margin_ms = settings.lease_ms // 3
        if not reasons.alive or held[1] - margin_ms <= now_ms:
            return
        said = keeper.said.get(selector)
        self._hold("living", said is not None and said[1] > now_ms, selector, said, now_ms)
        assert said is not None
        apart = abs(said[0].inhibition - reasons.inhibition(now_ms))
        near = apart <= settings.step + reasons.fades(late_ms) + 1e-3
        self._hold("prompt", near and said[0].mode == reasons.gate_mode, selector, said, reasons)
