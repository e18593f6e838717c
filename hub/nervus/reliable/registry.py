"""The device registry: who is reachable and what it can do, from what boards retain and send."""

from dataclasses import dataclass, replace
from typing import Literal

from nervus.wire.contracts import DeviceInfo, DeviceStatus

Availability = Literal["online", "offline", "sleeping", "unknown"]


@dataclass(frozen=True, slots=True)
class _Presence:
    """`session` is None while only a ping has proven that the device lives."""

    status: Literal["online", "offline", "sleeping"]
    session: str | None
    order: tuple[int, int]
    buried: str | None = None


class Registry:
    """Availability and capabilities of devices; at most one entry for each granted device."""

    def __init__(self) -> None:
        self._presences: dict[str, _Presence] = {}
        self._infos: dict[str, DeviceInfo] = {}

    def availability(self, device_id: str) -> Availability:
        """Whether the device is reachable; unknown when nothing was heard of it."""
        presence = self._presences.get(device_id)
        return presence.status if presence else "unknown"

    def boot(self, device_id: str) -> int | None:
        """The boot count of what was last heard of the device."""
        presence = self._presences.get(device_id)
        return presence.order[0] if presence else None

    def has_actuator(self, device_id: str, actuator: str) -> bool | None:
        """Whether the device has that actuator; None while its capabilities are not known."""
        info = self._infos.get(device_id)
        if info is None:
            return None
        return any(
            each.kind == "actuator" and each.id == actuator for each in info.payload.capabilities
        )

    def status(self, device_id: str, message: DeviceStatus) -> bool:
        """Take a status; returns whether it begins a session of a reachable device.

        A last will is frozen when its session connects and may come after the next session's
        birth: an `offline` counts only for the session that is online, or if it was made later
        than anything heard since. Of a device known by its pings alone, only the will that was
        already seen is old.
        """
        stated, meta = message.payload, message.meta
        order = (meta.boot, meta.seq)
        before = self._presences.get(device_id)
        if stated.status == "offline" and before is not None and before.status != "offline":
            if before.session is None:
                stale = stated.session == before.buried
            else:
                stale = stated.session != before.session and order < before.order
            if stale:
                return False
        self._presences[device_id] = _Presence(
            stated.status,
            stated.session,
            order,
            stated.session if stated.status == "offline" else None,
        )
        born = before is None or before.session != stated.session or before.status == "offline"
        return stated.status == "online" and born

    def alive(self, device_id: str, boot: int, seq: int) -> bool:
        """Take a sign of life; returns whether the device was thought unreachable.

        The broker may retain an old session's will over the birth that came before it; who pings
        is online.
        """
        before = self._presences.get(device_id)
        if before is not None and before.status != "offline":
            self._presences[device_id] = replace(before, status="online")
            return before.status == "sleeping"
        buried = before.buried if before else None
        self._presences[device_id] = _Presence("online", None, (boot, seq), buried)
        return True

    def info(self, device_id: str, message: DeviceInfo) -> None:
        """Take a birth."""
        self._infos[device_id] = message

    def remove_status(self, device_id: str) -> None:
        """The retained status was removed: nothing is known of the device's reachability."""
        self._presences.pop(device_id, None)

    def remove_info(self, device_id: str) -> None:
        """The retained birth was removed."""
        self._infos.pop(device_id, None)
