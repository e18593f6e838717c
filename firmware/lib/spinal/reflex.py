"""The reflex engine: declarative threshold rules, compiled once, evaluated on the board.

A rule fires its `then` when its condition becomes true, and its `else` when it ends after a fire.
An edge that comes during the cooldown or over the cap a minute fires as soon as it may, if the
condition still holds: a rule that protects something must not miss the moment for good. `changed`
is a moment: it fires at each change, and what comes during the cooldown is dropped.

Of two rules that want the same actuator the one of higher priority holds it as long as its
condition does; between equals the later one wins.
"""

import hashlib
from binascii import hexlify

from spinal.actuators import Actuators, StepError
from spinal.conditions import RuleError, compile_condition
from spinal.contracts import SCHEMAS
from spinal.envelope import unix_of
from spinal.jsonprint import dumps
from spinal.schema import check
from spinal.ticks import LONGEST_MS, elapsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from spinal.clock import Clock

RULE_LIMIT = 32
BYTES_LIMIT = 8192
"""Canonical JSON of all rules together."""

_CONTRACT: "Any" = SCHEMAS["ReflexConfigure"]
_SCHEMA: "Any" = _CONTRACT["properties"]["payload"]
_MINUTE_MS = 60_000
_DEFAULT_FIRES = 60
_TEXT_LIMIT = 96
_INPUT_LIMIT = 64


def rule_hash(payload: "dict[str, Any]") -> str:
    """Return the first 16 hex digits of the SHA-256 of a rule's canonical JSON.

    Canonical: sorted keys, no blanks, UTF-8, floats with 6 significant digits ("%.6g"), so that a
    board with 32-bit floats and the hub agree.
    """
    return _digest(dumps(payload, "%.6g"))


class Firing:
    """What a rule does now.

    reflex_id, version, ticks_ms; cause "then" | "else" | "trigger"; inputs {sensor: value};
    actions: the steps to do, in order, {"actuator", "set" | "pulse_ms", "max_on_ms"?} or
    {"publish": {"sensor_type", "value", "unit"?}}; overridden: actuators that a rule of higher
    priority holds; dry_run: report only, do nothing.
    """

    def __init__(
        self, rule: "_Rule", cause: str, steps: "list[dict[str, Any]]", ticks_ms: int
    ) -> None:
        self.reflex_id = rule.reflex_id
        self.version = rule.version
        self.cause = cause
        self.ticks_ms = ticks_ms
        self.dry_run = rule.dry_run
        self.inputs: dict[str, Any] = {}
        self.actions = steps
        self.overridden: list[str] = []

    def payload(self) -> "dict[str, Any]":
        """Return the ReflexFire payload."""
        return {
            "version": self.version,
            "inputs": self.inputs,
            "actions": [_described(step)[:_TEXT_LIMIT] for step in self.actions],
            "dry_run": self.dry_run,
        }


class Engine:
    """Up to 32 rules over the sensors and actuators of one board.

    limits: {"rules": 32, "bytes": 8192, "sensors": [sensor_type…], "actuators": [declarations as
    in spinal.efferent]}, all optional; a rule that names a sensor or an actuator outside a given
    list is refused. clock gives `last_fire` its time.
    """

    def __init__(
        self, limits: "dict[str, Any] | None" = None, clock: "Clock | None" = None
    ) -> None:
        limits = limits or {}
        self._rule_limit = limits.get("rules", RULE_LIMIT)
        self._bytes_limit = limits.get("bytes", BYTES_LIMIT)
        self._sensors = limits.get("sensors")
        declared = limits.get("actuators")
        self._outputs = None if declared is None else Actuators(declared)
        self._clock = clock
        self._rules: dict[str, _Rule] = {}
        self._by_priority: list[_Rule] = []
        self._values: dict[str, Any] = {}

    def configure(
        self,
        payload: "dict[str, Any]",
        ticks_ms: int,  # noqa: ARG002 - every event of a core comes with its tick
    ) -> "tuple[str, dict[str, Any] | None]":
        """Take a rule: ("applied" | "unchanged", None) or ("rejected", error).

        The version must rise; the same version with the same hash is "unchanged". On a rejection
        the old rule stays as it was, its `last_error` says why. error: {code, message, kind,
        category}; codes schema_invalid, unsupported, unknown_sensor, unknown_actuator,
        out_of_range, too_many_rules, too_large, version_conflict.
        """
        known = self._rules.get(payload.get("reflex_id", ""))
        try:
            rule = self._compiled(payload)
            if known is not None and known.version == rule.version and known.hash == rule.hash:
                return "unchanged", None
            self._admit(rule, known)
        except (RuleError, StepError) as error:
            category = error.category if isinstance(error, RuleError) else "validation"
            if error.code.startswith("unknown_"):
                category = "not_found"
            problem = _error(error.code, error.text, category)
            if known is not None:
                known.last_error = problem
            return "rejected", problem
        self._rules[rule.reflex_id] = rule
        self._by_priority = sorted(self._rules.values(), key=_rank)
        return "applied", None

    def restore(self, rules: "list[dict[str, Any]]") -> "list[tuple[str, dict[str, Any]]]":
        """Take stored payloads at boot: (reflex_id, error) for each that could not be taken."""
        refused = []
        for payload in rules:
            status, error = self.configure(payload, 0)
            if status == "rejected" and error is not None:
                refused.append((payload.get("reflex_id", ""), error))
        return refused

    def rules(self) -> "list[dict[str, Any]]":
        """Return the payloads of all rules, for the store."""
        return [self._rules[name].payload for name in sorted(self._rules)]

    def evaluate(self, values: "dict[str, Any]", ticks_ms: int) -> list[Firing]:
        """Return what fires on {sensor_type: value | None}, highest priority first."""
        self._values = values
        firings: list[Firing] = []
        for rule in self._by_priority:
            if rule.live:
                cause = rule.judge(values, ticks_ms)
                if cause is not None:
                    firings.append(self._fire(rule, cause, ticks_ms))
        return firings

    def trigger(
        self, reflex_id: str, ticks_ms: int, values: "dict[str, Any] | None" = None
    ) -> "tuple[Firing | None, dict[str, Any] | None]":
        """Fire a rule by hand, whatever its condition says: (Firing, None) or (None, error).

        values are the inputs to report, those of the last evaluation when left out. Codes:
        unknown_rule, rule_disabled, rate_limited (over max_fires_per_min; retriable).
        """
        if values is not None:
            self._values = values
        rule = self._rules.get(reflex_id)
        if rule is None:
            return None, _error("unknown_rule", f"no rule {reflex_id!r} on this board", "not_found")
        if not rule.live:
            return None, _error("rule_disabled", f"{reflex_id} is disabled or expired", "conflict")
        if not rule.within_cap(ticks_ms):
            text = f"{reflex_id} fired {rule.max_fires} times within a minute"
            return None, _error("rate_limited", text, "conflict", "retriable")
        return self._fire(rule, "trigger", ticks_ms), None

    def expire(self, unix_ms: int) -> list[str]:
        """Switch off the rules whose expires_at has passed: their ids. Call once a second.

        While the time is unknown nothing expires: a reflex must run without a hub.
        """
        ended = []
        for rule in self._by_priority:
            if rule.live and rule.expires_ms is not None and unix_ms >= rule.expires_ms:
                rule.live = False
                ended.append(rule.reflex_id)
        return ended

    def failed(self, reflex_id: str, code: str, message: str) -> None:
        """Remember that an action of a rule could not be done; ReflexState shows it."""
        self._rules[reflex_id].last_error = _error(code, message, "dependency")

    def hash(self, reflex_id: str) -> str | None:
        """Return the rule's hash, None when there is no such rule."""
        rule = self._rules.get(reflex_id)
        return None if rule is None else rule.hash

    def state(self, reflex_id: str) -> "dict[str, Any] | None":
        """Return the ReflexState payload, None when there is no such rule."""
        rule = self._rules.get(reflex_id)
        if rule is None:
            return None
        state: dict[str, Any] = {
            "version": rule.version,
            "hash": rule.hash,
            "enabled": rule.live,
            "mode": rule.payload["mode"],
            "fires": rule.fires,
        }
        if rule.last_fire is not None:
            state["last_fire"] = rule.last_fire
        if rule.last_error is not None:
            state["last_error"] = rule.last_error
        return state

    def _compiled(self, payload: "dict[str, Any]") -> "_Rule":
        breach = check(_SCHEMA, payload)
        if breach:
            raise RuleError("schema_invalid", f"{breach[0] or 'the rule'}: {breach[1]}")
        rule = _Rule(payload)
        if self._sensors is not None:
            for leaf in rule.leaves:
                if leaf.sensor not in self._sensors:
                    known = ", ".join(self._sensors) or "none"
                    text = f"sensor {leaf.sensor!r} is not wired here; known: {known}"
                    raise RuleError("unknown_sensor", text)
        for step in rule.steps("then") + rule.steps("else"):
            if "publish" not in step:
                if "ramp" in step:
                    raise RuleError("unsupported", "ramp is not built in yet; use set")
                if self._outputs is not None:
                    self._outputs.check(step)
        return rule

    def _admit(self, rule: "_Rule", known: "_Rule | None") -> None:
        if known is not None and rule.version <= known.version:
            text = f"version {rule.version} does not rise above {known.version}"
            raise RuleError("version_conflict", text, "conflict")
        if known is None and len(self._rules) >= self._rule_limit:
            raise RuleError("too_many_rules", f"{self._rule_limit} rules are the most", "conflict")
        size = rule.size - (known.size if known is not None else 0)
        for each in self._by_priority:
            size += each.size
        if size > self._bytes_limit:
            text = f"all rules together would be {size} bytes, at most {self._bytes_limit}"
            raise RuleError("too_large", text, "conflict")

    def _fire(self, rule: "_Rule", cause: str, ticks_ms: int) -> Firing:
        firing = Firing(rule, cause, rule.steps(cause), ticks_ms)
        for leaf in rule.leaves:
            value = self._values.get(leaf.sensor)
            if isinstance(value, str):
                value = value[:_INPUT_LIMIT]
            if isinstance(value, (bool, int, float, str)):
                firing.inputs[leaf.sensor] = value
        held = [step["actuator"] for step in firing.actions if self._is_held(rule, step)]
        if held:
            firing.overridden = held
            firing.actions = [step for step in firing.actions if step.get("actuator") not in held]
        if cause != "else":
            rule.count(ticks_ms)
            if self._clock is not None:
                rule.last_fire = self._clock.now(ticks_ms)[0]
        return firing

    def _is_held(self, rule: "_Rule", step: "dict[str, Any]") -> bool:
        """Whether a rule of higher priority holds the actuator of this step."""
        actuator = step.get("actuator")
        return actuator is not None and any(
            other.priority > rule.priority and other.holds(actuator) for other in self._by_priority
        )


class _Rule:
    """One rule and what it remembers between evaluations.

    What an evaluation does not need each time is read from the payload: an attribute costs a board
    16 bytes, and there are 32 rules.
    """

    def __init__(self, payload: "dict[str, Any]") -> None:
        canonical = dumps(payload, "%.6g")
        leaves: list[Any] = []
        self.payload = payload
        self.hash = _digest(canonical)
        self.size = len(canonical.encode())
        self.live: bool = payload["enabled"]
        self.priority: int = payload.get("priority", 0)
        self.expires_ms = unix_of(payload["expires_at"]) if "expires_at" in payload else None
        self.fires = 0
        self.last_fire: int | None = None
        self.last_error: dict[str, Any] | None = None
        self._condition = compile_condition(payload["when"], leaves)
        self.leaves = tuple(leaves)
        self._pulses = tuple([leaf for leaf in leaves if leaf.is_pulse])
        if self.cooldown_ms > LONGEST_MS:
            raise RuleError("out_of_range", f"cooldown_ms is at most {LONGEST_MS}")
        self._cooling_since: int | None = None
        self._recent: list[int] | None = None  # ticks of the fires of the last minute
        self._pending = False
        self._fired = False

    @property
    def reflex_id(self) -> str:
        name: str = self.payload["reflex_id"]
        return name

    @property
    def version(self) -> int:
        version: int = self.payload["version"]
        return version

    @property
    def dry_run(self) -> bool:
        return bool(self.payload["mode"] == "dry_run")

    @property
    def cooldown_ms(self) -> int:
        cooldown_ms: int = self.payload.get("cooldown_ms", 0)
        return cooldown_ms

    @property
    def max_fires(self) -> int:
        max_fires: int = self.payload.get("max_fires_per_min", _DEFAULT_FIRES)
        return max_fires

    def steps(self, cause: str) -> "list[dict[str, Any]]":
        """Return the steps of "else", or those of "then" for any other cause."""
        steps: list[dict[str, Any]] = self.payload.get("else" if cause == "else" else "then", [])
        return steps

    def judge(self, values: "dict[str, Any]", ticks_ms: int) -> str | None:
        """Whether "then" or "else" is to be done now."""
        # Both timers are let go as soon as they have run out, so that no tick grows old enough to
        # be mistaken for one that lies ahead.
        cooling = self._cooling_since
        if cooling is not None and elapsed(ticks_ms, cooling) >= self.cooldown_ms:
            self._cooling_since = None
        if self._recent and elapsed(ticks_ms, self._recent[0]) >= _MINUTE_MS:
            self._recent.pop(0)
        state = self._condition.read(values, ticks_ms)
        if state is None:
            return None
        if not state:
            ended = self._fired
            self._pending = self._fired = False
            return "else" if ended and "else" in self.payload else None
        if not self._fired:
            self._pending = True
        for leaf in self._pulses:
            if leaf.result:
                self._pending = True
        if (
            not self._pending
            or self._cooling_since is not None
            or (self._recent and len(self._recent) >= self.max_fires)
        ):
            return None
        self._pending = False
        self._fired = True
        return "then"

    def within_cap(self, ticks_ms: int) -> bool:
        """Whether one more fire keeps to max_fires_per_min."""
        while self._recent and elapsed(ticks_ms, self._recent[0]) >= _MINUTE_MS:
            self._recent.pop(0)
        return not self._recent or len(self._recent) < self.max_fires

    def count(self, ticks_ms: int) -> None:
        """Note a fire."""
        self.fires += 1
        if self._recent is None:
            self._recent = []
        self._recent.append(ticks_ms)
        if self.cooldown_ms:
            self._cooling_since = ticks_ms

    def holds(self, actuator: object) -> bool:
        """Whether its condition is true, it has fired, and it has set this actuator."""
        if not self._fired or not self.live or self.dry_run:
            return False
        return any(step.get("actuator") == actuator for step in self.payload["then"])


def _rank(rule: _Rule) -> "tuple[int, str]":
    return -rule.priority, rule.reflex_id


def _digest(canonical: str) -> str:
    return hexlify(hashlib.sha256(canonical.encode()).digest()[:8]).decode()


def _described(step: "dict[str, Any]") -> str:
    if "publish" in step:
        return f"publish {step['publish']['sensor_type']}={dumps(step['publish']['value'])}"
    if "set" in step:
        return f"{step['actuator']}={dumps(step['set'])}"
    return f"{step['actuator']}=pulse {step['pulse_ms']} ms"


def _error(code: str, message: str, category: str, kind: str = "terminal") -> "dict[str, Any]":
    return {"code": code, "message": message[:256], "kind": kind, "category": category}
