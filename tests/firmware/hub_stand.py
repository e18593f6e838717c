"""The hub's side of the spinal broker as far as a board can tell: answers pings, gives orders."""

import asyncio
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiomqtt

from firmware.rigs import Broker
from firmware.update_pack import Pack
from nervus.simulator import VirtualBoard
from nervus.wire import cbor as hub_cbor
from spinal import cbor
from spinal.ids import MessageIds

Json = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """A message of a board."""

    topic: str
    meta: Json
    payload: Json
    retain: bool
    qos: int


class HubStand:
    """Sees all topics of a broker; answers a board's pings unless told not to."""

    def __init__(self, port: int, device_id: str = "m1", tls: ssl.SSLContext | None = None) -> None:
        self.messages: list[Message] = []
        self.removed: list[str] = []
        self.ahead_ms = 0
        """How far this hub's clock is ahead of the machine's."""
        self.answers_pings = True
        self.answers_late = False
        """Whether each ping gets the answer to the one before."""
        self._asked: Json = {}
        self.pack: Pack | None = None
        self.board: VirtualBoard | None = None
        # Without this each QoS 1 publish waits 44 ms for a delayed acknowledgement of TCP.
        no_delay = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        self._client = aiomqtt.Client("127.0.0.1", port, tls_context=tls, socket_options=no_delay)
        self._device_id = device_id
        self._ids = MessageIds(os.urandom(10), now_ms())
        self._sequence = 0
        self._changed = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        await self._client.subscribe("#", qos=1)
        self._reader = asyncio.create_task(self._read(), name="hub stand")
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._client.__aexit__(None, None, None)

    def next_id(self) -> str:
        return self._ids.next()

    def of(self, contract: str) -> list[Message]:
        """The messages of a contract so far."""
        return [message for message in self.messages if message.meta["contract"] == contract]

    async def until(
        self, contract: str, fits: Callable[[Message], bool], timeout_s: float = 8
    ) -> Message:
        """The first message of a contract that fits, past or to come."""
        async with asyncio.timeout(timeout_s), self._changed:
            while True:
                for message in self.of(contract):
                    if fits(message):
                        return message
                await self._changed.wait()

    async def synced(self, sessions: int = 1) -> None:
        """Wait until the board has taken the hub's time in so many sessions."""
        assert self.board is not None, "no board of this hub: set `board`"
        lines = self.board.log.lines
        async with asyncio.timeout(12):
            while sum("time from the hub" in line for line in lines) < sessions:  # noqa: ASYNC110 - its log
                await asyncio.sleep(0.01)

    async def gone(self, topic: str, timeout_s: float = 8) -> None:
        """Wait until a retained state is taken back."""
        async with asyncio.timeout(timeout_s), self._changed:
            while topic not in self.removed:
                await self._changed.wait()

    async def send(self, topic: str, data: bytes, *, qos: int = 1, retain: bool = False) -> None:
        await self._client.publish(topic, data, qos=qos, retain=retain)

    def envelope(self, contract: str, payload: Json, **meta: object) -> bytes:
        """A compact message of the hub."""
        self._sequence += 1
        head = {
            "message_id": self.next_id(),
            "schema_version": "v1",
            "contract": contract,
            "message_type": contract,
            "source": "reliable",
            "boot": 1,
            "seq": self._sequence,
            "ttl_ms": 10_000,
            "t_ms": now_ms() + self.ahead_ms,
            "clk": "hub",
            **meta,
        }
        return json.dumps({"meta": head, "payload": payload}).encode()

    async def command(
        self, actuator: str, action_id: str, *, retain: bool = False, **step: object
    ) -> None:
        topic = (
            f"/sc/eff/event/room/kitchen/act/{actuator}/device/{self._device_id}/cmd/{action_id}"
        )
        payload = {"actuator": actuator, **step}
        data = self.envelope("EfferentCommand", payload, action_id=action_id, deadline_ms=10_000)
        await self.send(topic, data, retain=retain)

    async def configure(self, rule: Json) -> Message:
        """Send a reflex; the board's report."""
        reflex_id, action_id = rule["reflex_id"], self.next_id()
        topic = f"/sc/reflex/event/device/{self._device_id}/rule/{reflex_id}/configure"
        await self.send(topic, self.envelope("ReflexConfigure", rule, action_id=action_id))
        return await self.until("ReflexReport", lambda m: m.meta["action_id"] == action_id)

    async def offer(self, pack: Pack) -> None:
        """Offer an application, and serve its chunks."""
        self.pack = pack
        topic = f"/sc/dev/event/device/{self._device_id}/update"
        await self.send(topic, self.envelope("UpdateOffer", pack.offer()))

    async def trigger(self, reflex_id: str, action_id: str) -> None:
        topic = f"/sc/reflex/event/device/{self._device_id}/rule/{reflex_id}/trigger"
        meta = {"action_id": action_id, "deadline_ms": 10_000}
        await self.send(topic, self.envelope("ReflexTrigger", {"reason": "test"}, **meta))

    async def report(self, action_id: str, status: str) -> Message:
        """The board's EfferentReport with this status."""
        return await self.until(
            "EfferentReport",
            lambda m: m.meta["action_id"] == action_id and m.payload["status"] == status,
        )

    async def _read(self) -> None:
        async for message in self._client.messages:
            topic = str(message.topic)
            assert isinstance(message.payload, bytes)
            if not topic.startswith(("/sc/", "/X/")) or topic.endswith(
                ("/pong", "/configure", "/trigger", "/update", "/chunk")
            ):
                continue
            if not message.payload:
                async with self._changed:
                    self.removed.append(topic)
                    self._changed.notify_all()
                continue
            if "/cmd/" in topic:
                continue
            is_cbor = message.payload.startswith(cbor.MARK)
            body = cbor.loads(message.payload) if is_cbor else json.loads(message.payload)
            taken = Message(topic, body["meta"], body["payload"], message.retain, message.qos)
            if taken.meta["contract"] == "Ping" and self.answers_pings:
                await self._pong(taken.payload)
            if taken.meta["contract"] == "ChunkRequest" and self.pack is not None:
                await self._chunk(taken.payload)
            async with self._changed:
                self.messages.append(taken)
                self._changed.notify_all()

    async def _chunk(self, request: Json) -> None:
        assert self.pack is not None
        payload = self.pack.chunk(request["path"], request["offset"])
        topic = f"/sc/dev/event/device/{self._device_id}/chunk"
        message = json.loads(self.envelope("Chunk", payload))
        await self._client.publish(topic, hub_cbor.dumps(message), qos=1)

    async def _pong(self, ping: Json) -> None:
        last, self._asked = self._asked, ping
        payload = {
            **(last if self.answers_late else ping),
            "scope_level": "room",
            "scope": "kitchen",
        }
        payload["unix_ms"] = now_ms() + self.ahead_ms
        topic = f"/sc/dev/event/device/{self._device_id}/pong"
        await self._client.publish(topic, self.envelope("Pong", payload), qos=0)


@asynccontextmanager
async def back_again(broker: Broker, board: VirtualBoard) -> AsyncIterator[HubStand]:
    """A stopped broker started again, and the hub on it before the board can be.

    What a board kept goes to whoever listens when it comes back, so it stands still until then.
    """
    async with AsyncExitStack() as stack:
        assert board.pid is not None, "the board does not run"
        os.kill(board.pid, signal.SIGSTOP)
        try:
            broker.start()
            hub = await stack.enter_async_context(HubStand(broker.port))
        finally:
            os.kill(board.pid, signal.SIGCONT)
        yield hub


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def node(port: int, **changes: object) -> Json:
    """A node with a door and a thermometer, a lamp and a fan."""
    return {
        "device_id": "m1",
        "scope_level": "room",
        "scope": "kitchen",
        "broker": {"host": "127.0.0.1", "port": port},
        "keepalive_s": 4,
        "ping_s": 2,
        "sensors": [
            {"id": "door", "driver": "digital", "pin": DOOR, "device_class": "door"},
            {
                "id": "temperature",
                "driver": "analog",
                "pin": THERMOMETER,
                "scale": 0.001,
                "unit": "Cel",
                "period_ms": 50,
                "deadband": 0.2,
                "urgent": {"ge": 40},
            },
        ],
        "actuators": [
            {"id": "lamp", "driver": "digital", "pin": LAMP, "boot": 0},
            {"id": "fan", "driver": "pwm", "pin": FAN, "boot": 0},
        ],
        **changes,
    }


def door_rule(**changes: object) -> Json:
    """A reflex: the lamp follows the door."""
    return {
        "reflex_id": "door-lamp",
        "version": 1,
        "enabled": True,
        "mode": "active",
        "when": {"sensor": "door", "op": "eq", "value": True},
        "then": [{"actuator": "lamp", "set": True}],
        "else": [{"actuator": "lamp", "set": False}],
        **changes,
    }


DOOR, THERMOMETER, LAMP, FAN = 4, 26, 2, 15
