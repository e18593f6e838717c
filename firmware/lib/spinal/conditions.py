"""Conditions of reflex rules, compiled once into small objects.

A condition is True, False or None: None while a sensor it needs has no value, and then it neither
fires nor ends anything (Kleene's three-valued logic). Every leaf is read at every evaluation: it
keeps its hysteresis, its time and its last value itself.
"""

from spinal.ticks import LONGEST_MS, elapsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEAF_LIMIT = 8


class RuleError(ValueError):
    """A rule cannot be taken; code and category as in a ReflexReport's error."""

    def __init__(self, code: str, text: str, category: str = "validation") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.category = category


def compile_condition(when: "dict[str, Any]", leaves: "list[Leaf]") -> "Leaf | AllOf | AnyOf | Not":
    """Return an object with `read(values, ticks_ms)`; its leaves are added to the list.

    when keeps to the contract, which bounds the depth.
    RuleError "schema_invalid", "unsupported" or "out_of_range" when it cannot be compiled.
    """
    if "sensor" in when:
        if len(leaves) >= LEAF_LIMIT:
            raise RuleError("schema_invalid", f"when: more than {LEAF_LIMIT} comparisons")
        leaf = Leaf(when)
        leaves.append(leaf)
        return leaf
    if "not" in when:
        return Not(compile_condition(when["not"], leaves))
    joined = when["all"] if "all" in when else when["any"]
    parts = [compile_condition(part, leaves) for part in joined]
    return AllOf(parts) if "all" in when else AnyOf(parts)


class Leaf:
    """One comparison of one sensor.

    changed, rises and falls are moments: true in the one evaluation in which the value differs from
    the last one, is above it, is below it (a switch: became true, became false). rises and falls
    with a value are about crossing it, from below to at least it or from above to at most it;
    hysteresis is how far back the value must go before it can cross again. stale: the sensor has
    given no value for for_ms; it alone is about that, for all others no value means None.
    """

    # What most comparisons do not need is set once, for all of them.
    _for_ms = 0
    _stale = False
    _crossing = False
    _since: "int | None" = None
    _previous: "Any" = None

    def __init__(self, leaf: "dict[str, Any]") -> None:
        op: str = leaf["op"]
        self.sensor: str = leaf["sensor"]
        self.result: bool | None = None
        self.is_pulse = op in _MOMENTS
        self._compare = _COMPARISONS[op]
        self._bounds: tuple[Any, Any] = (None, None)
        self._released: tuple[Any, Any] = (None, None)
        self._holds = False
        self.seen: Any = self
        """For its rule, which need not ask again; at first no value that there is."""
        self._read_bounds(op, leaf)
        for_ms: int = leaf.get("for_ms", 0)
        if for_ms > LONGEST_MS:
            raise RuleError("out_of_range", f"when: for_ms is at most {LONGEST_MS}")
        if for_ms:
            if self.is_pulse:
                raise RuleError("unsupported", f"when: {op} is a moment and cannot last for_ms")
            self._for_ms = for_ms
        if op == "stale":
            self._stale = True
        if self.is_pulse and self._bounds[0] is not None:
            self._crossing = True

    @property
    def is_timed(self) -> bool:
        """Whether the same value again may say something else."""
        return self.is_pulse or self._stale or self._for_ms > 0

    def read(self, values: "dict[str, Any]", ticks_ms: int) -> bool | None:
        """Compare the value now."""
        value = values.get(self.sensor)
        if value is None:
            return self._without(ticks_ms)
        try:
            if self.is_pulse:
                self.result = self._moment(value)
                return self.result
            low, high = self._released if self._holds else self._bounds
            self._holds = self._compare(value, low, high)
        except TypeError:
            self._holds = False  # a text has no order with a number: as unknown as no value
            self._forget_since()
            self.result = None
            return None
        self.result = self._holds if not self._for_ms else self._lasted(ticks_ms)
        return self.result

    def _without(self, ticks_ms: int) -> bool | None:
        if self._stale:
            self._holds = True
            self.result = self._lasted(ticks_ms)
            return self.result
        if not self.is_pulse:
            self._holds = False
            self._forget_since()
        self.result = None
        return None

    def _forget_since(self) -> None:
        if self._since is not None:
            self._since = None

    def _moment(self, value: "Any") -> bool:
        """Whether the value has just changed, risen or fallen; across a gap without values too."""
        previous = self._previous
        if self._crossing:
            # What is remembered is the side of the threshold, not the value.
            low, high = self._released if self._holds else self._bounds
            beyond: bool = self._compare(value, low, high)
            happened = beyond and not self._holds and previous is not None
            self._holds = beyond
            self._previous = beyond
            return happened
        self._previous = value
        return previous is not None and value != previous and self._compare(value, previous, None)

    def _lasted(self, ticks_ms: int) -> bool:
        if not self._holds:
            self._forget_since()
            return False
        if self.result:
            return True  # once it has lasted no tick is compared any more, so none can wrap
        if self._since is None:
            self._since = ticks_ms
        return elapsed(ticks_ms, self._since) >= self._for_ms

    def _read_bounds(self, op: str, leaf: "dict[str, Any]") -> None:
        back = leaf.get("hysteresis", 0)
        if "values" in leaf and op not in _RANGES:
            raise RuleError("schema_invalid", f"when: {op} and values do not fit")
        if op in _RANGES:
            if "values" not in leaf or leaf["values"][0] > leaf["values"][1]:
                raise RuleError("schema_invalid", f"when: {op} needs values [low, high]")
            low, high = leaf["values"]
            self._bounds = (low, high)
            inward = back if op == "outside" else -back
            self._released = (low + inward, high - inward) if back else self._bounds
            return
        limit = leaf.get("value")
        if op in ("changed", "stale") and limit is not None:
            raise RuleError("schema_invalid", f"when: {op} and value do not fit")
        if op in _WITHOUT_STEP_BACK or (self.is_pulse and limit is None):
            if back:
                raise RuleError("schema_invalid", f"when: {op} has no hysteresis")
            if op in ("eq", "ne") and limit is None:
                raise RuleError("schema_invalid", f"when: {op} needs a value")
            self._bounds = self._released = (limit, None)
            return
        if not isinstance(limit, (int, float)) or isinstance(limit, bool):
            raise RuleError("schema_invalid", f"when: {op} needs a number as value")
        self._bounds = (limit, None)
        released = limit - back if op in ("gt", "ge", "rises") else limit + back
        self._released = (released, None) if back else self._bounds


class AllOf:
    """True when every part is."""

    def __init__(self, parts: "list[Any]") -> None:
        self._parts = parts

    def read(self, values: "dict[str, Any]", ticks_ms: int) -> bool | None:
        """Read every part."""
        result: bool | None = True
        for part in self._parts:
            state = part.read(values, ticks_ms)
            if state is False:
                result = False
            elif state is None and result:
                result = None
        return result


class AnyOf:
    """True when one part is."""

    def __init__(self, parts: "list[Any]") -> None:
        self._parts = parts

    def read(self, values: "dict[str, Any]", ticks_ms: int) -> bool | None:
        """Read every part."""
        result: bool | None = False
        for part in self._parts:
            state = part.read(values, ticks_ms)
            if state:
                result = True
            elif state is None and not result:
                result = None
        return result


class Not:
    """True when its part is False."""

    def __init__(self, part: "Any") -> None:
        self._part = part

    def read(self, values: "dict[str, Any]", ticks_ms: int) -> bool | None:
        """Read the part."""
        state = self._part.read(values, ticks_ms)
        return None if state is None else not state


def _same(value: object, constant: object) -> bool:
    return value == constant and isinstance(value, bool) == isinstance(constant, bool)


_MOMENTS = ("changed", "rises", "falls")
_RANGES = ("between", "outside")
_WITHOUT_STEP_BACK = ("eq", "ne", "changed", "stale")

# rises and falls compare with their threshold where they have one, else with the last value.
_COMPARISONS: "dict[str, Any]" = {
    "gt": lambda value, limit, _: value > limit,
    "ge": lambda value, limit, _: value >= limit,
    "lt": lambda value, limit, _: value < limit,
    "le": lambda value, limit, _: value <= limit,
    "eq": lambda value, constant, _: _same(value, constant),
    "ne": lambda value, constant, _: not _same(value, constant),
    "between": lambda value, low, high: low <= value <= high,
    "outside": lambda value, low, high: value < low or value > high,
    "changed": lambda *_: True,
    "rises": lambda value, limit, _: value >= limit,
    "falls": lambda value, limit, _: value <= limit,
    "stale": lambda *_: False,
}
