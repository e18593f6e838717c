"""The hub's side of the spinal broker for one measured board: time, rules, a flood on demand."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from benchmarks.timing import DidNotHappenError
from nervus.bus import Outgoing, Session, subscriptions
from nervus.wire import Accepted, Guard, Mint, Packet, Publish, encode, topics
from nervus.wire.contracts import (
    Pong,
    PongPayload,
    ReflexConfigure,
    ReflexConfigurePayload,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.house import House

IDENTITY: Final = "reliable"
_CONFIGURED_S: Final = 10.0
_FLOOD_TICK_S: Final = 0.01


class Stand:
    """Speaks as the hub to one board; the hub's services do not run beside it."""

    specs = (topics.PING, topics.REFLEX_REPORT, topics.REFLEX_FIRE)

    def __init__(self, hub: House, device_id: str, room: str) -> None:
        self.device_id = device_id
        self.pings = 0
        self.fires = 0
        self._room = room
        self._pinged = asyncio.Event()
        self._reports: asyncio.Queue[Any] = asyncio.Queue()
        self._mint = Mint(IDENTITY, "reliable", seed=time.time_ns(), boot=int(time.time()))
        self._guard = Guard(self.specs)
        self.session = Session(
            IDENTITY,
            "spinal",
            hub.address(IDENTITY, "spinal"),
            filters=subscriptions(self.specs, device_id=device_id),
            on_packet=self._take,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer the board until left."""
        task = asyncio.create_task(self.session.run())
        try:
            await self.session.wait_connected()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def synced(self) -> None:
        """Wait until the board has asked for the time and been answered."""
        async with asyncio.timeout(_CONFIGURED_S):
            await self._pinged.wait()

    async def configure(self, rule: dict[str, Any]) -> None:
        """Give the board a reflex; returns once it says that the rule is in force."""
        now_ms = _now_ms()
        payload = ReflexConfigurePayload(**rule)
        address = topics.reflex_configure(self.device_id, payload.reflex_id)
        action_id = self._mint.id(now_ms)
        publish = self._mint.compact(ReflexConfigure, address, payload, now_ms, action_id=action_id)
        await self.session.publish(address.topic, encode(publish.message), qos=1)
        async with asyncio.timeout(_CONFIGURED_S):
            report = await self._reports.get()
        if report.status not in ("applied", "unchanged"):
            raise DidNotHappenError(f"the board refused {payload.reflex_id}: {report}")

    async def flood(self, rate: float) -> None:
        """Send so many messages a second, until cancelled; the board reads and checks each."""
        began, sent = time.perf_counter(), 0
        while True:
            due = int((time.perf_counter() - began) * rate)
            for _ in range(due - sent):
                self._post(self._pong(nonce=0, t0=0))
            sent = due
            await asyncio.sleep(_FLOOD_TICK_S)

    async def hostile(self, size: int, gap_s: float) -> None:
        """Publish so many bytes to the board again and again, until cancelled."""
        address = topics.pong(self.device_id)
        while True:
            self.session.post(Outgoing(address.topic, bytes(size), 0))
            await asyncio.sleep(gap_s)

    async def _take(self, packet: Packet) -> None:
        verdict = self._guard.judge(packet, _now_ms())
        if not isinstance(verdict, Accepted):
            # What a board says again after a cut link is a duplicate, and to be expected.
            return
        payload = verdict.message.payload
        if verdict.address.spec is topics.PING:
            self.pings += 1
            self._post(self._pong(payload.nonce, payload.t0))
            self._pinged.set()
        elif verdict.address.spec is topics.REFLEX_REPORT:
            self._reports.put_nowait(payload)
        else:
            self.fires += 1

    def _pong(self, nonce: int, t0: int) -> Publish:
        now_ms = _now_ms()
        payload = PongPayload(
            nonce=nonce, t0=t0, unix_ms=now_ms, scope_level="room", scope=self._room
        )
        return self._mint.compact(Pong, topics.pong(self.device_id), payload, now_ms)

    def _post(self, publish: Publish) -> None:
        self.session.post(Outgoing(publish.address.topic, encode(publish.message), publish.qos))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
