"""A board with a valid certificate and bad manners: what it sends must be refused, visibly."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nervus.bus import BrokerAddress, PublishDeniedError
from nervus.demo.house import INTRUDER, INTRUDER_SCOPE, KITCHEN
from nervus.demo.parts import Clock, Part
from nervus.demo.tally import Tally
from nervus.wire import Publish, encode, topics
from nervus.wire.contracts import AfferentSignal, AfferentSignalPayload

FLOOD: Final = 300

Trick = Callable[[], Awaitable[None]]


class Intruder(Part):
    """Speaks on the spinal broker as a board; each trick is one line of the story."""

    def __init__(self, address: BrokerAddress, tally: Tally, clock: Clock) -> None:
        super().__init__(INTRUDER, "spinal", address, tally, clock)
        self.mint.source = f"device:{INTRUDER}"
        self._next = 0
        self._tricks: tuple[tuple[str, Trick], ...] = (
            ("sends nonsense", self._nonsense),
            ("speaks as kitchen-1", self._spoof),
            ("replays an old message", self._replay),
            (f"floods with {FLOOD} messages", self._flood),
            ("drifts from its contract", self._drift),
            ("sends what expired an hour ago", self._stale),
            ("invents a sense", self._unknown_sense),
            ("retains an event", self._retain),
            ("sends far too much", self._oversize),
            ("writes to kitchen-1's topic", self._foreign_topic),
        )

    async def misbehave(self) -> None:
        """Play the next trick."""
        words, trick = self._tricks[self._next % len(self._tricks)]
        self._next += 1
        self.tally.tell(self.clock.seconds(), f"[red]intruder {words}[/]")
        await trick()

    async def _nonsense(self) -> None:
        await self._raw(b"{not json")

    async def _spoof(self) -> None:
        await self._altered(source=f"device:{KITCHEN.device_id}")

    async def _drift(self) -> None:
        await self._altered(message_type="RelayBundle")

    async def _replay(self) -> None:
        data = self._message()
        await self._raw(data)
        await self._raw(data)

    async def _stale(self) -> None:
        await self._altered(t_ms=self.clock.unix_ms() - 3_600_000)

    async def _unknown_sense(self) -> None:
        await self._raw(self._message("mood"), "mood")

    async def _retain(self) -> None:
        await self._raw(self._message(), retain=True)
        # or the broker would offer it to brainstem again at every reconnect
        await self._raw(b"", retain=True)

    async def _oversize(self) -> None:
        await self._raw(b'{"meta": "' + b"x" * 2000 + b'"}')

    async def _foreign_topic(self) -> None:
        address = topics.afferent("room", KITCHEN.room, "temperature", KITCHEN.device_id)
        try:
            await self.session.publish(address.topic, self._message(), qos=1, retain=False)
        except PublishDeniedError:
            self.tally.tell(self.clock.seconds(), "[green]broker denies it: not its topic[/]")

    async def _flood(self) -> None:
        for _ in range(FLOOD):
            await self._raw(b"{flood")

    async def _altered(self, **meta: Any) -> None:
        message = json.loads(self._message())
        message["meta"] |= meta
        await self._raw(json.dumps(message).encode())

    def _message(self, sensor_type: str = "temperature") -> bytes:
        address = self._address(sensor_type)
        payload = AfferentSignalPayload(sensor_type=sensor_type, value=20.0)
        publish: Publish = self.mint.compact(AfferentSignal, address, payload, self.clock.unix_ms())
        return encode(publish.message)

    async def _raw(
        self, data: bytes, sensor_type: str = "temperature", *, retain: bool = False
    ) -> None:
        topic = self._address(sensor_type).topic
        await self.session.publish(topic, data, qos=1, retain=retain)

    @staticmethod
    def _address(sensor_type: str) -> Any:
        scope_level, scope = INTRUDER_SCOPE.split("/")
        return topics.afferent(scope_level, scope, sensor_type, INTRUDER)
