"""One reflex rule, compiled: its condition, its caps, and what it remembers between evaluations."""

import hashlib
from binascii import hexlify

from spinal.conditions import RuleError, compile_condition
from spinal.envelope import unix_of
from spinal.jsonprint import dumps
from spinal.ticks import LONGEST_MS, elapsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MINUTE_MS = 60_000
_MASK = (1 << 30) - 1  # as in spinal.ticks; a constant of its own module costs a board nothing


def rule_hash(payload: "dict[str, Any]") -> str:
    """Return the first 16 hex digits of the SHA-256 of a rule's canonical JSON.

    Canonical: sorted keys, no blanks, UTF-8, floats with 6 significant digits ("%.6g"), so that a
    board with 32-bit floats and the hub agree.
    """
    return _digest(dumps(payload, "%.6g"))


class Rule:
    """One rule and what it remembers between evaluations.

    Of the payload it keeps what running it takes: there are 32 rules in the heap of one board, and
    their payloads are on the flash. What most rules do not need is set once, for all of them.
    """

    cooldown_ms = 0
    """Time between two fires at least."""
    max_fires = 60
    """Fires within a minute at most."""
    priority = 0
    enabled = True
    live = True
    """Whether it may fire: enabled, not expired, not suspended."""
    dry_run = False
    suspended = False
    expires_ms: "int | None" = None
    fires = 0
    last_fire: "int | None" = None
    last_error: "dict[str, Any] | None" = None
    order = 0
    """Which fire of the engine its last one was: of two equal claims the later one holds."""
    otherwise: "list[dict[str, Any]] | None" = None
    """The steps of "else", None without any."""
    acting = False
    """Whether its condition is true and it has fired."""
    _pulses: "tuple[Any, ...]" = ()
    _only: "Any" = None
    """Its one comparison where time has no say in it: the same value again changes nothing."""
    _condition: "Any" = None
    """What is compared, where `_only` is not all of it."""
    _cooling_since: "int | None" = None
    _recent: "list[int] | None" = None
    """Ticks of the fires of the last minute."""
    _pending = False

    def __init__(self, payload: "dict[str, Any]") -> None:
        canonical = dumps(payload, "%.6g")
        self.reflex_id: str = payload["reflex_id"]
        self.version: int = payload["version"]
        self.hash = _digest(canonical)
        self.size = len(canonical.encode())
        if not payload["enabled"]:
            self.enabled = self.live = False
        if payload["mode"] == "dry_run":
            self.dry_run = True
        self.then: list[dict[str, Any]] = payload["then"]
        if "else" in payload:
            self.otherwise = payload["else"]
        if "priority" in payload:
            self.priority = payload["priority"]
        if "expires_at" in payload:
            self.expires_ms = unix_of(payload["expires_at"])
        if "max_fires_per_min" in payload:
            self.max_fires = payload["max_fires_per_min"]
        if payload.get("cooldown_ms", 0) > LONGEST_MS:
            raise RuleError("out_of_range", f"cooldown_ms is at most {LONGEST_MS}")
        if "cooldown_ms" in payload:
            self.cooldown_ms = payload["cooldown_ms"]
        self._compile(payload["when"])

    def _compile(self, when: "dict[str, Any]") -> None:
        leaves: list[Any] = []
        condition = compile_condition(when, leaves)
        self.leaves = tuple(leaves)
        if not leaves[0].is_timed and condition is leaves[0]:
            self._only = condition
        else:
            self._condition = condition
        pulses = tuple([leaf for leaf in leaves if leaf.is_pulse])
        if pulses:
            self._pulses = pulses

    def steps(self, cause: str) -> "list[dict[str, Any]]":
        """Return the steps of "else", or those of "then" for any other cause."""
        return (self.otherwise or []) if cause == "else" else self.then

    def judge(self, values: "dict[str, Any]", ticks_ms: int) -> str | None:
        """Whether "then" is to be done now, or the rule has ended: "else"."""
        timed = False
        recent = self._recent
        # Asked of each rule in every turn: `elapsed` written out, and no more names than a frame
        # may have that is not taken from the heap.
        if self._cooling_since is not None or (
            recent and (ticks_ms - recent[0]) & _MASK >= _MINUTE_MS
        ):
            timed = self._timed(ticks_ms)
        only = self._only
        if only is not None:
            value = values.get(only.sensor)
            if value is only.seen and not timed and not self._pending:
                return None
            only.seen = value
        return self._judge(values, ticks_ms)

    def _judge(self, values: "dict[str, Any]", ticks_ms: int) -> str | None:
        """As `judge`, where something may have changed."""
        state = (self._only or self._condition).read(values, ticks_ms)
        if state is None:
            return None
        if not state:
            return "else" if self.let_go() else None
        if not self.acting:
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
        self.acting = True
        return "then"

    def _timed(self, ticks_ms: int) -> bool:
        """Let go of timers that have run out; whether one of them did, or the cooldown runs.

        They are let go as soon as they have run out, so that no tick grows old enough to be
        mistaken for one that lies ahead.
        """
        timed = False
        cooling = self._cooling_since
        if cooling is not None:
            timed = True
            if elapsed(ticks_ms, cooling) >= self.cooldown_ms:
                self._cooling_since = None
        if self._recent and elapsed(ticks_ms, self._recent[0]) >= _MINUTE_MS:
            timed = True
            self._recent.pop(0)
        return timed

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

    def let_go(self) -> bool:
        """Hold nothing any more; whether it had fired, so that it ends."""
        ended = self.acting
        if ended or self._pending:
            if self._only is not None:
                self._only.seen = self
            self._pending = self.acting = False
        return ended

    @property
    def lasts(self) -> bool:
        """Whether its condition is a state; one with a moment in it gives nothing back."""
        return not self._pulses

    def holds(self, actuator: object) -> bool:
        """Whether its condition is true, it has fired, and it has set this actuator."""
        if not self.acting or not self.live or self.dry_run:
            return False
        for step in self.then:  # noqa: SIM110 - any() and a generator take a board three times as long
            if step.get("actuator") == actuator:
                return True
        return False

    def lasting_step(self, actuator: object) -> "dict[str, Any] | None":
        """The last of its steps that leaves this actuator somewhere; a pulse does not."""
        lasting = None
        for step in self.then:
            if step.get("actuator") == actuator and "pulse_ms" not in step:
                lasting = step
        return lasting


def _digest(canonical: str) -> str:
    return hexlify(hashlib.sha256(canonical.encode()).digest()[:8]).decode()
