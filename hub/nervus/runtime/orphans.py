"""Which retained messages nobody stands for. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nervus.runtime.identity import Identity
from nervus.wire import Accepted, Guard, Packet, Removed
from nervus.wire.topics import TOPICS

_BRANCHES: Final = {spec.template.split("/")[1] for spec in TOPICS}
# A wrong clock of ours must not erase what is right; the next look may find it in order.
_PARDONED: Final = frozenset({"from_the_future", "duplicate"})


@dataclass(frozen=True, slots=True)
class Orphan:
    """A retained message to be erased: why, from whom and about which device, where it says so."""

    packet: Packet
    reason_code: str
    reason: str
    source: str | None = None
    device_id: str | None = None


class Judge:
    """Tells orphans from states that somebody stands for.

    A message that no guard would take is one: retained events, forms of an older version, what has
    expired. So is a state whose source, or whose board, is not among the living.

    Args:
        living: Who stands for something.
        disowned: One of them who stands for nothing that is retained now: a board that moved.
    """

    def __init__(self, living: Iterable[Identity], disowned: str | None = None) -> None:
        self._living = {
            one.name: one for one in living if one.role is not None and one.name != disowned
        }
        grants = {one.name: one.scope for one in self._living.values()}
        self._guard = Guard(TOPICS, granted=grants.get)

    def orphan(self, packet: Packet, now_ms: int) -> Orphan | None:
        """Judge one retained message; None also for topics that are none of ours."""
        parts = packet.topic.split("/")
        if parts[0] or parts[1:2] == [] or parts[1] not in _BRANCHES:
            return None
        verdict = self._guard.judge(packet, now_ms)
        if isinstance(verdict, Accepted):
            return self._unowned(packet, verdict)
        if isinstance(verdict, Removed) or verdict.reason_code in _PARDONED:
            return None
        levels = verdict.address.levels if verdict.address else {}
        source = (verdict.source or "").removeprefix("device:") or None
        return Orphan(packet, verdict.reason_code, verdict.reason, source, levels.get("device_id"))

    def _unowned(self, packet: Packet, state: Accepted) -> Orphan | None:
        device_id = state.address.levels.get("device_id")
        source = state.message.meta.source.removeprefix("device:")
        role = self._role(source)
        if device_id is not None and self._role(device_id) != "board":
            reason = f"there is no board {device_id}"
        elif role is None:
            reason = f"there is no identity {source}"
        elif role not in state.address.spec.publishers(packet.broker):
            reason = f"{source} is a {role}, which does not publish there"
        else:
            return None
        return Orphan(packet, "no_owner", reason, source, device_id)

    def _role(self, name: str) -> str | None:
        identity = self._living.get(name)
        return identity.role if identity else None
