"""The gate cache: what the gatekeeper last said for each selector, as retained state tells it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nervus.thalamus.gate import Gate
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import Accepted, Address, Rejected, refuse
from nervus.wire.contracts import GateState
from nervus.wire.registries import nuclei
from nervus.wire.times import NEVER

Scope = tuple[str, str]
Target = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Held:
    gate: Gate
    expires_ms: int


class _Met(NamedTuple):
    """What a topic meets until the first of it expires, or any gate changes."""

    gates: tuple[Gate, ...]
    until_ms: int


class GateCache:
    """Living gates by selector (scope_level, scope, target_kind, target_id).

    An expired gate is none. Of two gatekeepers of a scope the one with the higher epoch counts, in
    whatever order their gates come: what the other has set is forgotten, and what it still says is
    refused as `expired`, since its lease is what expired.
    """

    def __init__(self, settings: ThalamusSettings, house: str) -> None:
        self._settings = settings
        self._nuclei = nuclei()
        self._house: Scope = ("house", house)
        self._scopes: dict[Scope, dict[Target, _Held]] = {}
        self._epochs: dict[Scope, int] = {}
        self._count = 0
        self._known: dict[str, _Met] = {}

    def __len__(self) -> int:
        return self._count

    def put(self, event: Accepted) -> Rejected | None:
        """Take a GateState; returns the reject when it does not count."""
        message = event.message
        assert isinstance(message, GateState)  # noqa: S101  the caller matched it
        assert event.left_ms is not None  # noqa: S101  the contract requires expires_at
        scope, target = _selector(event.address)
        epoch = self._epochs.get(scope, 0)
        if message.payload.epoch < epoch:
            reason = f"epoch {message.payload.epoch} was superseded by {epoch}"
            return refuse(event, "expired", "apply", reason)
        self._known.clear()
        if message.payload.epoch > epoch:
            self._count -= len(self._scopes.pop(scope, ()))
        gates = self._scopes.setdefault(scope, {})
        if target not in gates:
            if self._count >= self._settings.gate_limit:
                return refuse(event, "queue_full", "apply", "too many gates")
            self._count += 1
        self._epochs[scope] = message.payload.epoch
        gate = Gate(message.payload.inhibition, message.payload.mode)
        gates[target] = _Held(gate, event.received_ms + event.left_ms)
        return None

    def remove(self, address: Address) -> None:
        """Forget a gate whose retained state was removed."""
        scope, target = _selector(address)
        if self._scopes.get(scope, {}).pop(target, None) is not None:
            self._count -= 1
            self._known.clear()

    def expire(self, now_ms: int) -> None:
        """Forget what has expired."""
        for scope, gates in list(self._scopes.items()):
            for target in [t for t, held in gates.items() if held.expires_ms <= now_ms]:
                del gates[target]
                self._count -= 1
            if not gates:
                del self._scopes[scope]

    def met(self, bundle: Accepted, now_ms: int) -> Sequence[Gate]:
        """The living gates a bundle meets: of its channel, nucleus and topic, in every scope."""
        topic = bundle.address.topic
        known = self._known.get(topic)
        if known is None or known.until_ms <= now_ms:
            known = self._known[topic] = self._look_up(bundle.address, now_ms)
        return known.gates

    def _look_up(self, address: Address, now_ms: int) -> _Met:
        levels, topic = address.levels, address.topic
        channel = levels["channel"]
        targets = [("channel", channel)]
        if channel in self._nuclei:
            targets.append(("nucleus", self._nuclei[channel]))
        found: list[_Held] = []
        for scope in self._scopes_above((levels["scope_level"], levels["scope"])):
            gates = self._scopes.get(scope)
            if gates is None:
                continue
            found += [gates[target] for target in targets if target in gates]
            found += [
                gate
                for (kind, prefix), gate in gates.items()
                if kind == "topic_prefix" and _lies_under(topic, prefix)
            ]
        living = [held for held in found if held.expires_ms > now_ms]
        if len(self._known) >= self._settings.stream_limit:
            self._known.clear()
        until_ms = min((held.expires_ms for held in living), default=NEVER)
        return _Met(tuple(held.gate for held in living), until_ms)

    def _scopes_above(self, scope: Scope) -> list[Scope]:
        scopes = [scope]
        while (parent := self._settings.parents.get("/".join(scopes[-1]))) is not None:
            level, _, name = parent.partition("/")
            scopes.append((level, name))
        if self._house not in scopes and scopes[-1][0] != "house":
            scopes.append(self._house)
        return scopes


def _selector(address: Address) -> tuple[Scope, Target]:
    levels = address.levels
    return (
        (levels["scope_level"], levels["scope"]),
        (levels["target_kind"], levels["target_id"]),
    )


def _lies_under(topic: str, prefix: str) -> bool:
    return topic == prefix or topic.startswith(prefix.rstrip("/") + "/")
