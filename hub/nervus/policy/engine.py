"""The policy engine: what the rules say about one request. Pure and bounded."""

from collections.abc import Callable
from dataclasses import dataclass

from nervus.policy.rules import Regime, Rule
from nervus.wire.contracts import CommandRequestPayload


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say: allowed or not, by which rule, and why."""

    allowed: bool
    reason_code: str
    message: str
    rule_id: str | None = None


class BudgetExceededError(Exception):
    """The rules took more comparisons than a decision may; it counts as a timeout."""


Engine = Callable[[Regime, CommandRequestPayload, str, int], Ruling]
"""Takes regime, request, principal and budget; may raise, which denies."""


def evaluate(regime: Regime, request: CommandRequestPayload, principal: str, budget: int) -> Ruling:
    """Evaluate all rules: a deny wins, else the first allow, else nothing is allowed.

    `budget` is how many rules and patterns may be looked at: the same request under the same regime
    is decided alike on a fast and a slow machine, which a timeout by the clock would not give.

    Raises:
        BudgetExceededError: The budget ran out.
    """
    allowing: Rule | None = None
    beyond: Ruling | None = None
    for rule in regime.rules:
        budget -= 1 + len(rule.principals) + len(rule.capabilities) + len(rule.targets)
        if budget < 0:
            raise BudgetExceededError(f"the rules from {rule.id} on were not reached")
        if not _selects(rule, request, principal):
            continue
        broken = _broken_limit(rule, request)
        if rule.effect == "deny":
            if broken is not None or not rule.limits:
                return _denied(rule, broken)
        elif broken is not None:
            beyond = beyond or _denied(rule, broken)
        else:
            allowing = allowing or rule
    if allowing is not None:
        return Ruling(allowed=True, reason_code="allowed", message="", rule_id=allowing.id)
    if beyond is not None:
        return beyond
    message = f"no rule allows {principal} to invoke {request.capability} there"
    return Ruling(allowed=False, reason_code="no_rule", message=message)


def _selects(rule: Rule, request: CommandRequestPayload, principal: str) -> bool:
    return (
        any(_matches(name, principal) for name in rule.principals)
        and any(_matches(name, request.capability) for name in rule.capabilities)
        and any(
            _matches(device, request.target.device_id)
            and _matches(actuator, request.target.actuator)
            for device, actuator in (target.split("/") for target in rule.targets)
        )
    )


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _broken_limit(rule: Rule, request: CommandRequestPayload) -> str | None:
    for name, limit in rule.limits.items():
        if not limit.holds(request.arguments.get(name)):
            return name
    return None


def _denied(rule: Rule, broken: str | None) -> Ruling:
    if broken is None:
        code, what = "denied", "denied"
    else:
        code, what = "limit_exceeded", f"{broken} is beyond the limit"
    reason = f": {rule.reason}" if rule.reason else ""
    message = f"rule {rule.id}: {what}{reason}"
    return Ruling(allowed=False, reason_code=code, message=message[:256], rule_id=rule.id)
