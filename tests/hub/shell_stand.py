"""A shell without brokers: packets are handed to it, what it does is written down."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from nervus.bus import Machine, Outgoing, Session, Shell
from nervus.bus.address import BrokerAddress
from nervus.bus.errors import PublishError
from nervus.bus.session import Delivery
from nervus.wire import Connected, Packet

Broker = Literal["spinal", "core"]


class Sent(NamedTuple):
    """A message that a shell gave its session to send."""

    broker: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    priority: str
    expires_ms: int | None


class Acknowledged(NamedTuple):
    """A packet that a shell is done with, by the number it came with."""

    number: int


class Wire(Session):
    """A session whose broker is the test: it writes down what goes out, and answers when told."""

    def __init__(self, broker: Broker, log: list[Sent | Acknowledged]) -> None:
        super().__init__("part", broker, BrokerAddress("127.0.0.1", 1))
        self.live = True
        self._log = log
        self._unanswered: deque[Outgoing] = deque()

    def post(self, message: Outgoing) -> None:
        self._log.append(
            Sent(
                self.broker, message.topic, message.payload, message.qos, message.retain,
                message.priority, message.expires_ms,
            )
        )  # fmt: skip
        self._unanswered.append(message)

    def acknowledge(self, mid: int) -> None:
        self._log.append(Acknowledged(mid))

    def answer(self, count: int, error: PublishError | None = None) -> None:
        """Say of so many messages at most how they went, the oldest first."""
        for _ in range(min(count, len(self._unanswered))):
            self._unanswered.popleft().finish(error)

    def deliver(self, number: int, packet: Packet, qos: int) -> None:
        self._sink(Delivery(packet, qos, self, number))  # type: ignore[arg-type]

    def read(self) -> None:
        """Say that what was delivered is all that came at once."""
        self._on_read()


class Stand:
    """A machine's shell; `log` is what it did, in order.

    `now_ms` is its clock. `steps` does what a shell's own task does when something has arrived.
    """

    def __init__(self, machine: Machine, now_ms: int, **options: Any) -> None:
        self.now_ms = now_ms
        self.log: list[Sent | Acknowledged] = []
        self.wires = {name: Wire(name, self.log) for name in ("spinal", "core")}  # type: ignore[arg-type]
        self.shell = Shell(
            machine.core, tuple(self.wires.values()), machine.guard, machine.lane,
            clock=lambda: self.now_ms, **options,
        )  # fmt: skip
        self._number = 0

    async def connect(self) -> None:
        for broker in ("spinal", "core"):
            await self.shell._connected(Connected(broker))  # type: ignore[arg-type]
        await self.steps()

    def deliver(self, packet: Packet, qos: int) -> int:
        """Hand over one packet; returns its number."""
        self._number += 1
        self.wires[packet.broker].deliver(self._number, packet, qos)
        return self._number

    async def steps(self) -> None:
        """Let everything that was delivered be stepped, and time that is due pass."""
        await self.shell._drain()
        self.shell._tick_if_due(self.shell._time())

    @property
    def acknowledged(self) -> list[int]:
        return [entry.number for entry in self.log if isinstance(entry, Acknowledged)]

    @property
    def sent(self) -> Sequence[Sent]:
        return [entry for entry in self.log if isinstance(entry, Sent)]
