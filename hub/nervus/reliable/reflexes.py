"""Desired reflexes: which rule has to be sent to which board or removed from it, until it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, PlainSerializer

from nervus.wire.contracts import ErrorDetail, ReflexConfigurePayload, ReflexReport, ReflexState

Key = tuple[str, str]
"""Device id and reflex id."""

OTHERS_LIMIT: Final = 64
"""Rules of one board, not desired here, that are remembered: twice what a board keeps."""


def _text(payload: ReflexConfigurePayload) -> str:
    return payload.model_dump_json(by_alias=True, exclude_none=True)


def _payload(value: object) -> object:
    return ReflexConfigurePayload.model_validate_json(value) if isinstance(value, str) else value


def _pairs(rules: "Mapping[Key, DesiredReflex]") -> list[Any]:
    return [[list(key), {"payload": _text(rule.payload), "hash": rule.hash}]
            for key, rule in rules.items()]  # fmt: skip


def _rules(value: Any) -> Any:
    return {tuple(key): rule for key, rule in value} if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class DesiredReflex:
    """A rule as its file states it, with the hash by which the board names it."""

    payload: Annotated[ReflexConfigurePayload, PlainSerializer(_text), BeforeValidator(_payload)]
    hash: str


Rules = Annotated[Mapping[Key, DesiredReflex], PlainSerializer(_pairs), BeforeValidator(_rules)]
"""Desired rules; in a journal a list of pairs, since a name there is a text."""


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
    """Decides what to send and when; bounded by the desired rules and 64 others of each board.

    A rule is sent at a board's birth unless the board reports, in that boot, that it keeps it; and
    again, in pauses that double, until it does. A rule that was refused for good waits for another
    birth or another content: the same would be refused again.

    A rule that a board keeps and nobody desires is removed from it in the same manner, but only
    from the boards that are governed: whose rules are all told here.
    """

    def __init__(self, first_retry_ms: int, last_retry_ms: int, settle_ms: int) -> None:
        self._first_retry_ms = first_retry_ms
        self._last_retry_ms = last_retry_ms
        self._settle_ms = settle_ms
        self._desired: dict[Key, DesiredReflex] = {}
        self._reported: dict[Key, _Reported] = {}
        self._sending: dict[Key, _Sending] = {}
        self._sent: dict[Key, str] = {}
        self._governed: frozenset[str] = frozenset()
        self._spared: frozenset[Key] = frozenset()
        self._others: dict[Key, int] = {}
        self.refused: dict[Key, ErrorDetail] = {}
        """Rules that a board would not take, with its reason."""

    def want(
        self,
        desired: Mapping[Key, DesiredReflex],
        governed: frozenset[str],
        spared: frozenset[Key],
        now_ms: int,
    ) -> None:
        """Replace the desired rules; what is new or has changed is sent at once.

        governed: boards that are to keep nothing else, but the spared rules. A removal waits for
        `settle_ms`: a file that is written anew is gone for a moment.
        """
        # In their order and not a set's, which differs from process to process.
        gone = {key: rule for key, rule in self._desired.items() if key not in desired}
        for key, rule in gone.items():
            self._forget(key)
            self._remember(key, rule.payload.version)
        self._governed, self._spared = governed, spared
        for key in desired.keys() & self._others.keys():
            del self._others[key]
        for key, rule in desired.items():
            before = self._desired.get(key)
            if before is None or before.hash != rule.hash:
                self.refused.pop(key, None)
                self._sending[key] = _Sending(now_ms, self._first_retry_ms)
        self._desired = dict(desired)
        for key in self._others:
            if self._surplus(key):
                sending = _Sending(now_ms + self._settle_ms, self._first_retry_ms)
                self._sending.setdefault(key, sending)

    def born(self, device_id: str, now_ms: int) -> None:
        """A board began a session: compare all its rules once its states had time to arrive."""
        for key in (*self._desired, *filter(self._surplus, self._others)):
            if key[0] == device_id:
                self.refused.pop(key, None)
                self._sending[key] = _Sending(now_ms + self._settle_ms, self._first_retry_ms)

    def state(self, key: Key, message: ReflexState, now_ms: int) -> None:
        """A board's retained state of a rule."""
        rule = self._desired.get(key)
        if rule is None:
            self._remember(key, message.payload.version)
            if self._surplus(key):
                sending = _Sending(now_ms + self._settle_ms, self._first_retry_ms)
                self._sending.setdefault(key, sending)
            return
        self._reported[key] = _Reported(message.payload.hash, message.meta.boot)
        if message.payload.hash != rule.hash and key not in self.refused:
            self._sending.setdefault(key, _Sending(now_ms, self._first_retry_ms))

    def state_removed(self, key: Key, now_ms: int) -> None:
        """A board's retained state of a rule is gone: the board says that it has none."""
        if key in self._desired:
            if self._reported.pop(key, None) is not None and key not in self.refused:
                self._sending.setdefault(key, _Sending(now_ms, self._first_retry_ms))
        else:
            self._others.pop(key, None)
            self._forget(key)

    def report(self, key: Key, message: ReflexReport) -> ErrorDetail | None:
        """A board's answer to the last configuration; returns why it refused for good, if so."""
        if message.meta.action_id != self._sent.get(key):
            return None
        rule = self._desired.get(key)
        if message.payload.status == "removed" and rule is None:
            self._others.pop(key, None)
            self._forget(key)
            return None
        if message.payload.status == "rejected":
            error = message.payload.error or _NO_REASON
            if error.kind == "retriable":
                return None
            if rule is not None:
                self.refused[key] = error
            self._sending.pop(key, None)
            return error
        if rule is not None:
            self._reported[key] = _Reported(message.payload.hash or rule.hash, message.meta.boot)
        return None

    def due(self, key: Key, boot: int | None, now_ms: int) -> ReflexConfigurePayload | None:
        """The rule or its removal, if it has to be sent now to a board that is in that boot."""
        rule = self._desired.get(key)
        if rule is None:
            payload = self._removal(key)
        elif self._reported.get(key) == _Reported(rule.hash, -1 if boot is None else boot):
            payload = None
        else:
            payload = rule.payload
        if payload is None:
            del self._sending[key]
            return None
        sending = self._sending[key]
        if now_ms < sending.next_ms:
            return None
        sending.next_ms = now_ms + sending.pause_ms
        sending.pause_ms = min(2 * sending.pause_ms, self._last_retry_ms)
        return payload

    def sent(self, key: Key, action_id: str) -> None:
        """Note the action_id under which a rule was sent, to know its report."""
        self._sent[key] = action_id

    def pending(self) -> list[Key]:
        """Rules that their boards do not keep yet, as far as is known."""
        return list(self._sending)

    def _remember(self, key: Key, version: int) -> None:
        """Note a rule that is not desired here, with the version that has to be removed."""
        known = sum(each[0] == key[0] for each in self._others)
        if key in self._others or known < OTHERS_LIMIT:
            self._others[key] = version

    def _surplus(self, key: Key) -> bool:
        return key[0] in self._governed and key not in self._spared

    def _removal(self, key: Key) -> ReflexConfigurePayload | None:
        version = self._others.get(key)
        if version is None or not self._surplus(key):
            return None
        # 0 is what no rule has: a state says so of one that was never taken.
        return ReflexConfigurePayload(
            reflex_id=key[1], version=max(1, version), removed="no longer desired"
        )

    def _forget(self, key: Key) -> None:
        for table in (self._reported, self._sending, self._sent, self.refused):
            table.pop(key, None)


_NO_REASON = ErrorDetail(
    code="reflex_refused",
    message="the board gave no reason",
    kind="terminal",
    category="validation",
)
