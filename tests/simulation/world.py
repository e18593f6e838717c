"""A house in simulated time: boards, two brokers that misbehave, planes that die, a gatekeeper."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

from pydantic import BaseModel

from nervus.brainstem import BrainstemSettings
from nervus.brainstem import build as build_brainstem
from nervus.brainstem.machine import FROM_PARTS
from nervus.brainstem.machine import TAKES as FROM_BOARDS
from nervus.bus import Machine, Origin
from nervus.thalamus import ThalamusSettings
from nervus.thalamus import build as build_relay
from nervus.thalamus.machine import TAKES as RELAY_TAKES
from nervus.wire import Address, Mint, Packet, Publish, encode, timestamp, topics
from nervus.wire.contracts import (
    GateState,
    GateStatePayload,
    GlobalModeUpdate,
    GlobalModeUpdatePayload,
    ParameterUpdate,
    ParameterUpdatePayload,
)
from nervus.wire.model import Contract, Model
from nervus.wire.registries import names
from nervus.wire.topic_parser import parse
from simulation.boards import Board, Sample, house
from simulation.process import Process, Step

START_MS: Final = 1_790_000_000_000
TICK_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Faults:
    """How much goes wrong: chances for each message, and mean times between faults."""

    drop: float = 0.02
    double: float = 0.02
    delay_ms: int = 40
    late: float = 0.01
    late_ms: int = 3_000
    crash_every_s: float = 40
    clock_jump_every_s: float = 90
    gate_every_s: float = 4
    flood_every_s: float = 30
    reboot_every_s: float = 60
    mode_every_s: float = 10


CALM: Final = Faults(
    drop=0, double=0, delay_ms=0, late=0, crash_every_s=1e12, clock_jump_every_s=1e12,
    gate_every_s=10, flood_every_s=1e12, reboot_every_s=1e12, mode_every_s=1e12,
)  # fmt: skip


BRAINSTEM: Final = BrainstemSettings()
RELAY: Final = ThalamusSettings(gatekeeper=True)
SETTINGS: Final[dict[str, BaseModel]] = {"brainstem": BRAINSTEM, "relay": RELAY}


class Gatekeeper:
    """Sets one gate for each room, of any inhibition and mode; dies, and is superseded."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.epoch = 1
        self._mint = Mint("gatekeeper", "thalamus", seed=random.getrandbits(64), boot=1)
        self._targets = {
            "kitchen": ("channel", "somatic"),
            "hall": ("nucleus", "LGN"),
            "bath": ("topic_prefix", "/bs/relay/event/room/bath"),
        }

    def gate(self, clock_ms: int, epoch: int | None = None) -> Publish:
        """A gate of one room."""
        room, (kind, target) = self._random.choice(sorted(self._targets.items()))
        inhibition = self._random.choice([0.0, 0.2, 0.3, 0.5, 0.79, 0.8, 0.95, 1.0, 1.0])
        mode: Any = self._random.choice(["multi"] * 4 + ["winner_take_all", "passthrough"])
        payload = GateStatePayload(
            target_kind=kind,  # type: ignore[arg-type]
            target_id=target,
            inhibition=inhibition,
            mode=mode,
            set_by="gatekeeper",
            epoch=epoch or self.epoch,
        )
        until = clock_ms + self._random.choice([500, 2_000, 8_000, 20_000])
        address = topics.gate_state("room", room, kind, target)
        return self._mint.full(GateState, address, payload, clock_ms, expires_at=timestamp(until))


def scope_of(device_id: str) -> str:
    """What a board was granted."""
    return f"room/{('kitchen', 'hall', 'bath')[int(device_id[1:]) % 3]}"


class World:
    """Everything between a sensor and a consumer, driven by one seed.

    Args:
        seed: Decides every fault and every value.
        faults: How much goes wrong.
        watch: Called after each step of a plane.
        boards: How many boards there are.
        keep: Whether planes keep their inputs and outputs.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        watch: Callable[[Step], None] = lambda _: None,
        *,
        boards: int = 10,
        keep: bool = True,
    ) -> None:
        self.random = Random(seed)  # noqa: S311  nothing is secret here
        self.faults = faults or Faults()
        self.true_ms = START_MS
        self.offset_ms = 0
        self.samples = 0
        self.crashes = 0
        self.boards = {board.device: board for board in house(boards)}
        self.known = tuple(self.boards)
        self.gatekeeper = Gatekeeper(self.random)
        self._others = Mint("others", "consumer", seed=self.random.getrandbits(64), boot=1)
        self._tuned = 0
        brainstem = partial(self._build, build_brainstem, BRAINSTEM)
        relay = partial(self._build, build_relay, RELAY)
        self.processes = [
            Process("brainstem", {"spinal": FROM_BOARDS, "core": FROM_PARTS}, brainstem, keep=keep),
            Process("relay", {"core": RELAY_TAKES}, relay, keep=keep),
        ]
        self._watch = watch
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._retained: dict[tuple[str, str], Packet] = {}
        for process in self.processes:
            self._start(process)
        for board in self.boards.values():
            board.start(self.true_ms, self.random)
            self._at(board.next_ms(), self._sense(board))
        self._every(self.faults.gate_every_s, self._set_gate)
        self._every(self.faults.crash_every_s, self._crash)
        self._every(self.faults.clock_jump_every_s, self._jump)
        self._every(self.faults.flood_every_s, self._flood)
        self._every(self.faults.reboot_every_s, self._reboot)
        self._every(self.faults.mode_every_s, self._set_mode)
        self._every(self.faults.mode_every_s, self._tune)

    @property
    def clock_ms(self) -> int:
        """What the hub's clock shows."""
        return self.true_ms + self.offset_ms

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end_ms = self.true_ms + round(seconds * 1000)
        tick_ms = self.true_ms + TICK_MS
        while True:
            due_ms = self._queue[0][0] if self._queue else end_ms
            if min(due_ms, tick_ms) >= end_ms:
                self.true_ms = end_ms
                return
            if tick_ms <= due_ms:
                self.true_ms = tick_ms
                tick_ms += TICK_MS
                self._tick()
                continue
            self.true_ms, _, work = heapq.heappop(self._queue)
            work()

    def settle(self, seconds: float = 30) -> None:
        """No more faults and no more samples: let what is under way arrive and end."""
        self.faults = CALM
        self.boards.clear()
        # A clock that was set back has caught up: until then the shell lets time stand still.
        ahead_ms = max(process.now_ms for process in self.processes) - self.clock_ms
        self.offset_ms += max(0, ahead_ms)
        for process in self.processes:
            if not process.alive:
                self._start(process)
        self.run(seconds)

    def _tick(self) -> None:
        for process in self.processes:
            if process.alive:
                step = process.tick(self.clock_ms)
                if step is not None:
                    self._happened(step)

    def _sense(self, board: Board) -> Callable[[], None]:
        def sense() -> None:
            if board.device not in self.boards:
                return
            for sample in board.samples(self.true_ms, self.random):
                self._send(sample)
            self._at(board.next_ms(), sense)

        return sense

    def _send(self, sample: Sample) -> None:
        self.samples += 1
        packet = Packet("spinal", sample.topic, sample.payload)
        self._carry(packet, "afferent", 1 if sample.urgent else 0)

    def _carry(self, packet: Packet, name: str, qos: int) -> None:
        """A broker's way with a message: lost, late, twice, in another order."""
        if packet.retain:
            self._retained[packet.broker, packet.topic] = packet
        for process in self.processes:
            if (packet.broker, name) not in process.takes:
                continue
            if qos == 0 and self._chance(self.faults.drop):
                continue
            copies = 2 if self._chance(self.faults.double) else 1
            for _ in range(copies):
                self._at(self.true_ms + self._delay(), self._arrive(process, packet))

    def _delay(self) -> int:
        if self._chance(self.faults.late):
            return self.random.randrange(self.faults.late_ms)
        return self.random.randrange(self.faults.delay_ms) if self.faults.delay_ms else 0

    def _arrive(self, process: Process, packet: Packet) -> Callable[[], None]:
        incarnation = process.incarnation

        def arrive() -> None:
            # Clean start: what was under way to a dead session is gone.
            if process.alive and process.incarnation == incarnation:
                self._happened(process.take(packet, self.clock_ms))

        return arrive

    def _happened(self, step: Step) -> None:
        self._watch(step)
        for publish in step.sent:
            spec = publish.address.spec
            if any((publish.on, spec.name) in process.takes for process in self.processes):
                packet = Packet(
                    publish.on,  # type: ignore[arg-type]
                    publish.address.topic,
                    encode(publish.message),
                    spec.retained,
                )
                self._carry(packet, spec.name, publish.qos)

    def _set_gate(self) -> None:
        if self._chance(0.1):
            self.gatekeeper.epoch += 1
        superseded = self.gatekeeper.epoch > 1 and self._chance(0.1)
        epoch = self.gatekeeper.epoch - 1 if superseded else None
        publish = self.gatekeeper.gate(self.clock_ms, epoch)
        packet = Packet("core", publish.address.topic, encode(publish.message), retain=True)
        self._carry(packet, "gate_state", 1)

    def _set_mode(self) -> None:
        """Hypothalamus: a mode for a while, of a room or the house."""
        scope = self.random.choice([("house", "home"), ("room", "hall")])
        payload = GlobalModeUpdatePayload(
            mode=self.random.choice(sorted(names("modes"))), reason="because"
        )
        self._say(GlobalModeUpdate, topics.mode(*scope), payload)

    def _tune(self) -> None:
        """A controller: a parameter of the house."""
        self._tuned += 1
        value = self.random.choice([100, 1_000, 5_000])
        payload = ParameterUpdatePayload(
            name="brainstem", value={"window_ms": value}, version=self._tuned
        )
        self._say(ParameterUpdate, topics.global_parameters("house", "home"), payload)

    def _say(self, kind: type[Contract], address: Address, payload: Model) -> None:
        until = timestamp(self.clock_ms + self.random.choice([2_000, 60_000]))
        publish = self._others.full(kind, address, payload, self.clock_ms, expires_at=until)
        packet = Packet("core", address.topic, encode(publish.message), retain=True)
        self._carry(packet, address.spec.name, 1)

    def _crash(self) -> None:
        process = self.random.choice(self.processes)
        if not process.alive:
            return
        self.crashes += 1
        process.kill()
        self._at(self.true_ms + self.random.randrange(200, 5_000), lambda: self._start(process))

    def _start(self, process: Process) -> None:
        if process.alive:
            return
        process.start(self.random.getrandbits(64), self.clock_ms)
        for broker in ("spinal", "core"):
            self._happened(process.connected(broker, self.clock_ms))
        for packet in list(self._retained.values()):
            address = parse(packet.topic)
            if address is not None and (packet.broker, address.spec.name) in process.takes:
                self._happened(process.take(packet, self.clock_ms))

    def _jump(self) -> None:
        self.offset_ms += self.random.choice([-600_000, -5_000, -200, 200, 5_000, 600_000])
        if abs(self.offset_ms) > 3_600_000:
            self.offset_ms = 0

    def _flood(self) -> None:
        if not self.boards:
            return
        board = self.random.choice(list(self.boards.values()))
        for _ in range(300):
            self._send(board.sample(board.sensors[0], self.true_ms, self.random))

    def _reboot(self) -> None:
        if self.boards:
            self.random.choice(list(self.boards.values())).start(self.true_ms, self.random)

    def _every(self, mean_s: float, work: Callable[[], None]) -> None:
        """Again and again, after random waits."""

        def turn() -> None:
            if self.faults is not CALM or work == self._set_gate:
                work()
                self._every(mean_s, work)

        wait_ms = min(round(self.random.expovariate(1 / mean_s) * 1000), 1 << 50)
        self._at(self.true_ms + wait_ms, turn)

    def _at(self, due_ms: int, work: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (due_ms, self._number, work))

    def _chance(self, share: float) -> bool:
        return share > 0 and self.random.random() < share

    def _build(self, build: Callable[..., Machine], settings: Any, origin: Origin) -> Machine:
        return build(settings, origin, scope_of)
