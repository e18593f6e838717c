"""When a measurement is worth a message: filter, debounce, deadband, intervals, urgency."""

from math import isfinite

from spinal.ticks import LONGEST_MS, elapsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WINDOW_LIMIT = 32
_DAY_MS = 86_400_000


class Policy:
    """Decides for one sensor which samples are published, and how urgently.

    config, all optional (other keys are left to others):
      median or mean    an odd number of samples up to 32 (mean: any) that `value` is taken over
      debounce_ms       a changed value counts once it has stayed this long (0)
      deadband          a change of at least this much is worth a message (0: any change)
      min_interval_ms   messages are at least this far apart (0)
      max_interval_ms   an unchanged value is repeated after this long (60 000), at most a day
      urgent            {"ge": x} and/or {"le": x}: reaching the threshold; {"change": true}: every
                        change. What is urgent waits for no interval.
    ValueError names the key that is wrong. Texts and bools are compared, never averaged.
    """

    # What most sensors never need is set once, for all of them.
    value: "Any" = None
    """The filtered and debounced value, None before the first sample."""
    invalid = 0
    """Samples that were no value: None, NaN or infinite."""
    _median = False
    _size = 1
    _debounce = 0
    _shortest = 0
    _longest = 60_000
    _deadband: "float" = 0
    _ge: "int | float | None" = None
    _le: "int | float | None" = None
    _change = False
    _window: "list[Any] | None" = None
    _at = 0
    _candidate: "Any" = None
    _candidate_at = 0
    _sent: "Any" = None
    _alarmed = False

    def __init__(self, config: "dict[str, Any]") -> None:
        if config.get("median") is not None:
            self._median = True
            self._size = _integer(config, "median", 1, _WINDOW_LIMIT)
            if not self._size % 2:
                raise ValueError("median: an odd number of samples has a middle one: 3, 5, 7 …")
        elif config.get("mean") is not None:
            self._size = _integer(config, "mean", 1, _WINDOW_LIMIT)
        if config.get("debounce_ms") is not None:
            self._debounce = _integer(config, "debounce_ms", 0, LONGEST_MS)
        if config.get("min_interval_ms") is not None:
            self._shortest = _integer(config, "min_interval_ms", 0, LONGEST_MS)
        if config.get("max_interval_ms") is not None:
            self._longest = _integer(config, "max_interval_ms", 1, _DAY_MS)
        if config.get("deadband") is not None:
            self._deadband = _number(config, "deadband", "deadband")
            if self._deadband < 0:
                raise ValueError("deadband: not below 0")
        self._read_urgent(config.get("urgent") or {})
        self._sent_at = 0
        self._may_send = True
        self._must_send = False

    def sample(self, value: "Any", ticks_ms: int) -> str | None:
        """Take a sample: None, or publish `value` now as "normal" or "critical"."""
        self._let_time_pass(ticks_ms)
        if value is None or (isinstance(value, float) and not isfinite(value)):
            self.invalid += 1
            self._forget_candidate()
            return None
        value = self._filtered(value)
        if not self._settled(value, ticks_ms):
            value = self.value
        if self._sent is None:
            urgent = self._reaches(value)
        else:
            urgent = self._reaches(value) or (self._change and value != self._sent)
            if not urgent and not self._worth(value):
                return None
        self._sent = value
        self._sent_at = ticks_ms
        self._may_send = not self._shortest
        self._must_send = False
        return "critical" if urgent or self._alarmed else "normal"

    def _read_urgent(self, urgent: "dict[str, Any]") -> None:
        if urgent.get("ge") is not None:
            self._ge = _number(urgent, "ge", "urgent.ge")
        if urgent.get("le") is not None:
            self._le = _number(urgent, "le", "urgent.le")
        if urgent.get("change"):
            self._change = True

    def _let_time_pass(self, ticks_ms: int) -> None:
        # An interval that has run out is noted at once, also while the sensor is silent: after six
        # days its tick would be taken for one that lies ahead.
        if self._sent is not None and not (self._may_send and self._must_send):
            since = elapsed(ticks_ms, self._sent_at)
            self._may_send = self._may_send or since >= self._shortest
            self._must_send = self._must_send or since >= self._longest

    def _filtered(self, value: "Any") -> "Any":
        if self._size == 1 or isinstance(value, (bool, str, dict)):
            return value
        if self._window is None:
            self._window = []
        if len(self._window) < self._size:
            self._window.append(value)
        else:
            self._window[self._at] = value
            self._at = (self._at + 1) % self._size
        if self._median:
            return sorted(self._window)[len(self._window) // 2]
        return sum(self._window) / len(self._window)

    def _settled(self, value: "Any", ticks_ms: int) -> bool:
        """Whether value is, or now becomes, the debounced value."""
        if not self._debounce or self.value is None:
            self.value = value
            return True
        if value == self.value:
            self._forget_candidate()
            return True
        if self._candidate is None or value != self._candidate:
            self._candidate = value
            self._candidate_at = ticks_ms
        if elapsed(ticks_ms, self._candidate_at) < self._debounce:
            return False
        self._forget_candidate()
        self.value = value
        return True

    def _forget_candidate(self) -> None:
        if self._candidate is not None:
            self._candidate = None

    def _reaches(self, value: "Any") -> bool:
        """Whether value reaches an urgent threshold now; it must leave by the deadband first.

        Without that step back a value that trembles on the threshold would flood the link.
        """
        if isinstance(value, (bool, str, dict)) or (self._ge is None and self._le is None):
            return False
        back = self._deadband if self._alarmed else 0
        was_alarmed = self._alarmed
        self._alarmed = self._ge is not None and value >= self._ge - back
        if self._le is not None and value <= self._le + back:
            self._alarmed = True
        return self._alarmed and not was_alarmed

    def _worth(self, value: "Any") -> bool:
        if not self._may_send:
            return False
        if self._must_send:
            return True
        if value == self._sent:
            return False
        if isinstance(value, (bool, str, dict)) or isinstance(self._sent, (bool, str, dict)):
            return True
        return bool(abs(value - self._sent) >= self._deadband)


def _integer(config: "dict[str, Any]", key: str, least: int, most: int) -> int:
    value = config[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{key}: {value!r} is no integer from {least} to {most}")
    return value


def _number(config: "dict[str, Any]", key: str, name: str) -> "int | float":
    value = config[key]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} is no number")  # noqa: TRY004 - one error for every wrong key
    return value
