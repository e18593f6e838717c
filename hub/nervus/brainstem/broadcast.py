"""Alert and arousal: the global state that brainstem tells everybody, and the boards."""

from collections.abc import Callable, Sequence
from typing import Final

from nervus.brainstem.agenda import Agenda
from nervus.brainstem.scope import Kind, Said, Scope
from nervus.wire import Accepted, Address, Mint, Publish, timestamp, topics, unix_ms
from nervus.wire.contracts import GlobalBroadcast, GlobalBroadcastPayload
from nervus.wire.model import Contract

HIGH: Final = 0.5
"""The alert from which on the state is high_alert."""

STEP: Final = 0.1
"""By how much a level has to have changed to be told again."""

_ADDRESSES: Final[dict[Kind, Callable[[str, str], Address]]] = {
    "alert": topics.global_alert,
    "arousal": topics.global_arousal,
}


class Broadcaster:
    """Tells the levels of scopes, retained and expiring; decides when it is worth it.

    An alert is raised by patterns to a level of theirs, never lowered but by time. Arousal A rises
    with what is unusual: each window of salience s > ½ takes it to A + (1 - A) · gain · (2s - 1).
    Both fall with their half-life (`Level`). The operating state is `high_alert` from an alert of ½
    on, else that of the mode.

    A level is told when it was raised by a pattern, when the state changes, when it has moved by
    0.1, when it is over, and again before the last word expires; but, a raised alert aside, at most
    once in `broadcast_ms` for each scope. Each word goes to the core broker and, compact and with
    the same message_id, to the spinal one. A change of an alert is told as an event, too.
    """

    def __init__(self, mint: Mint, agenda: Agenda, retire: Callable[[Scope], None]) -> None:
        self.broadcasts = 0
        self._mint = mint
        self._agenda = agenda
        self._retire = retire

    def raise_alert(
        self, scope: Scope, level: float, reason: str, now_ms: int, cause: Contract
    ) -> list[Publish]:
        """Raise a scope's alert, if it is lower."""
        level *= scope.mode.alert_factor
        if level <= scope.alert.at(now_ms) or level < STEP:
            return []
        scope.alert.set(min(level, 1.0), scope.settings.alert_half_life_ms, now_ms)
        scope.reason = reason[:64]
        return self._say(scope, "alert", now_ms, cause) + self.review(scope, now_ms)

    def excite(self, scope: Scope, salience: float, now_ms: int) -> list[Publish]:
        """Let a window's salience arouse a scope."""
        rise = scope.settings.arousal_gain * (2 * salience - 1)
        if rise <= 0:
            return []
        before = scope.arousal.at(now_ms)
        after = before + (1 - before) * rise
        scope.arousal.set(after, scope.settings.arousal_half_life_ms, now_ms)
        return [] if scope.reviewed else self.review(scope, now_ms)

    def review(self, scope: Scope, now_ms: int) -> list[Publish]:
        """Tell what is worth telling now, and look again while there is something to tell."""
        effects: list[Publish] = []
        for kind in _ADDRESSES:
            said = scope.said.get(kind)
            soon = said is not None and now_ms - said.at_ms < scope.settings.broadcast_ms
            if not soon and self._news(scope, kind, said, now_ms):
                effects += self._say(scope, kind, now_ms)
        if not scope.reviewed and (scope.said or self._state(scope, now_ms) != "normal"):
            scope.reviewed = True
            self._agenda.put(now_ms + scope.settings.broadcast_ms, self._again, scope)
        return effects

    def restore(self, scope: Scope, event: Accepted, now_ms: int) -> list[Publish]:
        """Take up where a former run of ours stopped, as the retained message tells it."""
        kind: Kind = "alert" if event.address.spec is topics.GLOBAL_ALERT else "arousal"
        meta, payload = event.message.meta, event.message.payload
        over = payload.level == 0 and (kind == "arousal" or payload.state == "normal")
        ours = meta.source.partition("-")[0] == self._mint.source.partition("-")[0]
        if not ours or kind in scope.said or over:
            # Also what we have just said ourselves comes back. What a scope's former shard said
            # is ours, too: the map may have changed.
            return []
        produced_ms = min(unix_ms(meta.produced_at), now_ms)
        scope.level(kind).set(payload.level, payload.half_life_ms, produced_ms)
        scope.said[kind] = Said(payload.level, payload.state, produced_ms)
        if kind == "alert":
            scope.reason = payload.reason
        return self.review(scope, now_ms)

    def _again(self, scope: Scope, now_ms: int) -> Sequence[Publish]:
        scope.reviewed = False
        effects = self.review(scope, now_ms)
        self._retire(scope)
        return effects

    def _news(self, scope: Scope, kind: Kind, said: Said | None, now_ms: int) -> bool:
        level, state = scope.level(kind).at(now_ms), self._state(scope, now_ms)
        if said is None:
            return level >= STEP or (kind == "alert" and state != "normal")
        moved = abs(level - said.level) >= STEP or (level == 0 < said.level)
        old = now_ms - said.at_ms >= scope.settings.broadcast_ttl_ms // 2
        return moved or state != said.state or old

    def _say(
        self, scope: Scope, kind: Kind, now_ms: int, cause: Contract | None = None
    ) -> list[Publish]:
        self.broadcasts += 1
        said, state = scope.said.get(kind), self._state(scope, now_ms)
        tone = scope.level(kind)
        level = round(tone.at(now_ms), 4)
        payload = GlobalBroadcastPayload(
            state=state,
            level=level,
            half_life_ms=tone.half_life_ms if level else None,
            reason=scope.reason if level and kind == "alert" else None,
        )
        address = _ADDRESSES[kind](*scope.key)
        expires_at = timestamp(now_ms + scope.settings.broadcast_ttl_ms)
        full = self._mint.full(
            GlobalBroadcast, address, payload, now_ms, cause=cause, expires_at=expires_at
        )
        compact = self._mint.compact(
            GlobalBroadcast, address, payload, now_ms,
            expires_at=expires_at, message_id=full.message.meta.message_id,
        )  # fmt: skip
        effects = [full, compact.to("spinal")]
        if kind == "alert" and (cause is not None or state != (said.state if said else "normal")):
            event = topics.global_alert_event(*scope.key)
            # The word itself is what the event follows from.
            effects.append(
                self._mint.full(
                    GlobalBroadcast, event, payload, now_ms,
                    cause=full.message, expires_at=expires_at,
                )
            )  # fmt: skip
        if level == 0 and (kind == "arousal" or state == "normal"):
            scope.said.pop(kind, None)
        else:
            scope.said[kind] = Said(level, state, now_ms)
        return effects

    @staticmethod
    def _state(scope: Scope, now_ms: int) -> str:
        return "high_alert" if scope.alert.at(now_ms) >= HIGH else scope.mode.resting
