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
    """One comparison of one sensor."""

    def __init__(self, leaf: "dict[str, Any]") -> None:
        self.sensor: str = leaf["sensor"]
        self.result: bool | None = None
        self.is_pulse = leaf["op"] == "changed"
        if leaf["op"] not in _COMPARISONS:
            raise RuleError("unsupported", "when: op {!r} is not built in yet".format(leaf["op"]))
        self._compare = _COMPARISONS[leaf["op"]]
        self._bounds: tuple[Any, Any] = (None, None)
        self._released: tuple[Any, Any] = (None, None)
        self._read_bounds(leaf)
        self._for_ms: int = leaf.get("for_ms", 0)
        if self._for_ms > LONGEST_MS:
            raise RuleError("out_of_range", f"when: for_ms is at most {LONGEST_MS}")
        if self._for_ms and self.is_pulse:
            raise RuleError("unsupported", "when: changed is a moment and cannot last for_ms")
        self._holds = False
        self._since: int | None = None
        self._previous: Any = None

    def read(self, values: "dict[str, Any]", ticks_ms: int) -> bool | None:
        """Compare the value now."""
        value = values.get(self.sensor)
        if value is None:
            self._holds = False
            self._since = None
            self.result = None
            return None
        if self.is_pulse:
            self.result = self._previous is not None and value != self._previous
            self._previous = value
            return self.result
        low, high = self._released if self._holds else self._bounds
        try:
            self._holds = self._compare(value, low, high)
        except TypeError:
            self._holds = False  # a text has no order with a number: as unknown as no value
            self._since = None
            self.result = None
            return None
        self.result = self._holds if not self._for_ms else self._lasted(ticks_ms)
        return self.result

    def _lasted(self, ticks_ms: int) -> bool:
        if not self._holds:
            self._since = None
            return False
        if self.result:
            return True  # once it has lasted no tick is compared any more, so none can wrap
        if self._since is None:
            self._since = ticks_ms
        return elapsed(ticks_ms, self._since) >= self._for_ms

    def _read_bounds(self, leaf: "dict[str, Any]") -> None:
        op = leaf["op"]
        back = leaf.get("hysteresis", 0)
        if self.is_pulse or op in ("eq", "ne"):
            if back:
                raise RuleError("schema_invalid", f"when: {op} has no hysteresis")
            if self.is_pulse == ("value" in leaf):
                raise RuleError("schema_invalid", f"when: {op} and value do not fit")
            self._bounds = self._released = (leaf.get("value"), None)
            return
        if op in ("between", "outside"):
            if "values" not in leaf or leaf["values"][0] > leaf["values"][1]:
                raise RuleError("schema_invalid", f"when: {op} needs values [low, high]")
            low, high = leaf["values"]
            self._bounds = (low, high)
            inward = back if op == "outside" else -back
            self._released = (low + inward, high - inward) if back else self._bounds
            return
        limit = leaf.get("value")
        if not isinstance(limit, (int, float)) or isinstance(limit, bool):
            raise RuleError("schema_invalid", f"when: {op} needs a number as value")
        self._bounds = (limit, None)
        released = limit - back if op in ("gt", "ge") else limit + back
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


_COMPARISONS: "dict[str, Any]" = {
    "gt": lambda value, limit, _: value > limit,
    "ge": lambda value, limit, _: value >= limit,
    "lt": lambda value, limit, _: value < limit,
    "le": lambda value, limit, _: value <= limit,
    "eq": lambda value, constant, _: _same(value, constant),
    "ne": lambda value, constant, _: not _same(value, constant),
    "between": lambda value, low, high: low <= value <= high,
    "outside": lambda value, low, high: value < low or value > high,
    "changed": lambda *_: False,
}
