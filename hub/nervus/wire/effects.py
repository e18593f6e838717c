"""What a core asks its shell to do on the wire."""

from typing import Literal, NamedTuple

from nervus.wire.contracts import CONTRACTS
from nervus.wire.model import Contract, Model
from nervus.wire.topic import Address

Priority = Literal["control", "critical", "normal", "background"]


class Publish:
    """Publish a message; broker, QoS and retain follow from the address.

    Where a message was written as JSON at once, the model is made of that when somebody asks for
    it: most of what is sent is never looked at again by its sender.

    Args:
        address: Where it goes.
        message: The message, unless `data` is all there is.
        expiry_ms: What is left of its life when it was made, for MQTT's own message expiry.
        broker: One of the address's brokers, the first when None.
        data: The message as JSON, where whoever made it has that already.
        priority: That of the message, needed without `message`.
    """

    __slots__ = ("_data", "_message", "address", "broker", "expiry_ms", "priority")

    def __init__(
        self,
        address: Address,
        message: Contract | None = None,
        expiry_ms: int | None = None,
        broker: str | None = None,
        *,
        data: bytes | None = None,
        priority: Priority = "normal",
    ) -> None:
        if message is None and data is None:
            raise TypeError(f"{address.topic}: neither a message nor its bytes")
        self.address = address
        self.expiry_ms = expiry_ms
        self.broker = broker
        self.priority: Priority = priority
        if message is not None:
            self.priority = message.meta.priority or "normal"
        self._message = message
        self._data = data

    def __eq__(self, other: object) -> bool:
        """Equal in what a broker is asked for."""
        if not isinstance(other, Publish):
            return NotImplemented
        mine = (self.address.topic, self.on, self.expiry_ms, self.data)
        return mine == (other.address.topic, other.on, other.expiry_ms, other.data)

    def __hash__(self) -> int:
        """As `__eq__`."""
        return hash((self.address.topic, self.on, self.expiry_ms, self.data))

    def __repr__(self) -> str:
        """Where, and what."""
        return f"Publish({self.on} {self.address.topic} {self.expiry_ms} {self.data!r})"

    def to(self, broker: str) -> "Publish":
        """The same to another of the address's brokers."""
        return Publish(
            self.address, self._message, self.expiry_ms, broker,
            data=self._data, priority=self.priority,
        )  # fmt: skip

    @property
    def message(self) -> Contract:
        """The message."""
        if self._message is None:
            assert self._data is not None  # noqa: S101 - one of them was given
            contract = CONTRACTS[self.address.spec.contract]
            self._message = contract.model_validate_json(self._data)
        return self._message

    @property
    def data(self) -> bytes:
        """The message as JSON."""
        if self._data is None:
            assert self._message is not None  # noqa: S101 - one of them was given
            self._data = encode(self._message)
        return self._data

    @property
    def on(self) -> str:
        """The broker it goes to: spinal or core."""
        return self.broker or self.address.spec.brokers[0]

    @property
    def qos(self) -> int:
        """1 where the topic says so or the message is critical or control, else 0."""
        spec = self.address.spec
        return spec.critical_qos if self.priority in ("critical", "control") else spec.qos


class Hold(NamedTuple):
    """Acknowledge the packet of this step only with the `Release` of the same number.

    For what is promised and kept in memory until a later step tells it: until then it waits at the
    broker, from where it comes again if the part dies.
    """

    number: int


class Release(NamedTuple):
    """What was held under a number is in the messages of this step: they have to get out yet."""

    number: int


def encode(model: Model) -> bytes:
    """A message, or a part of one, as JSON; absent fields left out."""
    return model.__pydantic_serializer__.to_json(model, exclude_none=True, by_alias=True)
