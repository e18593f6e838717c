"""The relay's rules: gates are consulted, expire, and are nobody's but the gatekeeper's."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from nervus.thalamus import ThalamusSettings
from nervus.wire import Accepted, Publish, Rejected, Removed, topics
from nervus.wire.contracts import GateState
from nervus.wire.registries import nuclei
from simulation.checks import Checks, Scope, Target, Violation, scope_of, target_of
from simulation.process import Step

_SLACK_MS: Final = 150
_REFERENCES: Final = 64
_HOUSE: Final = ("house", "home")
_URGENT: Final = ("critical", "control")
_MAY_DROP_UNGATED: Final = {"expires_waiting", "queue_full"}


@dataclass(slots=True)
class _Gate:
    inhibition: float
    mode: str
    until_ms: int


@dataclass(slots=True)
class _Contest:
    """Who competes until `end_ms`: the most each channel has to show."""

    end_ms: int
    best: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Driver:
    message: Any
    stream: tuple[Any, ...]
    until_ms: int
    gated: bool
    inhibition: float
    contest: _Contest | None
    decide_by_ms: int
    relay_by_ms: int | None = None


@dataclass(slots=True)
class _State:
    gates: dict[Scope, dict[Target, _Gate]] = field(default_factory=dict)
    epochs: dict[Scope, int] = field(default_factory=dict)
    open: dict[str, _Driver] = field(default_factory=dict)
    allowed: dict[str, _Driver] = field(default_factory=dict)
    due: deque[tuple[int, str]] = field(default_factory=deque)
    contests: dict[Scope, _Contest] = field(default_factory=dict)
    attenuated: dict[tuple[Any, ...], tuple[int, int]] = field(default_factory=dict)
    merged_ms: dict[tuple[Any, ...], int] = field(default_factory=dict)


class RelayRules:
    """A model of the gates and contests beside the relay's own, and what each driver is owed.

    Args:
        checks: Where rules are held.
        settings: What decisions are held to.
    """

    def __init__(self, checks: Checks, settings: ThalamusSettings) -> None:
        self._hold = checks.hold
        self._settings = settings
        self._limits = settings.thresholds
        self._state = _State()

    def restart(self) -> None:
        """It knows nothing any longer, and owes nothing."""
        self._state = _State()

    def __call__(self, step: Step) -> None:
        """Check one step."""
        state = self._state
        self._take_input(step)
        relayed = []
        for publish in step.sent:
            if publish.address.spec is topics.ROUTE_DECISION:
                self._check_decision(step, publish)
            elif publish.address.spec is topics.GATED_RELAY:
                relayed.append(publish)
        if relayed:
            self._check_relayed(step, relayed)
        if not isinstance(step.verdict, Rejected):
            # What the guard refuses does not reach the core: the next tick does.
            while state.due and state.due[0][0] < step.now_ms:
                self._is_kept(*state.due.popleft(), step.now_ms)

    def settled(self) -> None:
        """Whatever could wait has ended."""
        for by_ms, ident in self._state.due:
            self._is_kept(by_ms, ident, by_ms)

    def _is_kept(self, by_ms: int, ident: str, now_ms: int) -> None:
        state = self._state
        driver = state.open.get(ident)
        undecided = driver is not None and driver.decide_by_ms <= by_ms
        self._hold("in time", not undecided, ident, "is undecided")
        owed = state.allowed.get(ident)
        if owed is None or owed.relay_by_ms is None or owed.relay_by_ms > by_ms:
            return
        # Only what ended while it waited may be forgotten, and what was merged with it: where the
        # clock is set forward, that may be all of a second.
        late = [
            key for key, one in state.allowed.items()
            if one.stream == owed.stream and (one.relay_by_ms or now_ms) <= now_ms
        ]  # fmt: skip
        ended_ms = min(state.allowed[key].until_ms for key in late)
        self._hold("flows", ended_ms <= now_ms + _SLACK_MS, ident, "is stuck")
        for key in late:
            del state.allowed[key]

    # ---- what comes in ----

    def _take_input(self, step: Step) -> None:
        state, verdict = self._state, step.verdict
        if isinstance(verdict, Removed):
            state.gates.get(scope_of(verdict), {}).pop(target_of(verdict), None)
        elif not isinstance(verdict, Accepted):
            return
        elif isinstance(verdict.message, GateState):
            self._take_gate(step, verdict)
        elif step.refused:
            reasons = {refused.reason_code for refused in step.refused}
            urgent = verdict.message.meta.priority in _URGENT
            shed = reasons == {"queue_full"} and not urgent
            self._hold("shed lowest", shed, verdict.message.meta.priority, reasons)
        else:
            self._take_driver(step, verdict)

    def _take_gate(self, step: Step, event: Accepted) -> None:
        state, payload = self._state, event.message.payload
        scope = scope_of(event)
        known = state.epochs.get(scope, 0)
        superseded = payload.epoch < known
        self._hold(
            "epoch", bool(step.refused) == superseded,
            payload.epoch, "after", known, "refused", step.refused,
        )  # fmt: skip
        if superseded:
            self._hold("superseded", holds=True)
            return
        if payload.epoch > known:
            state.gates.pop(scope, None)
        state.epochs[scope] = payload.epoch
        assert event.left_ms is not None
        gate = _Gate(payload.inhibition, payload.mode, event.received_ms + event.left_ms)
        state.gates.setdefault(scope, {})[target_of(event)] = gate

    def _take_driver(self, step: Step, event: Accepted) -> None:
        state, meta, levels = self._state, event.message.meta, event.address.levels
        met = self._met(event, step.now_ms)
        inhibition = max((0.0 if g.mode == "passthrough" else g.inhibition for g in met), default=0)
        contest = None
        if meta.priority not in _URGENT and any(gate.mode == "winner_take_all" for gate in met):
            contest = self._enter(event, step.now_ms, inhibition)
        assert event.left_ms is not None
        by_ms = step.now_ms if contest is None else contest.end_ms + _SLACK_MS
        stream = (
            levels["scope_level"], levels["scope"], levels["channel"],
            meta.principal, meta.priority, bool(meta.historical),
        )  # fmt: skip
        until_ms = step.now_ms + event.left_ms
        state.open[meta.message_id] = _Driver(
            event.message, stream, until_ms, bool(met), inhibition, contest, by_ms
        )
        state.due.append((by_ms, meta.message_id))

    def _enter(self, event: Accepted, now_ms: int, inhibition: float) -> _Contest | None:
        if inhibition >= self._limits.drop:
            return None
        state, scope, window_ms = self._state, scope_of(event), self._settings.contest_window_ms
        contest = state.contests.get(scope)
        if contest is None or contest.end_ms <= now_ms:
            contest = state.contests[scope] = _Contest(now_ms - now_ms % window_ms + window_ms)
        channel, salience = event.address.levels["channel"], event.message.payload.salience or 0.0
        contest.best[channel] = max(contest.best.get(channel, 0.0), salience)
        return contest

    def _met(self, event: Accepted, now_ms: int) -> list[_Gate]:
        levels, gates = event.address.levels, self._state.gates
        channel, topic = levels["channel"], f"{event.address.topic}/"
        met = []
        for scope in {scope_of(event), _HOUSE}:
            for (kind, target), gate in gates.get(scope, {}).items():
                if gate.until_ms <= now_ms:
                    continue
                hit = (
                    target == channel if kind == "channel"
                    else nuclei().get(channel) == target if kind == "nucleus"
                    else topic.startswith(target.rstrip("/") + "/")
                )  # fmt: skip
                if hit:
                    met.append(gate)
        return met

    # ---- what comes out ----

    def _check_decision(self, step: Step, publish: Publish) -> None:
        state, payload = self._state, publish.message.payload
        ident = payload.input_ref.message_id
        driver = state.open.pop(ident, None)
        if driver is None:
            raise Violation(f"{ident}: a decision about nothing, or a second one")
        hold, said, reasons = self._hold, payload.decision, set(payload.reason_codes or ())
        hold(
            "consulted", payload.effective_inhibition == driver.inhibition,
            ident, "inhibition", payload.effective_inhibition, "gates say", driver.inhibition,
        )  # fmt: skip
        urgent = driver.message.meta.priority in _URGENT
        hold("urgent passes", not urgent or (said == "pass" and payload.allowed), ident, payload)
        wanted = self._decision(driver)
        fits = said == wanted or (not payload.allowed and said == "drop")
        hold("algebra", fits, ident, said, "the algebra says", wanted)
        hold("routed", bool(payload.routed_to) == payload.allowed, ident, payload)
        if wanted == "drop":
            hold("inhibited", not payload.allowed, ident, "passed a closed gate")
        elif not driver.gated and not payload.allowed:
            # No living gate, no suppression: only what has no room or no time left may go.
            hold("not stuck", reasons & _MAY_DROP_UNGATED, ident, reasons)
        if driver.contest is not None:
            self._check_contest(ident, driver.contest, driver, reasons)
        if payload.allowed:
            self._allow(step, ident, driver, said)

    def _allow(self, step: Step, ident: str, driver: _Driver, said: str) -> None:
        state, now_ms = self._state, step.now_ms
        if said == "attenuate":
            window_ms = self._settings.attenuate_window_ms
            window, kept = state.attenuated.get(driver.stream, (0, 0))
            kept = kept + 1 if window == now_ms // window_ms else 1
            state.attenuated[driver.stream] = now_ms // window_ms, kept
            self._hold("thinned", kept <= self._settings.attenuate_keep, driver.stream, kept)
        driver.relay_by_ms = now_ms
        if said == "aggregate":
            driver.relay_by_ms += self._settings.aggregate_ms + _SLACK_MS
        state.allowed[ident] = driver
        state.due.append((driver.relay_by_ms, ident))

    def _check_contest(
        self, ident: str, contest: _Contest, driver: _Driver, reasons: set[str]
    ) -> None:
        won = "won" in reasons
        if not won and "outcompeted" not in reasons:
            return
        best = contest.best
        order = sorted(best, key=lambda channel: (-best[channel], channel))
        among = driver.stream[2] in order[: self._settings.contest_winners]
        self._hold("winner takes all", won == among, ident, driver.stream, best, reasons)

    def _decision(self, driver: _Driver) -> str:
        limits, inhibition = self._limits, driver.inhibition
        if driver.message.meta.priority in _URGENT:
            return "pass"
        if not driver.gated:
            return "aggregate"
        if inhibition < limits.attenuate:
            return "pass"
        if inhibition < limits.aggregate:
            return "attenuate"
        return "aggregate" if inhibition < limits.drop else "drop"

    def _check_relayed(self, step: Step, relayed: list[Publish]) -> None:
        """All parts of one input, or of several merged ones, go out in one step."""
        counts: dict[tuple[str, ...], int] = {}
        for publish in relayed:
            message = publish.message
            refs = message.payload.input_refs
            inputs = tuple(refs or [message.meta.parent_id])
            parts = counts[inputs] = counts.get(inputs, 0) + _count(message)
            drivers = [self._promised(step, publish, ident) for ident in inputs]
            if refs is None:
                self._check_same(drivers[0], message)
            elif len(inputs) < _REFERENCES:
                given = sum(_count(driver.message) for driver in drivers)
                self._hold("merged", parts <= given, inputs, "counts do not add up")
        for inputs, count in counts.items():
            given = sum(_count(self._state.allowed[ident].message) for ident in inputs)
            if len(inputs) < _REFERENCES:
                self._hold("whole", count == given, inputs, given, "came,", count, "went on")
            for ident in inputs:
                self._told(step, ident)

    def _promised(self, step: Step, publish: Publish, ident: str) -> _Driver:
        driver = self._state.allowed.get(ident)
        if driver is None:
            raise Violation(f"{ident}: relayed without having been allowed")
        until_ms = step.now_ms + (publish.expiry_ms or 0)
        self._hold("no longer", until_ms <= driver.until_ms, ident, "outlives its input")
        return driver

    def _told(self, step: Step, ident: str) -> None:
        driver = self._state.allowed.pop(ident)
        if driver.relay_by_ms != step.now_ms and driver.relay_by_ms is not None:
            # It waited, so it was merged: at most one such message in each interval.
            last_ms = self._state.merged_ms.get(driver.stream, 0)
            apart = step.now_ms - last_ms
            rare = apart in (0, step.now_ms) or apart >= self._settings.aggregate_ms
            self._hold("one a second", rare, driver.stream, apart, "ms after the last")
            self._state.merged_ms[driver.stream] = step.now_ms

    def _check_same(self, driver: _Driver, message: Any) -> None:
        before, after = driver.message, message
        self._hold("new id", after.meta.message_id != before.meta.message_id, before.meta)
        for name in ("trace_id", "principal", "priority"):
            kept = getattr(after.meta, name) == getattr(before.meta, name)
            self._hold("kept on", kept, name, before.meta, after.meta)
        given, sent = before.payload, after.payload
        if len(sent.summary_features) == len(given.summary_features):
            self._hold("unchanged", sent == given, before.meta.message_id, "content was changed")
        else:
            some = all(feature in given.summary_features for feature in sent.summary_features)
            self._hold("unchanged", some, before.meta.message_id, "content was changed")


def _count(message: Any) -> int:
    return sum(feature.count for feature in message.payload.summary_features)
