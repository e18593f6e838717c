"""Both sides of the command service, as clients of real brokers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from hub.command_inputs import POLICY
from nervus.bus import BrokerAddress, Filter, Outgoing, Session
from nervus.reliable.reflex_files import rule_hash
from nervus.wire import Mint, Packet, Publish, encode, topics
from nervus.wire.contracts import (
    DeviceStatus,
    DeviceStatusPayload,
    EfferentReport,
    EfferentReportPayload,
    Ping,
    PingPayload,
    ReflexReport,
    ReflexReportPayload,
)
from support import DEADLINE_S, House


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run coroutines beside a test; one that ends by itself fails it."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        # Here, so that a test that waited in vain for one of them says also what that died of.
        for each in results:
            if isinstance(each, Exception):
                raise each
        assert all(isinstance(each, asyncio.CancelledError) for each in results), results


async def until(condition: Callable[[], Any], within_s: float = DEADLINE_S) -> Any:
    """Wait until a condition holds; returns what it returned."""
    async with asyncio.timeout(within_s):
        while not (found := condition()):  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    return found


def command_house(house: House) -> House:
    """A house with a policy and the identities of everybody below and of the service."""
    for name, role in (("policy", "policy"), ("reliable", "reliable"), ("observer", "observer")):
        house.authority.issue(name, role)
    house.authority.issue("b1", "board", "room/kitchen")
    house.join("operator", "operator")
    house.state.policy_file.write_text(POLICY)
    return house


class Client:
    """One identity on one broker: what it has received, and how it sends."""

    def __init__(self, house: House, name: str, broker: Any, *filters: str) -> None:
        listener = house.settings.brokers.get(broker)
        tls = house.authority.get(name).ssl_context()
        self.received: list[Packet] = []
        self.session = Session(
            name,
            broker,
            BrokerAddress(listener.connect_host, listener.port, tls),
            filters=[Filter(each, 1) for each in filters],
            on_packet=self.take,
        )

    async def take(self, packet: Packet) -> None:
        """Keep what came."""
        self.received.append(packet)

    def send(self, publish: Publish) -> None:
        """Queue a message at QoS 1."""
        spec = publish.address.spec
        message = Outgoing(publish.address.topic, encode(publish.message), 1, spec.retained)
        self.session.post(message)

    def about(self, contract: str) -> list[dict[str, Any]]:
        """Received messages of a contract, decoded."""
        messages = [json.loads(packet.payload) for packet in self.received]
        return [each for each in messages if each["meta"]["contract"] == contract]


class Operator(Client):
    """Requests capabilities and watches what becomes of them."""

    def __init__(self, house: House) -> None:
        specs = (topics.ACTION_PROGRESS, topics.OUTCOME, topics.ERROR_EVENT)
        super().__init__(house, "operator", "core", *(spec.filter() for spec in specs))
        self.mint = Mint("operator", "consumer", seed=time.time_ns(), boot=1)

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """Outcomes by action id; fails if an action has two that differ."""
        found: dict[str, dict[str, Any]] = {}
        for each in self.about("Outcome"):
            assert found.setdefault(each["meta"]["action_id"], each) == each
        return found

    def accepted(self) -> set[str]:
        """Actions that were answered with any stage or outcome."""
        return {
            each["meta"]["action_id"]
            for contract in ("ActionProgress", "Outcome")
            for each in self.about(contract)
        }


class BoardClient(Client):
    """A board's side of the wire: does every command once and reports success."""

    def __init__(self, house: House) -> None:
        commands = topics.EFFERENT_COMMAND.filter(
            device_id="b1", scope_level="room", scope="kitchen"
        )
        rules, pongs = (
            spec.filter(device_id="b1") for spec in (topics.REFLEX_CONFIGURE, topics.PONG)
        )
        super().__init__(house, "b1", "spinal", commands, rules, pongs)
        self.mint = Mint("device:b1", "spinal", seed=time.time_ns(), boot=int(time.time()))
        self.done: dict[str, int] = {}

    async def begin(self) -> None:
        """Be born; on return the hub knows it: what is asked elsewhere might overtake its birth."""
        self.online()
        await self.pinged()

    async def pinged(self) -> None:
        """Ask for the time; once that is answered, all it said before has been taken."""
        pongs = len(self.about("Pong"))
        self.ping()
        await until(lambda: len(self.about("Pong")) > pongs)

    def online(self) -> None:
        """Be born."""
        payload = DeviceStatusPayload(status="online", session=self.mint.id(now_ms()))
        address = topics.device_status("b1")
        self.send(self.mint.compact(DeviceStatus, address, payload, now_ms()))

    def ping(self) -> None:
        """Ask for the time."""
        payload = PingPayload(nonce=1, t0=now_ms())
        self.send(self.mint.compact(Ping, topics.ping("b1"), payload, now_ms()))

    async def take(self, packet: Packet) -> None:
        """Do what it says, once."""
        await super().take(packet)
        message = json.loads(packet.payload)
        meta, payload = message["meta"], message["payload"]
        contract: Any
        report: Any
        if meta["contract"] == "EfferentCommand":
            acted_ms = self.done.setdefault(meta["action_id"], now_ms())
            contract, report = (
                EfferentReport,
                EfferentReportPayload(status="succeeded", acted_at=acted_ms),
            )
            address = topics.efferent_report(
                "room", "kitchen", payload["actuator"], "b1", meta["action_id"]
            )
        elif meta["contract"] == "ReflexConfigure":
            contract, report = (
                ReflexReport,
                ReflexReportPayload(
                    version=payload["version"], status="applied", hash=rule_hash(payload)
                ),
            )
            address = topics.reflex_report("b1", payload["reflex_id"], meta["action_id"])
        else:
            return
        self.send(
            self.mint.compact(contract, address, report, now_ms(), action_id=meta["action_id"])
        )
