"""Outputs of a board and their timers: pulses, ramps, maximum on-time, what happens without a link.

A ramp moves the output in equal times, every 20 ms at most, and ends exactly at its value. Its
maximum on-time counts from its start. Shapes are those of `spinal.efferent`. "Off" is False, for a
number 0 or what lies nearest to 0 within its range. A timer is a tick: all intervals are at most
3.1 days (`ticks.LONGEST_MS`).
"""

from spinal.ticks import LONGEST_MS, elapsed, later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOLD = "hold"
NEVER_MS = LONGEST_MS
_RAMP_STEP_MS = 20


class StepError(ValueError):
    """A step cannot be done; code "unknown_actuator", "out_of_range" or "unsupported"."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Actuators:
    """The last driven value of each actuator, and what is due on it.

    actuators: the declarations; ValueError (also as StepError) names the actuator and what is
    wrong with it.
    """

    def __init__(self, actuators: "list[dict[str, Any]]") -> None:
        self._outputs: dict[str, _Output] = {}
        for declared in actuators:
            output = _Output(declared)
            if output.id in self._outputs:
                raise ValueError(f"actuator {output.id!r} is declared twice")
            self._outputs[output.id] = output
        self._linked = True

    def boot_outputs(self, ticks_ms: int) -> "list[tuple[Any, ...]]":
        """Outputs that bring every actuator into its boot state; one that is on counts as on."""
        due: list[tuple[Any, ...]] = []
        for name in sorted(self._outputs):
            output = self._outputs[name]
            output.drive(output.value, ticks_ms, None)
            due.append(("output", name, output.value, "boot"))
        return due

    def value(self, actuator: str) -> object:
        """The value last driven; StepError "unknown_actuator"."""
        return self._find(actuator).value

    def check(self, step: "dict[str, Any]") -> str:
        """Return the actuator of a step {actuator, set | pulse_ms | ramp, max_on_ms?}.

        StepError when it cannot be done here.
        """
        output = self._find(step.get("actuator"))
        if "set" in step:
            output.check_value(step["set"])
        elif "ramp" in step:
            if not output.is_number:
                raise StepError("unsupported", f"{output.id}: a switch has no ramp; use set")
            output.check_value(step["ramp"]["to"])
            if step["ramp"]["over_ms"] != 0:
                output.check_interval("over_ms", step["ramp"]["over_ms"])
        elif output.is_number:
            raise StepError("unsupported", f"{output.id}: only a switch can be pulsed; use set")
        else:
            output.check_interval("pulse_ms", step.get("pulse_ms"))
        if step.get("max_on_ms") is not None:
            output.check_interval("max_on_ms", step["max_on_ms"])
        return output.id

    def act(self, step: "dict[str, Any]", ticks_ms: int, why: str) -> "list[tuple[Any, ...]]":
        """Outputs of a step that `check` passes; StepError otherwise, with nothing changed."""
        self.check(step)
        output = self._find(step["actuator"])
        output.forget()
        max_on_ms = step.get("max_on_ms")
        if is_lasting(step) and "ramp" in step:
            output.begin_ramp(step["ramp"], ticks_ms, max_on_ms)
            return []
        if "pulse_ms" in step:
            value = True
            output.pulse_end = later(ticks_ms, step["pulse_ms"])
        else:
            value = step["set"] if "set" in step else step["ramp"]["to"]
        output.drive(value, ticks_ms, max_on_ms)
        return [("output", output.id, value, why)]

    def tick(self, ticks_ms: int) -> "list[tuple[Any, ...]]":
        """Outputs that are due: the reasons are pulse_end, ramp, ramp_end, max_on and link_lost."""
        due: list[tuple[Any, ...]] = []
        for name in self._outputs:
            output = self._outputs[name]
            value, why = output.due(ticks_ms)
            if why:
                if why == "ramp":
                    output.value = value
                elif why != "ramp_end":
                    if output.ramp is not None:
                        output.ramp = None
                    output.drive(value, ticks_ms, None)
                due.append(("output", name, value, why))
        return due

    def wait_ms(self, ticks_ms: int) -> int:
        """Milliseconds until `tick` may have something to do; NEVER_MS when nothing is timed."""
        wait = NEVER_MS
        for name in self._outputs:
            wait = self._outputs[name].sooner(wait, ticks_ms)
        return max(0, wait)

    def link_lost(self, ticks_ms: int) -> None:
        """Start the link-loss policies; calling again while it is lost changes nothing."""
        if self._linked:
            self._linked = False
            for output in self._outputs.values():
                if output.loss_after is not None:
                    output.loss_due = later(ticks_ms, output.loss_after)

    def link_up(self) -> None:
        """Call off the link-loss policies that are not yet due."""
        self._linked = True
        for output in self._outputs.values():
            if output.loss_due is not None:
                output.loss_due = None

    def _find(self, actuator: object) -> "_Output":
        output = self._outputs.get(actuator) if isinstance(actuator, str) else None
        if output is None:
            known = ", ".join(sorted(self._outputs)) or "none"
            raise StepError("unknown_actuator", f"{actuator!r} is not wired here; known: {known}")
        return output


class _Output:
    # What most outputs never need is set once, for all of them.
    least: "Any" = None
    most: "Any" = None
    max_on: "int | None" = None
    loss_after: "int | None" = None
    pulse_end: "int | None" = None
    ramp: "tuple[Any, ...] | None" = None  # first value and tick, last value, ms
    loss_due: "int | None" = None
    _ramp_due = 0
    _off_at: "int | None" = None
    _latest_off: "int | None" = None

    def __init__(self, declared: "dict[str, Any]") -> None:
        self.id: str = declared["id"]
        self.is_number = declared["type"] == "number"
        if declared["type"] not in ("bool", "number"):
            raise ValueError(f"{self.id}: type: {declared['type']!r}, not bool or number")
        if self.is_number:
            self.least = declared.get("min")
            self.most = declared.get("max")
        self.off: Any = self._off() if self.is_number else False
        max_on = self._interval(declared, "max_on_ms")
        if max_on is not None:
            self.max_on = max_on
        self.loss_value = self.off
        self._read_loss(declared.get("on_loss"))
        self.value: Any = declared["boot"]
        self.check_value(self.value)
        self.check_value(self.loss_value)

    def forget(self) -> None:
        """What is under way ends here; whoever acts without the link answers for it."""
        if self.pulse_end is not None or self.ramp is not None or self.loss_due is not None:
            self.pulse_end = self.ramp = self.loss_due = None

    def check_value(self, value: object) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number != self.is_number or not (number or isinstance(value, bool)):
            kind = "a number" if self.is_number else "true or false"
            raise StepError("out_of_range", f"{self.id}: {value!r} is not {kind}")
        if not number:
            return
        if (self.least is not None and value < self.least) or (
            self.most is not None and value > self.most
        ):
            raise StepError("out_of_range", f"{self.id}: {value!r} not in {self.least}…{self.most}")

    def check_interval(self, name: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LONGEST_MS:
            raise StepError("out_of_range", f"{self.id}: {name} {value!r} not in 1…{LONGEST_MS}")

    def drive(self, value: object, ticks_ms: int, max_on_ms: int | None) -> None:
        was_on = self.value != self.off
        self.value = value
        if value == self.off:
            if self.pulse_end is not None:
                self.pulse_end = None
            self._let_off_go()
            return
        if self.max_on is not None and (not was_on or self._latest_off is None):
            # Setting it again does not start the time anew: a maximum that anyone can extend by
            # repeating a command protects nothing.
            self._latest_off = later(ticks_ms, self.max_on)
        if self._off_at != self._latest_off:
            self._off_at = self._latest_off
        if max_on_ms is not None:
            wanted = later(ticks_ms, max_on_ms)
            if self._latest_off is None or elapsed(wanted, self._latest_off) < 0:
                self._off_at = wanted

    def begin_ramp(self, ramp: "dict[str, Any]", ticks_ms: int, max_on_ms: int | None) -> None:
        start = self.value
        if ramp["to"] != self.off:
            # Its on-time counts as if it were there already; the way is walked by `due`.
            self.drive(ramp["to"], ticks_ms, max_on_ms)
            self.value = start
        self.ramp = (start, ticks_ms, ramp["to"], ramp["over_ms"])
        self._ramp_due = ticks_ms

    def sooner(self, wait: int, ticks_ms: int) -> int:
        # Asked in every turn of the loop, so nothing is allocated here.
        if self.pulse_end is not None:
            wait = min(wait, -elapsed(ticks_ms, self.pulse_end))
        if self._off_at is not None:
            wait = min(wait, -elapsed(ticks_ms, self._off_at))
        if self.loss_due is not None:
            wait = min(wait, -elapsed(ticks_ms, self.loss_due))
        if self.ramp is not None:
            wait = min(wait, -elapsed(ticks_ms, self._ramp_due))
        return wait

    def due(self, ticks_ms: int) -> "tuple[Any, str]":
        if self.pulse_end is not None and elapsed(ticks_ms, self.pulse_end) >= 0:
            self.pulse_end = None
            return self.off, "pulse_end"
        if self._off_at is not None and elapsed(ticks_ms, self._off_at) >= 0:
            return self.off, "max_on"
        if self.loss_due is not None and elapsed(ticks_ms, self.loss_due) >= 0:
            self.loss_due = None
            if self.value != self.loss_value or self.ramp is not None:
                return self.loss_value, "link_lost"
        if self.ramp is not None and elapsed(ticks_ms, self._ramp_due) >= 0:
            return self._along(self.ramp, ticks_ms)
        return None, ""

    def _along(self, ramp: "tuple[Any, ...]", ticks_ms: int) -> "tuple[Any, str]":
        start, began, end, over_ms = ramp
        passed = elapsed(ticks_ms, began)
        if passed < over_ms:
            self._ramp_due = later(ticks_ms, min(_RAMP_STEP_MS, over_ms - passed))
            return start + (end - start) * passed / over_ms, "ramp"
        self.ramp = None
        self.value = end
        if end == self.off:
            self._let_off_go()
        return end, "ramp_end"

    def _let_off_go(self) -> None:
        if self._off_at is not None or self._latest_off is not None:
            self._off_at = self._latest_off = None

    def _off(self) -> "Any":
        if self.least is not None and self.least > 0:
            return self.least
        return self.most if self.most is not None and self.most < 0 else 0

    def _read_loss(self, policy: "Any") -> None:
        if policy is None or policy == HOLD:
            return
        if isinstance(policy, dict) and "off_after_ms" in policy:
            self.loss_after = self._interval(policy, "off_after_ms")
        elif isinstance(policy, dict) and "value" in policy:
            self.loss_value = policy["value"]
            self.loss_after = self._interval(policy, "after_ms") or 0
        else:
            raise ValueError(f"{self.id}: on_loss: {policy!r}, not hold, off_after_ms or value")

    def _interval(self, declared: "dict[str, Any]", name: str) -> int | None:
        value = declared.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LONGEST_MS:
            raise ValueError(f"{self.id}: {name}: {value!r} is no number from 0 to {LONGEST_MS}")
        return value


def is_lasting(step: "dict[str, Any]") -> bool:
    """Whether a step goes on after it began, so that it succeeds only at its end."""
    return "pulse_ms" in step or ("ramp" in step and step["ramp"]["over_ms"] > 0)
