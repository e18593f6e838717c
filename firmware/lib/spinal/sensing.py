"""One sensor of the loop: when it is read, and when its policy lets the value be published."""

from math import isfinite

from spinal.afferent import Policy
from spinal.ticks import later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MASK = (1 << 30) - 1  # as in spinal.ticks; a constant of its own module costs a board nothing
_HALF = 1 << 29


class Sensing:
    """A sensor, when it is due, and what its policy says about the value.

    A sensor that raises, or says NaN or infinity, has no value: reflexes neither fire nor end on
    it, but for those that ask whether it is stale, and the policy counts it.
    """

    news: "str | None" = None
    """What to tell people: that it has begun to fail, or gives values again."""
    _failing = False

    def __init__(self, sensor: "Any", config: dict) -> None:
        self.id = config["id"]
        self.unit = config["unit"]
        self.ttl_ms = config["ttl_ms"]
        self.value = None
        self.due = 0
        self._sensor = sensor
        self._policy = Policy(config)
        self._settle_ms = min(config.get("debounce_ms") or sensor.period_ms, sensor.period_ms)
        self._fresh = False
        self._started = False

    def read(self, ticks_ms: int) -> bool:
        """Read when due, a digital input also when it has changed; True for a value to report."""
        # Asked of each sensor in every turn, before anything can react: `elapsed` written out.
        due = not self._started or (ticks_ms - self.due) & _MASK < _HALF
        if not due and not (self._sensor.digital and self._sensor.moved()):
            return False
        value = self._read()
        if not due and value == self.value:
            return False
        self._started = True
        # A changed value is looked at again when it may have settled, not a whole period later.
        changed = value != self.value
        self.due = later(ticks_ms, self._settle_ms if changed else self._sensor.period_ms)
        self.value = value
        self._fresh = True
        return True

    def _read(self) -> "Any":
        try:
            value = self._sensor.read()
            problem = None
        except Exception as error:  # noqa: BLE001 - drivers raise what they like: MicroPython's dht no more than this
            value = None
            problem = repr(error)
        if isinstance(value, float) and not isfinite(value):
            problem = "it says %s" % value
            value = None
        if (value is None) != self._failing:
            self._failing = value is None
            self.news = "%s gives no value: %s" % (self.id, problem)
            if not self._failing:
                self.news = self.id + " gives values again"
        return value

    @property
    def settled(self) -> object:
        """The value filtered and debounced: what is published."""
        return self._policy.value

    def take_report(self, ticks_ms: int) -> str | None:
        """Whether the value just read is to be published: None, "normal" or "critical"."""
        if not self._fresh:
            return None
        self._fresh = False
        return self._policy.sample(self.value, ticks_ms)
