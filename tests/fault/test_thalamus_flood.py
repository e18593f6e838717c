"""A flood beside a consumer that reads nothing: control passes, every drop is counted."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hub.plain_broker import PlainBroker, running, within
from hub.plane_inputs import bundle_payload
from nervus.bus import Filter, Origin, Session, Shell, subscriptions
from nervus.thalamus import ThalamusSettings, build, machine
from nervus.wire import Accepted, Guard, Mint, Packet, encode, topics
from nervus.wire.contracts import RelayBundle
from support import DEADLINE_S

FLOOD, CONTROL = 1_000, 100


class Consumer:
    """Reads what passed the gate, and what was refused."""

    def __init__(self, broker: PlainBroker) -> None:
        self.parents: dict[str, list[str]] = {"control": [], "normal": []}
        self.refused = 0
        specs = (topics.GATED_RELAY, topics.REJECT)
        self.guard = Guard(specs)
        filters = [Filter(spec.filter(), 1) for spec in specs]
        self.session = Session(
            "consumer", "core", broker.address, filters=filters, on_packet=self._see
        )

    async def _see(self, packet: Packet) -> None:
        verdict = self.guard.judge(packet, time.time_ns() // 1_000_000)
        assert isinstance(verdict, Accepted), verdict
        message = verdict.message
        if verdict.address.spec is topics.REJECT:
            self.refused += message.payload.count or 1
        else:
            self.parents[message.meta.priority].append(message.meta.parent_id)


def drivers(priority: str, count: int, room: str, seed: int) -> list[Any]:
    """Messages as brainstem publishes them."""
    mint = Mint("brainstem", "brainstem", seed=seed, boot=1)
    now_ms = time.time_ns() // 1_000_000
    address = topics.relay_bundle("room", room, "somatic")
    payload = bundle_payload(start_ms=now_ms)
    return [
        mint.full(RelayBundle, address, payload, now_ms, priority=priority, ttl_ms=60_000)
        for _ in range(count)
    ]


@pytest.mark.timeout(40)  # what is shed is told when it has been folded for five seconds
@pytest.mark.req("S2-82", "S2-83", "S4-25", "S4-26", "S4-57")
async def test_control_passes_a_flood_beside_a_consumer_that_reads_nothing(
    tmp_path: Path,
) -> None:
    broker = PlainBroker(tmp_path)
    await broker.start()
    deaf = subprocess.Popen(  # noqa: ASYNC220  it returns at once
        ["mosquitto_sub", "-p", str(broker.address.port), "-q", "1", "-t", "/th/#"],
        stdout=subprocess.DEVNULL,
    )
    await within(lambda: "/th/# (QoS 1)" in broker.log())
    deaf.send_signal(signal.SIGSTOP)
    settings = ThalamusSettings(gatekeeper=False, scope_rate=1, scope_burst=50)
    made = build(settings, Origin(1, 1, "home"), lambda _: None)
    relay = Session("relay", "core", broker.address, filters=subscriptions(machine.TAKES))
    shell = Shell(made.core, [relay], made.guard, made.lane)
    ready = asyncio.Event()
    task = asyncio.create_task(shell.run(ready.set))
    consumer = Consumer(broker)
    driver = Session("brainstem", "core", broker.address)
    try:
        async with running(consumer.session, driver):
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
            control = drivers("control", CONTROL, "kitchen", 1)
            flood = drivers("normal", FLOOD, "kitchen", 2)
            for number, publish in enumerate(flood):
                # Ten of the flood for each of control, which waits to be confirmed.
                await driver.publish(publish.address.topic, encode(publish.message))
                if number % (FLOOD // CONTROL) == 0:
                    one = control[number * CONTROL // FLOOD]
                    await driver.publish(one.address.topic, encode(one.message), qos=1)
            sent = [publish.message.meta.message_id for publish in control]
            await within(lambda: len(consumer.parents["control"]) == CONTROL)
            assert consumer.parents["control"] == sent
            # A scope beside it has not lost anything either.
            (other,) = drivers("normal", 1, "attic", 3)
            await driver.publish(other.address.topic, encode(other.message), qos=1)
            await within(lambda: other.message.meta.message_id in consumer.parents["normal"])
            shed = made.core.admission.shed
            taken = made.core.counters.relayed - CONTROL + shed["normal"]
            assert shed["normal"] > 0
            assert shed.keys() == {"normal"}
            lost = relay.counters.dropped + shell.counters.dropped
            assert taken + lost == relay.counters.received - CONTROL
            await within(lambda: consumer.refused == shed["normal"] + shell.counters.dropped, 12)
    finally:
        deaf.kill()
        deaf.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        broker.kill()
