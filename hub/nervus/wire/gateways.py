"""Where the streams of devices are asked for: what a viewer keeps of the retained registry."""

from typing import Final

from nervus.wire.contracts import MediaRegistryState, MediaRegistryStatePayload
from nervus.wire.topic import level
from nervus.wire.verdict import Accepted, Removed

DEVICE_LIMIT: Final = 4_096
"""Devices kept; of more the one that was told longest ago is forgotten."""


class Gateways:
    """The gateway of each device, as its MediaRegistryState said last.

    Give it what the guard says of `/sc/media/state/device/+`. It holds while brokers and gateways
    are away, so a viewer asks nobody where to go; each device may have another gateway. A mapping
    grants nothing: the gateway decides.
    """

    def __init__(self) -> None:
        self._devices: dict[str, MediaRegistryStatePayload] = {}

    def take(self, verdict: Accepted | Removed) -> None:
        """Remember what a registry state says, or forget its device where it was removed."""
        device_id = verdict.address.levels["device_id"]
        self._devices.pop(device_id, None)
        if isinstance(verdict, Accepted) and isinstance(verdict.message, MediaRegistryState):
            self._devices[device_id] = verdict.message.payload
            if len(self._devices) > DEVICE_LIMIT:
                del self._devices[next(iter(self._devices))]

    def device(self, device_id: str) -> MediaRegistryStatePayload | None:
        """What the registry says of a device: its streams, scope and gateway; None if nothing."""
        return self._devices.get(device_id)

    def offer_url(self, device_id: str) -> str | None:
        """Where to send an SDP offer for a device; None for one that no gateway serves."""
        found = self._devices.get(device_id)
        if found is None:
            return None
        path = found.offer_path_template.replace("{device_id}", level(device_id))
        return found.gateway_base + path
