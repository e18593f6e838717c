"""What the house is set to: modes and parameters, each for a while."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from nervus.brainstem.agenda import Action, Agenda
from nervus.brainstem.settings import BrainstemSettings
from nervus.wire import Accepted, Publish, Rejected, refuse, unix_ms
from nervus.wire.registries import modes

ScopeKey = tuple[str, str]
"""Scope level and scope."""

TUNABLE: Final = frozenset(
    {
        "alert_half_life_ms", "arousal_gain", "arousal_half_life_ms", "bundle_ttl_ms",
        "correlate_gap_ms", "correlate_salience", "window_ms",
    }
)  # fmt: skip
"""Settings a parameter may change while the house runs."""

PLANE: Final = "brainstem"


class Mode(NamedTuple):
    """What a mode means to brainstem; without one, nothing special.

    `resting` is the operating state while there is no alert. Windows are `window_factor` times as
    long, alerts of patterns `alert_factor` times as high.
    """

    resting: str = "normal"
    window_factor: int = 1
    alert_factor: float = 1.0


PLAIN: Final = Mode()
"""No mode."""


@dataclass(frozen=True, slots=True)
class _Parameters:
    members: dict[str, Any]
    expires_ms: int


class Tuning:
    """The modes and parameters in force; those of a house hold for all of its scopes.

    A scope's own come before the house's. Each ends when it expires, when it is removed, or when a
    newer one comes: a topic keeps one. Parameters named `brainstem` (an object of settings) or
    `brainstem.NAME` change settings listed in TUNABLE; all others concern others. A version
    that is not higher than the last of its name and scope changes nothing: after a reconnect the
    same message comes again. `version` rises with each change.
    """

    def __init__(
        self,
        settings: BrainstemSettings,
        agenda: Agenda,
        changed: Callable[[ScopeKey, int], Sequence[Publish]],
    ) -> None:
        self.version = 0
        self.stale = 0
        self._settings = settings
        self._agenda = agenda
        self._changed = changed
        self._known = {
            name: Mode(
                entry.get("state", "normal"),
                entry.get("window_factor", 1),
                entry.get("alert_factor", 1.0),
            )
            for name, entry in modes().items()
        }
        self._modes: dict[ScopeKey, tuple[Mode, int]] = {}
        self._parameters: dict[ScopeKey, _Parameters] = {}
        self._versions: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._house: ScopeKey = ("house", "")
        self._pending: dict[tuple[str, str, str], int] = {}

    def of(self, scope: ScopeKey) -> tuple[BrainstemSettings, Mode]:
        """What is in force in a scope."""
        mode = self._modes.get(scope) or self._modes.get(self._house)
        members: dict[str, Any] = {}
        for parameters in (self._parameters.get(self._house), self._parameters.get(scope)):
            if parameters is not None:
                members |= parameters.members
        settings = self._settings.model_copy(update=members) if members else self._settings
        return settings, mode[0] if mode else PLAIN

    def set_mode(self, event: Accepted, now_ms: int) -> Sequence[Publish | Rejected]:
        """Take a GlobalModeUpdate."""
        scope = _scope(event)
        if scope not in self._modes and len(self._modes) >= self._settings.scope_limit:
            return [refuse(event, "queue_full", "queue", "too many scopes have modes")]
        expires_ms = unix_ms(event.message.meta.expires_at)
        self._modes[scope] = (self._known[event.message.payload.mode], expires_ms)
        self._until(expires_ms, self._expire_mode, scope)
        return self._change(scope, now_ms)

    def set_parameters(self, event: Accepted, now_ms: int) -> Sequence[Publish | Rejected] | None:
        """Take a ParameterUpdate; None when its version is not a newer one."""
        scope, payload = _scope(event), event.message.payload
        try:
            members = self._members(payload.name, payload.value)
        except ValueError as error:
            return [refuse(event, "schema_invalid", "apply", str(error))]
        key = (*scope, payload.name)
        if payload.version <= self._versions.get(key, 0):
            self.stale += 1
            return None
        if scope not in self._parameters and len(self._parameters) >= self._settings.scope_limit:
            return [refuse(event, "queue_full", "queue", "too many scopes have parameters")]
        self._versions[key] = payload.version
        self._versions.move_to_end(key)
        if len(self._versions) > self._settings.scope_limit:
            self._versions.popitem(last=False)
        expires_ms = unix_ms(event.message.meta.expires_at)
        self._parameters[scope] = _Parameters(members, expires_ms)
        self._until(expires_ms, self._expire_parameters, scope)
        return self._change(scope, now_ms)

    def remove_mode(self, scope: ScopeKey, now_ms: int) -> Sequence[Publish]:
        """Its retained message was removed."""
        return [] if self._modes.pop(scope, None) is None else self._change(scope, now_ms)

    def remove_parameters(self, scope: ScopeKey, now_ms: int) -> Sequence[Publish]:
        """Their retained message was removed."""
        return [] if self._parameters.pop(scope, None) is None else self._change(scope, now_ms)

    def _members(self, name: str, value: Any) -> dict[str, Any]:
        if name == PLANE and isinstance(value, dict):
            members = dict(value)
        elif name.startswith(f"{PLANE}."):
            members = {name.removeprefix(f"{PLANE}."): value}
        else:
            return {}
        if unknown := sorted(set(members) - TUNABLE):
            raise ValueError(f"brainstem has no parameter {unknown[0]!r}"[:200])
        try:
            BrainstemSettings(**members)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg'].lower()}") from error
        return members

    def _expire_mode(self, scope: ScopeKey, now_ms: int) -> Sequence[Publish]:
        self._pending.pop((self._expire_mode.__name__, *scope), None)
        mode = self._modes.get(scope)
        if mode and mode[1] > now_ms:
            self._until(mode[1], self._expire_mode, scope)
            return []
        return self.remove_mode(scope, now_ms)

    def _expire_parameters(self, scope: ScopeKey, now_ms: int) -> Sequence[Publish]:
        self._pending.pop((self._expire_parameters.__name__, *scope), None)
        held = self._parameters.get(scope)
        if held and held.expires_ms > now_ms:
            self._until(held.expires_ms, self._expire_parameters, scope)
            return []
        return self.remove_parameters(scope, now_ms)

    def _change(self, scope: ScopeKey, now_ms: int) -> Sequence[Publish]:
        if scope[0] == "house":
            self._house = scope
        self.version += 1
        return self._changed(scope, now_ms)

    def _until(self, expires_ms: int, action: Action, scope: ScopeKey) -> None:
        # One entry for each topic, or a flood of updates would fill the agenda.
        pending = self._pending.get((action.__name__, *scope))
        if pending is None or expires_ms < pending:
            self._pending[action.__name__, *scope] = expires_ms
            self._agenda.put(expires_ms, action, scope)


def _scope(event: Accepted) -> ScopeKey:
    levels = event.address.levels
    return levels["scope_level"], levels["scope"]
