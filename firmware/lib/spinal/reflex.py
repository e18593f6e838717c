"""The reflex engine: declarative threshold rules, compiled once, evaluated on the board.

A rule fires its `then` when its condition becomes true, and its `else` when it ends after a fire.
An edge that comes during the cooldown or over the cap a minute fires as soon as it may, if the
condition still holds: a rule that protects something must not miss the moment for good. `changed`,
`rises` and `falls` are moments: a rule fires at each, and what comes during the cooldown is
dropped.

Rules that want the same actuator
  A rule claims the actuators of its `then` from its fire until its condition ends. Of all claims
  the highest priority holds; between equals the one that fired later, in one evaluation the later
  reflex_id. What a rule wants of an actuator that a higher priority holds is left out of its
  fire (`overridden`). When the holder ends and another still claims the actuator, it is given back:
  the other's `set` or `ramp` is done again (cause "restored") in place of the holder's `else`.
  A pulse is never repeated so, a dry run claims nothing, and a condition of moments claims no
  longer than the moment. A rule that is replaced, disabled, removed or expired ends likewise, at
  the next evaluation. A command moves an actuator whoever claims it, until the next rule does.
"""

from spinal.actuators import Actuators, StepError
from spinal.conditions import RuleError
from spinal.contracts import SCHEMAS, TABLE
from spinal.jsonprint import dumps
from spinal.rule import Rule
from spinal.schema import check, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from spinal.clock import Clock

RULE_LIMIT = 32
BYTES_LIMIT = 8192
"""Canonical JSON of all rules together."""

_TEXT_LIMIT = 96
_INPUT_LIMIT = 64


class Firing:
    """What a rule does now.

    reflex_id, version, ticks_ms; cause "then" | "else" | "trigger" | "restored"; inputs
    {sensor: value}; actions: the steps to do, in order, {"actuator", "set" | "pulse_ms" | "ramp",
    "max_on_ms"?} or
    {"publish": {"sensor_type", "value", "unit"?}}; overridden: actuators that a rule of higher
    priority holds; dry_run: report only, do nothing.
    """

    def __init__(
        self, rule: "Rule", cause: str, steps: "list[dict[str, Any]]", ticks_ms: int
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

    limits: {"rules": 32, "bytes": 8192, "sensors": [sensor_type…], "actuators": the Actuators}, all
    optional; a rule that names a sensor or an actuator outside of them is refused. clock gives
    `last_fire` its time.
    """

    def __init__(
        self, limits: "dict[str, Any] | None" = None, clock: "Clock | None" = None
    ) -> None:
        limits = limits or {}
        self._rule_limit = limits.get("rules", RULE_LIMIT)
        self._bytes_limit = limits.get("bytes", BYTES_LIMIT)
        self._sensors = limits.get("sensors")
        self._outputs: Actuators | None = limits.get("actuators")
        self._clock = clock
        self._rules: dict[str, Rule] = {}
        self._by_priority: list[Rule] = []
        self._ended: list[Rule] = []
        self._values: dict[str, Any] = {}
        self._fires = 0

    def prepare(
        self, payload: "dict[str, Any]"
    ) -> "tuple[str, Rule | None, dict[str, Any] | None]":
        """Judge a ReflexConfigure payload; nothing changes yet but `last_error`.

        payload keeps to the contract: by the link it came checked, and doing that again takes a
        board as long as all the rest.

        ("applied", rule, None): keep it, then give the rule to `take`; ("removed", None, None):
        forget it, then call `remove`; ("unchanged", None, None); ("rejected", None, error). The
        version must rise; the same version with the same hash is "unchanged", and a removal must
        not be older than the rule. error: {code, message, kind, category}; codes schema_invalid,
        unsupported, unknown_sensor, unknown_actuator, out_of_range, too_many_rules, too_large,
        version_conflict.
        """
        known = self._rules.get(payload.get("reflex_id", ""))
        try:
            rule = self._compiled(payload)
            if rule is None:
                self._check_removal(payload["version"], known)
                return "removed", None, None
            if known is not None and known.version == rule.version and known.hash == rule.hash:
                return "unchanged", None, None
            self._admit(rule, known)
        except (RuleError, StepError) as error:
            return "rejected", None, self._rejected(payload, error)
        return "applied", rule, None

    def take(self, rule: "Rule") -> None:
        """Run a prepared rule from now on; the one it replaces ends."""
        self.remove(rule.reflex_id)
        self._rules[rule.reflex_id] = rule
        self._by_priority = sorted(self._rules.values(), key=_rank)

    def remove(self, reflex_id: str) -> None:
        """Forget a rule; unknown ones are no error: a removal may come twice."""
        rule = self._rules.pop(reflex_id, None)
        if rule is not None:
            self._by_priority.remove(rule)
            self._end_later(rule)

    def configure(
        self,
        payload: "dict[str, Any]",
        ticks_ms: int,  # noqa: ARG002 - every event of a core comes with its tick
    ) -> "tuple[str, dict[str, Any] | None]":
        """`prepare` and do it at once, for who keeps no store: (status, error).

        Of the payload nothing is taken for granted: it may have been stored by another version.
        """
        breach = check(TABLE, part(TABLE, SCHEMAS["ReflexConfigure"], "payload"), payload)
        if breach:
            text = f"{breach[0] or 'the rule'}: {breach[1]}"
            return "rejected", self._rejected(payload, RuleError("schema_invalid", text))
        status, rule, error = self.prepare(payload)
        if rule is not None:
            self.take(rule)
        elif status == "removed":
            self.remove(payload["reflex_id"])
        return status, error

    def restore(self, rules: "list[dict[str, Any]]") -> "list[tuple[str, dict[str, Any]]]":
        """Take stored payloads at boot: (reflex_id, error) for each that could not be taken."""
        refused = []
        for payload in rules:
            status, error = self.configure(payload, 0)
            if status == "rejected" and error is not None:
                refused.append((payload.get("reflex_id", ""), error))
        return refused

    def suspend(self, reflex_id: str, version: int) -> None:
        """Keep one version of a rule from firing until it is configured anew: safe mode."""
        rule = self._rules.get(reflex_id)
        if rule is not None and rule.version == version:
            rule.suspended = True
            rule.live = False
            text = "off since the board did not start well; configure a higher version"
            rule.last_error = _error("safe_mode", text, "conflict")

    def names(self) -> list[str]:
        """Return the ids of all rules."""
        return sorted(self._rules)

    def evaluate(self, values: "dict[str, Any]", ticks_ms: int) -> list[Firing]:
        """Return what fires on {sensor_type: value | None}, in the order in which it is to be done.

        All rules are judged before any acts, so that an actuator which passes from one to another
        makes no detour.
        """
        self._values = values
        causes: list[tuple[Rule, str]] | None = None
        before = self._fires
        for rule in self._by_priority:
            if rule.live:
                cause = rule.judge(values, ticks_ms)
                if cause is not None:
                    causes = causes or []
                    causes.append((rule, cause))
                    if cause == "then":
                        self._fires += 1
                        rule.order = self._fires
        firings: list[Firing] = []
        if causes is None and not self._ended:
            return firings
        causes = causes or []
        ends = self._ended + [rule for rule, cause in causes if cause == "else"]
        if ends:
            self._ended = []
            settled: list[str] = []
            for rule in sorted(ends, key=_rank):
                self._end(rule, before, settled, ticks_ms, firings)
        for rule, cause in causes:
            if cause == "then":
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
        """Switch rules off whose expires_at has passed, and on again if time has been set back.

        Returns the ids of those that changed. Call once a second. While the time is unknown
        nothing expires: a reflex must run without a hub.
        """
        changed = []
        for rule in self._by_priority:
            if rule.expires_ms is not None and rule.enabled and not rule.suspended:
                live = unix_ms < rule.expires_ms
                if live != rule.live:
                    rule.live = live
                    self._end_later(rule)
                    changed.append(rule.reflex_id)
        return changed

    def failed(self, reflex_id: str, code: str, message: str) -> None:
        """Remember that an action of a rule could not be done; ReflexState shows it."""
        rule = self._rules.get(reflex_id)
        if rule is not None:
            rule.last_error = _error(code, message, "dependency")

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
            "mode": "dry_run" if rule.dry_run else "active",
            "fires": rule.fires,
        }
        if rule.last_fire is not None:
            state["last_fire"] = rule.last_fire
        if rule.last_error is not None:
            state["last_error"] = rule.last_error
        return state

    def _rejected(
        self, payload: "dict[str, Any]", error: "RuleError | StepError"
    ) -> "dict[str, Any]":
        """What is wrong with a payload; the rule that it was to replace remembers it."""
        category = error.category if isinstance(error, RuleError) else "validation"
        if error.code.startswith("unknown_"):
            category = "not_found"
        problem = _error(error.code, error.text, category)
        known = self._rules.get(payload.get("reflex_id", ""))
        if known is not None:
            known.last_error = problem
        return problem

    def _compiled(self, payload: "dict[str, Any]") -> "Rule | None":
        """The rule that a payload describes, None when it asks for a removal."""
        if "removed" in payload:
            return None
        rule = Rule(payload)
        # The board's own texts in place of equal ones: each would cost 32 bytes once more.
        if self._sensors is not None:
            for leaf in rule.leaves:
                if leaf.sensor not in self._sensors:
                    known = ", ".join(self._sensors) or "none"
                    text = f"sensor {leaf.sensor!r} is not wired here; known: {known}"
                    raise RuleError("unknown_sensor", text)
                leaf.sensor = self._sensors[self._sensors.index(leaf.sensor)]
        for step in rule.steps("then") + rule.steps("else"):
            if "publish" not in step and self._outputs is not None:
                step["actuator"] = self._outputs.check(step)
        return rule

    def _check_removal(self, version: int, known: "Rule | None") -> None:
        if known is not None and version < known.version:
            text = f"version {version} is older than {known.version}"
            raise RuleError("version_conflict", text, "conflict")

    def _admit(self, rule: "Rule", known: "Rule | None") -> None:
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

    def _fire(self, rule: "Rule", cause: str, ticks_ms: int) -> Firing:
        steps = rule.steps(cause)
        above = _above if cause == "then" else _of_higher_priority
        held = [step["actuator"] for step in steps if self._is_held(rule, step, above)]
        rule.count(ticks_ms)
        if self._clock is not None:
            rule.last_fire = self._clock.now(ticks_ms)[0]
        return self._firing(rule, cause, steps, ticks_ms, held)

    def _firing(
        self,
        rule: "Rule",
        cause: str,
        steps: "list[dict[str, Any]]",
        ticks_ms: int,
        held: "list[str] | None" = None,
    ) -> Firing:
        firing = Firing(rule, cause, steps, ticks_ms)
        for leaf in rule.leaves:
            value = self._values.get(leaf.sensor)
            if isinstance(value, str):
                value = value[:_INPUT_LIMIT]
            if isinstance(value, (bool, int, float, str)):
                firing.inputs[leaf.sensor] = value
        if held:
            firing.overridden = held
            firing.actions = [step for step in steps if step.get("actuator") not in held]
        return firing

    def _is_held(self, rule: "Rule", step: "dict[str, Any]", above: "Any") -> bool:
        """Whether a rule above this one holds the actuator of this step."""
        actuator = step.get("actuator")
        if actuator is not None:
            for other in self._by_priority:
                if (
                    other.acting
                    and other is not rule
                    and other.holds(actuator)
                    and above(other, rule)
                ):
                    return True
        return False

    def _end_later(self, rule: "Rule") -> None:
        """Let a rule that no evaluation will judge again end at the next one."""
        if rule.let_go():
            self._ended.append(rule)

    def _end(
        self,
        rule: "Rule",
        before: int,
        settled: "list[str]",
        ticks_ms: int,
        firings: list[Firing],
    ) -> None:
        """Do the `else` of a rule, and give back what others still claim.

        before: fires before this evaluation; who fired in it drives its actuators itself.
        settled: actuators that an end of higher priority has just driven or given back.
        """
        kept = settled[:]
        restored = []
        for step in rule.steps("then") + rule.steps("else"):
            name = step.get("actuator")
            if name is None or name in kept:
                continue
            other = self._claimant(name, rule, before)
            if other is not None:
                kept.append(name)
                if other.order <= before and _above(rule, other) and not rule.dry_run:
                    again: "list[Any]" = [other.lasting_step(name)]
                    restored.append(self._firing(other, "restored", again, ticks_ms))
        if rule.otherwise is not None:
            firings.append(self._firing(rule, "else", rule.steps("else"), ticks_ms, kept))
        firings.extend(restored)
        if not rule.dry_run:
            for firing in firings:
                settled.extend([step["actuator"] for step in firing.actions if "actuator" in step])

    def _claimant(self, actuator: str, rule: "Rule", before: int) -> "Rule | None":
        """Which other rule has the actuator when this one ends, None when its `else` decides."""
        best = None
        gives = rule.lasts and any(step.get("actuator") == actuator for step in rule.steps("then"))
        for other in self._by_priority:
            if (
                other.acting
                and other is not rule
                and other.holds(actuator)
                and (
                    other.order > before
                    or _above(other, rule)
                    or (gives and other.lasting_step(actuator) is not None)
                )
                and (best is None or _above(other, best))
            ):
                best = other
        return best


def _above(rule: Rule, other: Rule) -> bool:
    return (rule.priority, rule.order) > (other.priority, other.order)


def _of_higher_priority(rule: Rule, other: Rule) -> bool:
    return rule.priority > other.priority


def _rank(rule: Rule) -> "tuple[int, str]":
    return -rule.priority, rule.reflex_id


def _described(step: "dict[str, Any]") -> str:
    if "publish" in step:
        return f"publish {step['publish']['sensor_type']}={dumps(step['publish']['value'])}"
    if "set" in step:
        return f"{step['actuator']}={dumps(step['set'])}"
    if "ramp" in step:
        ramp = step["ramp"]
        return f"{step['actuator']}=ramp to {dumps(ramp['to'])} in {ramp['over_ms']} ms"
    return f"{step['actuator']}=pulse {step['pulse_ms']} ms"


def _error(code: str, message: str, category: str, kind: str = "terminal") -> "dict[str, Any]":
    return {"code": code, "message": message[:256], "kind": kind, "category": category}
