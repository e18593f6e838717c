"""Packets that a shell judges together come to the same as packets it takes one by one."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from hub.plane_inputs import NOW_MS, bundle_payload, feature, gate_address
from hub.shell_stand import Stand
from nervus.brainstem import BrainstemSettings
from nervus.brainstem import build as build_brainstem
from nervus.bus import Journal, JournalSettings, Machine, Origin, Start
from nervus.bus.batch import durable
from nervus.bus.errors import PublishDeniedError
from nervus.thalamus import ThalamusSettings
from nervus.thalamus import build as build_relay
from nervus.wire import Address, Mint, Packet, encode, timestamp, topics
from nervus.wire.contracts import (
    AfferentSignal,
    AfferentSignalPayload,
    GateState,
    GateStatePayload,
    GlobalModeUpdate,
    GlobalModeUpdatePayload,
    ParameterUpdate,
    ParameterUpdatePayload,
    RelayBundle,
)
from nervus.wire.guard import FUTURE_LIMIT_MS

pytestmark = pytest.mark.usefixtures("unmeasured")

ORIGIN = Origin(seed=7, boot=1, house="home")
GRANTED = {"b1": "room/kitchen", "b2": "room/kitchen", "b3": "room/attic"}
TOGETHER = 16
SEEDS = 8
DENIED = 0.3
HALF = 50


class Drawn(NamedTuple):
    """One packet as it is drawn: what it says, how it is spoilt, how it comes.

    `edge_ms` is by how much its life outlasts the moment it is judged; `again` of how many packets
    before it is the copy, in its place.
    """

    kind: str
    who: str
    value: float
    edge_ms: int | None
    spoilt: str | None
    qos: int
    again: int | None


class Burst(NamedTuple):
    """What comes together after a while, then how many messages the brokers have answered."""

    after_ms: int
    packets: list[Drawn]
    answered: int
    denied: bool


def _meta(**fields: Any) -> Callable[[Packet], Packet]:
    def spoil(packet: Packet) -> Packet:
        message = json.loads(packet.payload)
        message["meta"] |= fields
        return packet._replace(payload=json.dumps(message, separators=(",", ":")).encode())

    return spoil


NOT_TAKEN = {
    "spinal": topics.device_health("b1").topic,
    "core": topics.route_decision("room", "kitchen", "somatic").topic,
}
SPOILT: dict[str, Callable[[Packet], Packet]] = {
    "oversize": lambda packet: packet._replace(payload=packet.payload.ljust(70_000)),
    "unlisted": lambda packet: packet._replace(topic="/nobody/knows/this"),
    "legacy": lambda packet: packet._replace(topic=packet.topic.replace("/event/", "/")),
    "torn": lambda packet: packet._replace(payload=packet.payload[:-7]),
    "key twice": lambda packet: packet._replace(
        payload=packet.payload.replace(b'{"meta":', b'{"meta":{},"meta":', 1)
    ),
    "not taken": lambda packet: packet._replace(topic=NOT_TAKEN[packet.broker]),
    "extra field": _meta(colour="red"),
    "version": _meta(schema_version="v9"),
    "drift": _meta(message_type="DeviceStatus"),
    "disagrees": _meta(scope="cellar"),
    "identity": _meta(source="device:b9"),
    "elsewhere": lambda packet: packet._replace(topic=packet.topic.replace("kitchen", "cellar")),
    "from the future": _meta(
        t_ms=NOW_MS + 2 * FUTURE_LIMIT_MS, produced_at=timestamp(NOW_MS + 2 * FUTURE_LIMIT_MS)
    ),
    "empty": lambda packet: packet._replace(payload=b""),
    "retained": lambda packet: packet._replace(retain=True),
}


def afferent(drawn: Drawn, mint: Mint, now_ms: int) -> Packet:
    urgent = drawn.kind in ("urgent", "urgent long ago")
    fields: dict[str, Any] = {"priority": "critical" if urgent else "normal"}
    if drawn.kind == "urgent long ago":
        fields |= {"historical": True, "ttl_ms": 3_600_000, "t_ms": now_ms - 60_000}
    if drawn.edge_ms is not None:
        fields |= {"ttl_ms": 1_000, "t_ms": now_ms - 1_000 + drawn.edge_ms}
    sensor = "motion" if urgent else "temperature"
    level, scope = GRANTED[drawn.who].split("/")
    address = topics.afferent(level, scope, sensor, drawn.who)
    payload = AfferentSignalPayload(sensor_type=sensor, value=drawn.value)
    return _packet(mint.compact(AfferentSignal, address, payload, now_ms, **fields))


def driver(drawn: Drawn, mint: Mint, now_ms: int) -> Packet:
    life_ms = 5_000 if drawn.edge_ms is None else drawn.edge_ms
    payload = bundle_payload(feature(int(drawn.value) + 1), salience=drawn.value / 100)
    made_ms = now_ms if life_ms > 0 else now_ms - 1_000
    return _packet(
        mint.full(
            RelayBundle, topics.relay_bundle("room", "kitchen", "somatic"), payload, made_ms,
            ttl_ms=now_ms - made_ms + life_ms,
            priority="critical" if drawn.kind == "urgent" else "normal",
        )
    )  # fmt: skip


def gate(drawn: Drawn, mint: Mint, now_ms: int) -> Packet:
    where: Address = gate_address()
    payload = GateStatePayload(
        target_kind="channel", target_id="somatic", inhibition=drawn.value / 100, mode="multi",
        set_by="gatekeeper", epoch=1,
    )  # fmt: skip
    life_ms = 2_000 if drawn.edge_ms is None else drawn.edge_ms
    until = timestamp(now_ms + life_ms)
    return _packet(mint.full(GateState, where, payload, now_ms, expires_at=until))._replace(
        retain=True
    )


def told(drawn: Drawn, mint: Mint, versions: Iterator[int], now_ms: int) -> Packet:
    """A mode or a parameter, as others on the core broker set them."""
    until = timestamp(now_ms + (60_000 if drawn.edge_ms is None else drawn.edge_ms))
    if drawn.kind == "mode":
        mode = GlobalModeUpdatePayload(
            mode="quiet_hours" if drawn.value > HALF else "high_alert", reason="a test"
        )
        where = topics.mode("room", "kitchen")
        publish = mint.full(GlobalModeUpdate, where, mode, now_ms, expires_at=until)
    else:
        window = ParameterUpdatePayload(
            name="brainstem.window_ms", value=200 + 10 * int(drawn.value), version=next(versions)
        )
        where = topics.global_parameters("room", "kitchen")
        publish = mint.full(ParameterUpdate, where, window, now_ms, expires_at=until)
    return _packet(publish)._replace(retain=True)


def _packet(publish: Any) -> Packet:
    return Packet(publish.on, publish.address.topic, encode(publish.message))


class Feed:
    """Makes the packets of one run; those of two runs of the same draw are the same bytes."""

    def __init__(self) -> None:
        self._boards = {who: Mint(f"device:{who}", "spinal", seed=1, boot=1) for who in GRANTED}
        self._parts = {
            who: Mint(who, "brainstem", seed=2, boot=1)
            for who in ("brainstem", "gatekeeper", "tuner")
        }
        self._versions = count(1)
        self._made: list[Packet] = []

    def bursts(self, bursts: list[Burst]) -> list[tuple[int, list[tuple[Packet, int]], int, bool]]:
        now_ms, made = NOW_MS, []
        for burst in bursts:
            now_ms += burst.after_ms
            packets = [(self._packet(drawn, now_ms), drawn.qos) for drawn in burst.packets]
            made.append((now_ms, packets, burst.answered, burst.denied))
        return made

    def _packet(self, drawn: Drawn, now_ms: int) -> Packet:
        if drawn.again is not None and self._made:
            return self._made[-1 - drawn.again % len(self._made)]
        if drawn.kind in ("mode", "parameter"):
            packet = told(drawn, self._parts["tuner"], self._versions, now_ms)
        elif drawn.kind == "gate":
            packet = gate(drawn, self._parts["gatekeeper"], now_ms)
        elif drawn.who == "brainstem":
            packet = driver(drawn, self._parts["brainstem"], now_ms)
        else:
            packet = afferent(drawn, self._boards[drawn.who], now_ms)
        if drawn.spoilt is not None:
            packet = SPOILT[drawn.spoilt](packet)
        self._made.append(packet)
        return packet


def stream(seed: int, kinds: list[str], whose: list[str]) -> list[Burst]:
    """What comes in one run: two of three packets are as they should be, some come again."""
    random = Random(seed)  # noqa: S311 - the same in every run

    def drawn() -> Drawn:
        return Drawn(
            kind=random.choice(kinds),
            who=random.choice(whose),
            value=float(random.randint(0, 100)),
            edge_ms=random.choice([None, None, None, -1, 0, 1]),
            spoilt=random.choice([None, None, random.choice(sorted(SPOILT))]),
            qos=random.choice([0, 1]),
            again=random.choice([None, None, None, random.randint(0, 20)]),
        )

    return [
        Burst(
            after_ms=random.choice([0, 1, 49, 50, 250, 1_300, 6_000]),
            packets=[drawn() for _ in range(random.randint(1, 3 * TOGETHER))],
            answered=random.randint(0, 40),
            denied=random.random() < DENIED,
        )
        for _ in range(12)
    ]


async def lived(machine: Machine, bursts: list[Any], journal: Journal | None) -> Stand:
    stand = Stand(machine, NOW_MS, journal=journal)
    await stand.connect()
    for now_ms, packets, answered, denied in bursts:
        stand.now_ms = now_ms
        for packet, qos in packets:
            stand.deliver(packet, qos)
        await stand.steps()
        error = PublishDeniedError("not allowed", where="a test") if denied else None
        for wire in stand.wires.values():
            wire.answer(answered, error)
    return stand


def both_ways(build: Callable[[], Machine], bursts: list[Burst]) -> Stand:
    """Run the same packets through two shells; fails unless both did the same in the same order."""
    made = Feed().bursts(bursts)
    with TemporaryDirectory() as folder:
        start = Start("part", "1", "c0de", {}, ORIGIN.seed, ORIGIN.boot, ORIGIN.house)
        with Journal(Path(folder), start, JournalSettings(enabled=True)) as journal:
            one_by_one = asyncio.run(lived(build(), made, journal))
    together = asyncio.run(lived(build(), made, None))
    assert one_by_one.shell._together == 1
    assert together.shell._together == TOGETHER
    assert together.log == one_by_one.log
    assert asdict(together.shell.counters) == asdict(one_by_one.shell.counters)
    return together


@pytest.fixture(autouse=True)
def _one_slice_however_slow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # A slice that took long halves what is judged together.
    monkeypatch.setattr("nervus.bus.shell._SLICE_S", 3_600.0)


def brainstem() -> Machine:
    # Rates that a burst exceeds.
    settings = BrainstemSettings(source_rate=5, source_burst=8, urgent_rate=1, urgent_burst=2)
    return build_brainstem(settings, ORIGIN, GRANTED.get)


def relay() -> Machine:
    return build_relay(ThalamusSettings(), ORIGIN, lambda _: None)


def reasons(stands: list[Stand]) -> set[str]:
    """Why something was refused, in any of the runs."""
    return {
        json.loads(entry.payload)["payload"]["reason_code"]
        for stand in stands
        for entry in stand.sent
        if entry.topic.startswith("/X/reflect/")
    }


AT_EVERY_STAGE = {
    "oversize", "unknown_topic", "legacy_topic", "decode_error", "contract_not_allowed",
    "schema_invalid", "unsupported_version", "contract_drift", "topic_mismatch",
    "from_the_future", "expired", "duplicate", "empty_payload", "retained_event",
}  # fmt: skip


def test_brainstem_does_the_same_with_packets_judged_together() -> None:
    kinds = ["sample", "sample", "sample", "urgent", "urgent long ago", "mode", "parameter"]
    stands = [both_ways(brainstem, stream(seed, kinds, list(GRANTED))) for seed in range(SEEDS)]
    assert reasons(stands) >= AT_EVERY_STAGE | {"identity_mismatch", "scope_not_granted"}
    assert "queue_full" in reasons(stands)


def test_the_relay_does_the_same_with_packets_judged_together() -> None:
    kinds = ["driver", "driver", "urgent", "gate"]
    stands = [both_ways(relay, stream(seed, kinds, ["brainstem"])) for seed in range(SEEDS)]
    assert reasons(stands) >= AT_EVERY_STAGE


async def test_what_is_cancelled_before_it_began_has_begun_nothing() -> None:
    begun = []

    async def work() -> tuple[str, ...]:
        begun.append("work")
        return ()

    async def record() -> tuple[str, ...]:
        begun.append("record")
        return ()

    for recording in (None, record):
        todo = asyncio.ensure_future(durable([work], recording))
        todo.cancel()
        await asyncio.wait([todo])
        assert todo.cancelled()
    # A coroutine that nobody awaited would be told once it is collected.
    gc.collect()
    assert begun == []
    assert await durable([work], record) == ()
    assert begun == ["record", "work"]
