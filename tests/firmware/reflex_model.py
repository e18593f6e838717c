"""What the reflex engine is to do, said once more in the plainest way: its tests' reference.

Time is a plain number that never wraps, a condition is a number (0 false, 1 unknown, 2 true): all,
any and not are min, max and 2 - x.
"""

from typing import Any

FALSE, UNKNOWN, TRUE = 0, 1, 2
MOMENTS = ("changed", "rises", "falls")
MINUTE_MS = 60_000


class ModelLeaf:
    """One comparison."""

    def __init__(self, leaf: dict[str, Any]) -> None:
        self.leaf = leaf
        self.moment = leaf["op"] in MOMENTS
        self.state = UNKNOWN
        self.true_since: int | None = None
        self.last: Any = None
        self.beyond = False

    def read(self, value: Any, now: int) -> int:
        op = self.leaf["op"]
        if op == "stale":
            self.state = self._lasted(value is None, now)
        elif value is None:
            self.state = UNKNOWN
            if not self.moment:
                self.true_since = None
        elif self.moment:
            self.state = TRUE if self._happened(op, value) else FALSE
        else:
            self.state = self._lasted(self._compared(op, value), now)
        return self.state

    def _compared(self, op: str, value: Any) -> bool:
        back = self.leaf.get("hysteresis", 0) if self.true_since is not None else 0
        low, high = self.leaf.get("values", (None, None))
        limit = self.leaf.get("value")
        return bool(
            {
                "gt": lambda: value > limit - back,
                "ge": lambda: value >= limit - back,
                "lt": lambda: value < limit + back,
                "le": lambda: value <= limit + back,
                "eq": lambda: value == limit,
                "ne": lambda: value != limit,
                "between": lambda: low - back <= value <= high + back,
                "outside": lambda: value < low + back or value > high - back,
            }[op]()
        )

    def _lasted(self, holds: bool, now: int) -> int:  # noqa: FBT001 - what is asked about
        if not holds:
            self.true_since = None
            return FALSE
        if self.true_since is None:
            self.true_since = now
        return TRUE if now - self.true_since >= self.leaf.get("for_ms", 0) else FALSE

    def _happened(self, op: str, value: Any) -> bool:
        last, self.last = self.last, value
        limit = self.leaf.get("value")
        if limit is None or op == "changed":
            if last is None:
                return False
            return bool(
                {"changed": value != last, "rises": value > last, "falls": value < last}[op]
            )
        was, back = self.beyond, self.leaf.get("hysteresis", 0) if self.beyond else 0
        self.beyond = value >= limit - back if op == "rises" else value <= limit + back
        return self.beyond and not was and last is not None


class ModelRule:
    """One rule: when it fires and when it ends."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload
        self.leaves: list[tuple[dict[str, Any], ModelLeaf]] = []
        self.collect(payload["when"])
        self.live = payload["enabled"]
        self.fired = self.pending = False
        self.fires: list[int] = []
        self.order = 0

    def collect(self, when: dict[str, Any]) -> None:
        if "op" in when:
            self.leaves.append((when, ModelLeaf(when)))
        negated = [when["not"]] if "not" in when else []
        for part in when.get("all", []) + when.get("any", []) + negated:
            self.collect(part)

    @property
    def moments(self) -> list[ModelLeaf]:
        return [leaf for _, leaf in self.leaves if leaf.moment]

    def state(self, when: dict[str, Any]) -> int:
        if "op" in when:
            return next(leaf.state for written, leaf in self.leaves if written is when)
        if "not" in when:
            return 2 - self.state(when["not"])
        if "all" in when:
            return min(self.state(part) for part in when["all"])
        return max(self.state(part) for part in when["any"])

    def may_fire(self, now: int) -> bool:
        recent = [each for each in self.fires if now - each < MINUTE_MS]
        cooled = not self.fires or now - self.fires[-1] >= self.payload.get("cooldown_ms", 0)
        return cooled and len(recent) < self.payload.get("max_fires_per_min", 60)

    def within_cap(self, now: int) -> bool:
        recent = [each for each in self.fires if now - each < MINUTE_MS]
        return len(recent) < self.payload.get("max_fires_per_min", 60)

    def judge(self, values: dict[str, Any], now: int) -> str | None:
        for _, leaf in self.leaves:
            leaf.read(values.get(leaf.leaf["sensor"]), now)
        state = self.state(self.payload["when"])
        if state == UNKNOWN:
            return None
        if state == FALSE:
            return "else" if self.end() else None
        self.pending |= not self.fired or any(leaf.state == TRUE for leaf in self.moments)
        if not self.pending or not self.may_fire(now):
            return None
        self.pending, self.fired = False, True
        self.fires.append(now)
        return "then"

    def end(self) -> bool:
        ended, self.fired, self.pending = self.fired, False, False
        return ended

    def claims(self, actuator: str) -> bool:
        active = self.live and self.fired and self.payload["mode"] == "active"
        return active and any(step["actuator"] == actuator for step in self.payload["then"])
