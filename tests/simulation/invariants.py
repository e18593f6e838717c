"""What must hold at each step, whatever goes wrong; written from the specification alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nervus.thalamus import ThalamusSettings
from nervus.wire import Accepted, Guard, Packet, Publish, Rejected, Removed, encode, topics
from nervus.wire.contracts import AfferentSignal, GateState, RelayBundle, RouteDecision
from nervus.wire.registries import nuclei
from simulation.process import Step

_SLACK_MS: Final = 150
_URGENT: Final = ("critical", "control")
_MAY_DROP_UNGATED: Final = {"expires_waiting", "queue_full"}

Scope = tuple[str, str]
Key = tuple[str, str, str]


class Violation(AssertionError):  # noqa: N818  what failed, in its own words
    """An invariant does not hold."""


@dataclass(slots=True)
class _Gate:
    inhibition: float
    mode: str
    until_ms: int


@dataclass(slots=True)
class _Driver:
    message: Any
    until_ms: int
    gated: bool
    inhibition: float
    decide_by_ms: int
    relay_by_ms: int | None = None


@dataclass(slots=True)
class _Span:
    count: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    def take(self, value: Any) -> None:
        self.count += 1
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.low, self.high = min(self.low, value), max(self.high, value)


@dataclass(slots=True)
class _Brainstem:
    taken: dict[Key, _Span] = field(default_factory=dict)
    told: Counter[Key] = field(default_factory=Counter)
    samples: int = 0
    bundles: int = 0


@dataclass(slots=True)
class _Relay:
    gates: dict[Scope, dict[tuple[str, str], _Gate]] = field(default_factory=dict)
    epochs: dict[Scope, int] = field(default_factory=dict)
    drivers: dict[str, _Driver] = field(default_factory=dict)
    open: dict[str, _Driver] = field(default_factory=dict)
    owed: dict[str, _Driver] = field(default_factory=dict)


class Invariants:
    """Watches every step; raises `Violation` at the first that should not be.

    Args:
        settings: Of the relay: the thresholds that its decisions are held to.
    """

    def __init__(self, settings: ThalamusSettings) -> None:
        self.checked: Counter[str] = Counter()
        self._settings = settings
        self._consumer = Guard(topics.TOPICS, dedupe_limit=1 << 20)
        self._incarnations: dict[str, int] = {}
        self._brainstem = _Brainstem()
        self._relay = _Relay()

    def __call__(self, step: Step) -> None:
        """Check one step."""
        name = step.process.name
        if self._incarnations.get(name) != step.process.incarnation:
            self._incarnations[name] = step.process.incarnation
            # A restarted plane owes nothing of what it had not yet said.
            if name == "brainstem":
                self._brainstem = _Brainstem()
            else:
                self._relay = _Relay()
        for publish in step.sent:
            self._is_allowed(step, publish)
        if name == "brainstem":
            self._check_brainstem(step)
        else:
            self._check_relay(step)

    def settled(self) -> None:
        """Nothing is under way: what was taken has been told, what was promised has been kept."""
        state = self._brainstem
        for key, span in state.taken.items():
            self._hold(
                "conserved", state.told[key] == span.count,
                f"{key}: {span.count} samples taken, {state.told[key]} told",
            )  # fmt: skip
        self._hold("decided", not self._relay.open, f"undecided: {list(self._relay.open)[:3]}")
        self._hold("kept", not self._relay.owed, f"not relayed: {list(self._relay.owed)[:3]}")

    def _is_allowed(self, step: Step, publish: Publish) -> None:
        spec, name = publish.address.spec, step.process.name
        self._hold(
            "role", name in spec.publishers(publish.on), f"{name} published {publish.address.topic}"
        )
        life = publish.expiry_ms
        self._hold("life", life is not None and life > 0, f"{publish.address.topic}: life {life}")
        packet = Packet(publish.on, publish.address.topic, encode(publish.message), spec.retained)  # type: ignore[arg-type]
        verdict = self._consumer.judge(packet, step.now_ms)
        # Also: no id twice, no more bytes than the topic takes, nothing beside the contract.
        self._hold("accepted", isinstance(verdict, Accepted), f"{verdict}")

    # ---- brainstem: raw never goes up, and what goes up adds up ----

    def _check_brainstem(self, step: Step) -> None:
        state, verdict = self._brainstem, step.verdict
        if isinstance(verdict, Accepted) and isinstance(verdict.message, AfferentSignal):
            payload = verdict.message.payload
            if not step.refused and payload.quality != "bad":
                state.samples += 1
                key = (verdict.address.levels["scope"], _device(verdict), payload.sensor_type)
                state.taken.setdefault(key, _Span()).take(payload.value)
        for publish in step.sent:
            if isinstance(publish.message, RelayBundle):
                self._check_bundle(publish)

    def _check_bundle(self, publish: Publish) -> None:
        state, payload = self._brainstem, publish.message.payload
        state.bundles += 1
        self._hold("slower", state.bundles <= state.samples, "more bundles than samples")
        features = payload.summary_features
        self._hold("short", len(features) <= 64, f"{len(features)} features")
        self._hold("sources", set(payload.sources) == {f.device_id for f in features}, "sources")
        for feature in features:
            key = (publish.address.levels["scope"], feature.device_id, feature.sensor_type)
            span = state.taken.get(key)
            state.told[key] += feature.count
            if span is None or state.told[key] > span.count:
                raise Violation(f"{key}: more told than taken")
            if feature.min is not None:
                self._hold(
                    "inside",
                    span.low <= feature.min <= feature.mean <= feature.max <= span.high,
                    f"{key}: {feature} beyond {span}",
                )

    # ---- relay: gates are consulted, expire, and are nobody's but the gatekeeper's ----

    def _check_relay(self, step: Step) -> None:
        self._take_input(step)
        for publish in step.sent:
            if isinstance(publish.message, RouteDecision):
                self._check_decision(step, publish.message.payload)
        for publish in step.sent:
            if isinstance(publish.message, RelayBundle):
                self._check_relayed(step, publish)
        if not isinstance(step.verdict, Rejected):
            # What the guard refuses does not reach the core: the next tick does.
            self._check_promises(step.now_ms)

    def _take_input(self, step: Step) -> None:
        state, verdict = self._relay, step.verdict
        if isinstance(verdict, Removed):
            state.gates.get(_scope(verdict), {}).pop(_target(verdict), None)
        elif isinstance(verdict, Accepted) and isinstance(verdict.message, GateState):
            self._take_gate(step, verdict)
        elif isinstance(verdict, Accepted) and step.refused:
            reasons = {refused.reason_code for refused in step.refused}
            urgent = verdict.message.meta.priority in _URGENT
            shed = reasons == {"queue_full"} and not urgent
            self._hold("shed lowest", shed, f"{verdict.message.meta.priority}: {reasons}")
        elif isinstance(verdict, Accepted):
            self._take_driver(step, verdict)

    def _check_promises(self, now_ms: int) -> None:
        state = self._relay
        for ident, driver in state.open.items():
            self._hold("in time", now_ms <= driver.decide_by_ms, f"{ident} is undecided")
        for ident, driver in list(state.owed.items()):
            by_ms = driver.relay_by_ms
            if driver.until_ms <= now_ms + _SLACK_MS:
                del state.owed[ident]
            else:
                self._hold("flows", by_ms is None or now_ms <= by_ms, f"{ident} is stuck")

    def _take_gate(self, step: Step, event: Accepted) -> None:
        state, payload = self._relay, event.message.payload
        scope = _scope(event)
        known = state.epochs.get(scope, 0)
        self._hold(
            "epoch", bool(step.refused) == (payload.epoch < known),
            f"epoch {payload.epoch} after {known}: refused {step.refused}",
        )  # fmt: skip
        if step.refused:
            return
        state.epochs[scope] = payload.epoch
        assert event.left_ms is not None
        state.gates.setdefault(scope, {})[_target(event)] = _Gate(
            payload.inhibition, payload.mode, event.received_ms + event.left_ms
        )

    def _take_driver(self, step: Step, event: Accepted) -> None:
        state, ident = self._relay, event.message.meta.message_id
        met = self._met(event, step.now_ms)
        inhibition = max((0.0 if g.mode == "passthrough" else g.inhibition for g in met), default=0)
        contest = any(gate.mode == "winner_take_all" for gate in met)
        wait_ms = self._settings.contest_window_ms + _SLACK_MS if contest else 0
        assert event.left_ms is not None
        driver = _Driver(
            event.message, step.now_ms + event.left_ms, bool(met), inhibition, step.now_ms + wait_ms
        )
        state.drivers[ident] = state.open[ident] = driver

    def _met(self, event: Accepted, now_ms: int) -> list[_Gate]:
        levels = event.address.levels
        channel = levels["channel"]
        scopes = [(levels["scope_level"], levels["scope"]), ("house", "home")]
        met = []
        for scope in scopes:
            for (kind, target), gate in self._relay.gates.get(scope, {}).items():
                hit = {
                    "channel": target == channel,
                    "nucleus": nuclei().get(channel) == target,
                    "topic_prefix": f"{event.address.topic}/".startswith(target.rstrip("/") + "/"),
                }[kind]
                if hit and gate.until_ms > now_ms:
                    met.append(gate)
        return met

    def _check_decision(self, step: Step, payload: Any) -> None:
        state, ident = self._relay, payload.input_ref.message_id
        driver = state.open.pop(ident, None)
        if driver is None:
            raise Violation(f"{ident}: a decision about nothing, or a second one")
        reasons = set(payload.reason_codes)
        self._hold(
            "consulted", payload.effective_inhibition == driver.inhibition,
            f"{ident}: inhibition {payload.effective_inhibition}, gates say {driver.inhibition}",
        )  # fmt: skip
        wanted = self._decision(driver)
        urgent = driver.message.meta.priority in _URGENT
        self._hold("urgent passes", not urgent or payload.decision == "pass", f"{ident}: {payload}")
        fits = payload.decision == wanted or (not payload.allowed and payload.decision == "drop")
        self._hold("algebra", fits, f"{ident}: {payload.decision}, the algebra says {wanted}")
        if wanted == "drop":
            self._hold("inhibited", not payload.allowed, f"{ident} passed a closed gate")
        elif not driver.gated and not payload.allowed:
            # No living gate, no suppression: only what has no room or no time left may go.
            self._hold("not stuck", bool(reasons & _MAY_DROP_UNGATED), f"{ident}: {reasons}")
        if payload.allowed:
            wait_ms = self._settings.aggregate_ms + _SLACK_MS
            driver.relay_by_ms = step.now_ms + (wait_ms if payload.decision == "aggregate" else 0)
            state.owed[ident] = driver

    def _decision(self, driver: _Driver) -> str:
        limits = self._settings.thresholds
        if driver.message.meta.priority in _URGENT:
            return "pass"
        if not driver.gated:
            return "aggregate"
        steps = ((limits.attenuate, "pass"), (limits.aggregate, "attenuate"))
        for limit, decision in (*steps, (limits.drop, "aggregate")):
            if driver.inhibition < limit:
                return decision
        return "drop"

    def _check_relayed(self, step: Step, publish: Publish) -> None:
        state, message = self._relay, publish.message
        inputs = message.payload.input_refs or [message.meta.parent_id]
        drivers = [state.drivers.get(ident) for ident in inputs]
        for ident, driver in zip(inputs, drivers, strict=True):
            if driver is None or driver.relay_by_ms is None:
                raise Violation(f"{ident}: relayed without having been allowed")
            state.owed.pop(ident, None)
            until_ms = step.now_ms + (publish.expiry_ms or 0)
            self._hold("no longer", until_ms <= driver.until_ms, f"{ident}: outlives its input")
        if message.payload.input_refs is None and drivers[0] is not None:
            given = {f.model_dump_json() for f in drivers[0].message.payload.summary_features}
            sent = {f.model_dump_json() for f in message.payload.summary_features}
            self._hold("unchanged", sent <= given, f"{inputs[0]}: content was changed")
            self._hold("new id", message.meta.message_id != inputs[0], inputs[0])
        elif len(inputs) < 64:
            given_count = sum(_count(driver.message) for driver in drivers if driver is not None)
            self._hold("merged", _count(message) <= given_count, f"{inputs}: counts do not add up")

    def _hold(self, name: str, holds: bool, text: str) -> None:  # noqa: FBT001  what is held
        self.checked[name] += 1
        if not holds:
            raise Violation(f"{name}: {text}")


def _device(event: Accepted) -> str:
    return event.address.levels["device_id"]


def _scope(event: Accepted | Removed) -> Scope:
    levels: Mapping[str, str] = event.address.levels
    return levels["scope_level"], levels["scope"]


def _target(event: Accepted | Removed) -> tuple[str, str]:
    levels: Mapping[str, str] = event.address.levels
    return levels["target_kind"], levels["target_id"]


def _count(message: Any) -> int:
    return sum(feature.count for feature in message.payload.summary_features)
