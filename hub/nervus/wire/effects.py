"""What a core asks its shell to do on the wire."""

from dataclasses import dataclass, field

from nervus.wire.model import Contract
from nervus.wire.topic import Address


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a message; broker, QoS and retain follow from the address.

    `expiry_ms` is what is left of its life when it was made, for MQTT's own message expiry;
    `broker` names one of the address's brokers, the first when None; `encoded` is the message as
    JSON where whoever made it had to look at that already.
    """

    address: Address
    message: Contract
    expiry_ms: int | None = None
    broker: str | None = None
    encoded: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def data(self) -> bytes:
        """The message as JSON."""
        return encode(self.message) if self.encoded is None else self.encoded

    @property
    def on(self) -> str:
        """The broker it goes to: spinal or core."""
        return self.broker or self.address.spec.brokers[0]

    @property
    def qos(self) -> int:
        """1 where the topic says so or the message is critical or control, else 0."""
        urgent = self.message.meta.priority in ("critical", "control")
        return self.address.spec.critical_qos if urgent else self.address.spec.qos


def encode(message: Contract) -> bytes:
    """The message as JSON, absent fields left out."""
    return message.__pydantic_serializer__.to_json(message, exclude_none=True, by_alias=True)
