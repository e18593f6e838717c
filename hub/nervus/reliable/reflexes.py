"""Desired reflexes: which rule has to be sent to which board, until the board has it."""

from collections.abc import Mapping
from dataclasses import dataclass

from nervus.wire.contracts import ErrorDetail, ReflexConfigurePayload, ReflexReport, ReflexState

Key = tuple[str, str]
"""Device id and reflex id."""


@dataclass(frozen=True, slots=True)
class DesiredReflex:
    """A rule as its file states it, with the hash by which the board names it."""

    payload: ReflexConfigurePayload
    hash: str


@dataclass(frozen=True, slots=True)
class _Reported:
    """What a board said it keeps; `boot` is the boot in which it said so."""

    hash: str
    boot: int


@dataclass(slots=True)
class _Sending:
    next_ms: int
    pause_ms: int


class ReflexDesk:
    """Decides what to send and when; bounded by the desired rules.

    A rule is sent at a board's birth unless the board reports, in that boot, that it keeps it; and
    again, in pauses that double, until it does. A rule that was refused for good waits for another
    birth or another content: the same would be refused again.
    """

    def __init__(self, first_retry_ms: int, last_retry_ms: int, settle_ms: int) -> None:
        self._first_retry_ms = first_retry_ms
        self._last_retry_ms = last_retry_ms
        self._settle_ms = settle_ms
        self._desired: dict[Key, DesiredReflex] = {}
        self._reported: dict[Key, _Reported] = {}
        self._sending: dict[Key, _Sending] = {}
        self._sent: dict[Key, str] = {}
        self.refused: dict[Key, ErrorDetail] = {}
        """Rules that a board would not take, with its reason."""

    def want(self, desired: Mapping[Key, DesiredReflex], now_ms: int) -> None:
        """Replace the desired rules; what is new or has changed is sent at once."""
        for key in self._desired.keys() - desired.keys():
            self._forget(key)
        for key, rule in desired.items():
            before = self._desired.get(key)
            if before is None or before.hash != rule.hash:
                self.refused.pop(key, None)
                self._sending[key] = _Sending(now_ms, self._first_retry_ms)
        self._desired = dict(desired)

    def born(self, device_id: str, now_ms: int) -> None:
        """A board began a session: compare all its rules once its states had time to arrive."""
        for key in self._desired:
            if key[0] == device_id:
                self.refused.pop(key, None)
                self._sending[key] = _Sending(now_ms + self._settle_ms, self._first_retry_ms)

    def state(self, key: Key, message: ReflexState, now_ms: int) -> None:
        """A board's retained state of a rule."""
        rule = self._desired.get(key)
        if rule is None:
            return
        self._reported[key] = _Reported(message.payload.hash, message.meta.boot)
        if message.payload.hash != rule.hash and key not in self.refused:
            self._sending.setdefault(key, _Sending(now_ms, self._first_retry_ms))

    def report(self, key: Key, message: ReflexReport) -> ErrorDetail | None:
        """A board's answer to the last configuration; returns why it refused for good, if so."""
        rule = self._desired.get(key)
        if rule is None or message.meta.action_id != self._sent.get(key):
            return None
        if message.payload.status == "rejected":
            error = message.payload.error or _NO_REASON
            if error.kind == "retriable":
                return None
            self.refused[key] = error
            self._sending.pop(key, None)
            return error
        self._reported[key] = _Reported(message.payload.hash or rule.hash, message.meta.boot)
        return None

    def due(self, key: Key, boot: int | None, now_ms: int) -> DesiredReflex | None:
        """The rule, if it has to be sent now to a board that is in that boot."""
        rule = self._desired[key]
        if self._reported.get(key) == _Reported(rule.hash, -1 if boot is None else boot):
            del self._sending[key]
            return None
        sending = self._sending[key]
        if now_ms < sending.next_ms:
            return None
        sending.next_ms = now_ms + sending.pause_ms
        sending.pause_ms = min(2 * sending.pause_ms, self._last_retry_ms)
        return rule

    def sent(self, key: Key, action_id: str) -> None:
        """Note the action_id under which a rule was sent, to know its report."""
        self._sent[key] = action_id

    def pending(self) -> list[Key]:
        """Rules that their boards do not keep yet, as far as is known."""
        return list(self._sending)

    def _forget(self, key: Key) -> None:
        for table in (self._reported, self._sending, self._sent, self.refused):
            table.pop(key, None)


_NO_REASON = ErrorDetail(
    code="reflex_refused",
    message="the board gave no reason",
    kind="terminal",
    category="validation",
)
