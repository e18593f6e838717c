"""A house in simulated time: boards, two brokers that misbehave, planes that die, a slow store."""

import heapq
import sqlite3
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from random import Random
from typing import Any, Final

from pydantic import BaseModel

from nervus.brainstem import BrainstemSettings
from nervus.brainstem import build as build_brainstem
from nervus.brainstem.machine import FROM_PARTS
from nervus.brainstem.machine import TAKES as FROM_BOARDS
from nervus.brainstem.settings import WindowShape
from nervus.bus import Machine, Origin
from nervus.bus.clock import CLOCK_BACK_MS, LONGEST_MS
from nervus.thalamus import Claim, GatesSettings, Leases, ThalamusSettings, build_gatekeeper
from nervus.thalamus import build as build_relay
from nervus.thalamus.lease_store import SCHEMA, claim
from nervus.thalamus.machine import GATEKEEPER_TAKES
from nervus.thalamus.machine import TAKES as RELAY_TAKES
from nervus.thalamus.settings import StandingGate
from nervus.wire import Connected, Packet, Publish
from nervus.wire.topic import TopicSpec
from nervus.wire.topic_parser import parse
from simulation.boards import Board, Sample, house
from simulation.parts import Others
from simulation.process import Part, Process, Step

START_MS: Final = 1_790_000_000_000


@dataclass(frozen=True)
class Faults:
    """How much goes wrong: chances for each message or commit, and mean times between faults.

    `gate_every_s`, `mode_every_s` and `trigger_every_s` are no faults, but what parts say.
    """

    drop: float = 0.02
    double: float = 0.02
    delay_ms: int = 40
    late: float = 0.01
    late_ms: int = 3_000
    commit_ms: int = 20
    stall: float = 0.02
    stall_ms: int = 9_000
    crash_every_s: float = 40
    break_every_s: float = 60
    clock_jump_every_s: float = 90
    flood_every_s: float = 30
    reboot_every_s: float = 60
    gate_every_s: float = 4
    mode_every_s: float = 10
    trigger_every_s: float = 20

    @cached_property
    def perfect(self) -> bool:
        """Whether brokers carry all at once, and nothing twice."""
        return not (self.drop or self.double or self.delay_ms or self.late)


_NEVER: Final = 1e12
CALM: Final = Faults(
    drop=0, double=0, delay_ms=0, late=0, commit_ms=0, stall=0, crash_every_s=_NEVER,
    break_every_s=_NEVER, clock_jump_every_s=_NEVER, flood_every_s=_NEVER, reboot_every_s=_NEVER,
    gate_every_s=10, mode_every_s=_NEVER, trigger_every_s=_NEVER,
)  # fmt: skip


Settings = Mapping[str, BaseModel]
"""Of each plane, by its name."""


def settings(brainstem: BrainstemSettings, thalamus: ThalamusSettings) -> Settings:
    """What a house is built from."""
    return {"brainstem": brainstem, "relay": thalamus, "gatekeeper": thalamus}


PLAIN: Final = settings(BrainstemSettings(), ThalamusSettings())
"""A house that nobody has configured."""

LIVELY: Final = settings(
    BrainstemSettings(
        channels={"auditory": WindowShape(window_ms=300)}, urgent_rate=0.1, urgent_burst=2
    ),
    ThalamusSettings(
        gates=GatesSettings(
            standbys=1,
            standing=(
                StandingGate(
                    scope="room/hall", target_kind="topic_prefix",
                    target_id="/bs/relay/event/room/hall", mode="winner_take_all",
                ),
                StandingGate(
                    scope="room/kitchen", target_kind="channel", target_id="auditory", base=0.85,
                ),
                StandingGate(
                    scope="room/bath", target_kind="nucleus", target_id="VPM", base=0.9,
                    mode="passthrough",
                ),
            ),
        ),
    ),
)  # fmt: skip
"""Channels compete in the hall, sounds of the kitchen are merged, the bath's gate lets all pass.

Doors open more often than their boards may tell at once.
"""


@cache
def scope_of(device_id: str) -> str:
    """What a board was granted."""
    return f"room/{('kitchen', 'hall', 'bath')[int(device_id[1:]) % 3]}"


class World:
    """Everything between a sensor and a consumer, driven by one seed.

    Args:
        seed: Decides every fault and every value.
        faults: How much goes wrong.
        watch: Called after each step of a plane.
        settings: What planes are built from; it says how many gatekeepers there are.
        boards: How many boards there are.
        keep: Whether planes keep their inputs and outputs.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        watch: Callable[[Step], None] = lambda _: None,
        *,
        settings: Settings = LIVELY,
        boards: int = 10,
        keep: bool = True,
    ) -> None:
        self.random = Random(seed)  # noqa: S311  nothing is secret here
        self.faults = faults or Faults()
        self.true_ms = START_MS
        self.offset_ms = 0
        self.samples = 0
        self.crashes = 0
        self.breaks = 0
        self.boards = {board.device: board for board in house(boards)}
        self.known = tuple(self.boards)
        self.processes = [Process(part, keep=keep) for part in _parts(settings)]
        self._others = Others(self.random)
        self._watch = watch
        self._settling = False
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ready: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._number = 0
        self._tick_ms = START_MS
        self._takers: dict[tuple[str, str], list[Process]] = defaultdict(list)
        for process in self.processes:
            for taken in process.takes:
                self._takers[taken].append(process)
        self._retained: dict[tuple[str, str], tuple[Packet, int]] = {}
        self._asked: dict[str, list[Claim]] = defaultdict(list)
        self._store = sqlite3.connect(":memory:", isolation_level=None)
        self._store.executescript(SCHEMA)
        self._at(START_MS, self._begin)

    def _begin(self) -> None:
        for process in self.processes:
            self._start(process)
        for board in self.boards.values():
            board.start(self.true_ms, self.random)
            self._at(board.next_ms, self._sense, board)
        faults, others = self.faults, self._others
        self._every(faults.gate_every_s, partial(self._say, others.proposal))
        self._every(faults.mode_every_s, partial(self._say, others.mode))
        self._every(faults.mode_every_s, partial(self._say, others.parameter))
        self._every(faults.trigger_every_s, partial(self._say, others.trigger))
        self._every(faults.crash_every_s, self._crash)
        self._every(faults.break_every_s, self._break)
        self._every(faults.clock_jump_every_s, self._jump)
        self._every(faults.flood_every_s, self._flood)
        self._every(faults.reboot_every_s, self._reboot)

    @property
    def clock_ms(self) -> int:
        """What the hub's clock shows."""
        return self.true_ms + self.offset_ms

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end_ms = self.true_ms + round(seconds * 1000)
        queue, ready = self._queue, self._ready
        while True:
            while ready:
                work, arguments = ready.popleft()
                work(*arguments)
            due_ms = queue[0][0] if queue else end_ms
            if due_ms < self._tick_ms and due_ms < end_ms:
                self.true_ms, _, work, arguments = heapq.heappop(queue)
                work(*arguments)
            elif self._tick_ms < end_ms:
                self.true_ms = max(self.true_ms, self._tick_ms)
                self._tick()
            else:
                self.true_ms = end_ms
                return

    def settle(self, seconds: float = 30) -> None:
        """No more faults and no more samples: let what is under way arrive and end."""
        self.faults = CALM
        self._settling = True
        self.boards.clear()
        # Within the shell's patience a core's time stands still until the clock has caught up.
        ahead_ms = max(process.now_ms for process in self.processes) - self.clock_ms
        self.offset_ms += max(0, ahead_ms)
        for process in self.processes:
            self._start(process)
        self.run(seconds)

    def _tick(self) -> None:
        """Tick whatever is due, and look at the clock, as shells do."""
        clock_ms = self.clock_ms
        self._tick_ms = self.true_ms + LONGEST_MS
        for process in self.processes:
            if not process.alive:
                continue
            if process.now_ms - clock_ms > CLOCK_BACK_MS:
                # As the shell: whoever supervises it starts it anew, in the new time.
                self._end(process)
                continue
            step = process.tick(clock_ms)
            if step is not None:
                self._happened(step)
            self._tick_ms = min(self._tick_ms, process.due_ms - self.offset_ms)

    # ---- boards and parts that are not ours ----

    def _sense(self, board: Board) -> None:
        if board.device not in self.boards:
            return
        for sample in board.samples(self.true_ms, self.offset_ms, self.random):
            self._send(sample)
        self._at(board.next_ms, self._sense, board)

    def _send(self, sample: Sample) -> None:
        self.samples += 1
        topic, payload, urgent = sample
        self._carry(Packet("spinal", topic, payload), "afferent", int(urgent))

    def _say(self, speak: Callable[[int], Publish]) -> None:
        self._to_broker(speak(self.clock_ms))

    # ---- brokers ----

    def _to_broker(self, publish: Publish) -> None:
        address = publish.address
        spec, broker = address.spec, publish.on
        if (broker, spec.name) not in self._takers:
            return
        packet = Packet(broker, address.topic, publish.data, spec.retained)  # type: ignore[arg-type]
        if spec.retained:
            until_ms = self.true_ms + (publish.expiry_ms or _FOREVER_MS)
            self._retained[broker, address.topic] = packet, until_ms
        self._carry(packet, spec.name, publish.qos)

    def _carry(self, packet: Packet, name: str, qos: int) -> None:
        """A broker's way with a message: lost, late, twice, in another order."""
        faults = self.faults
        for process in self._takers[packet.broker, name]:
            if faults.perfect:
                arguments = process, process.incarnation, self.breaks, packet
                self._ready.append((self._arrive, arguments))
                continue
            if qos == 0 and self._chance(faults.drop):
                continue
            for _ in range(2 if self._chance(faults.double) else 1):
                arguments = process, process.incarnation, self.breaks, packet
                self._at(self.true_ms + self._delay(), self._arrive, *arguments)

    def _delay(self) -> int:
        if self._chance(self.faults.late):
            return self.random.randrange(self.faults.late_ms)
        return self.random.randrange(self.faults.delay_ms) if self.faults.delay_ms else 0

    def _arrive(self, process: Process, incarnation: int, breaks: int, packet: Packet) -> None:
        # Clean start: what was under way to a dead session is gone, and what a dead broker had.
        alive = process.alive and process.incarnation == incarnation
        if alive and (packet.broker == "spinal" or breaks == self.breaks):
            self._happened(process.take(packet, self.clock_ms))

    # ---- planes ----

    def _happened(self, step: Step) -> None:
        self._watch(step)
        process = step.process
        # As the shell: what a step made due is not waited for longer, the rest is looked at then.
        due_ms = process.machine.core.due_ms - self.offset_ms
        self._tick_ms = min(self._tick_ms, due_ms)
        if step.claims:
            self._commit(process, step.claims)
        for publish in step.sent:
            if process.committed_ms > self.true_ms:
                arguments = process, process.incarnation, publish
                self._at(process.committed_ms, self._publish_committed, *arguments)
            else:
                self._to_broker(publish)

    def _publish_committed(self, process: Process, incarnation: int, publish: Publish) -> None:
        if process.alive and process.incarnation == incarnation:
            self._to_broker(publish)

    def _commit(self, process: Process, claims: Sequence[Claim]) -> None:
        """A store's way with a commit: in its order, at once or after a while."""
        faults = self.faults
        took_ms = self.random.randrange(faults.commit_ms) if faults.commit_ms else 0
        if self._chance(faults.stall):
            took_ms = self.random.randrange(faults.stall_ms)
        at_ms = process.committed_ms = max(self.true_ms + took_ms, process.committed_ms)
        self._asked[process.name] += claims
        self._at(at_ms, self._answer, process, process.incarnation, claims)

    def _answer(self, process: Process, incarnation: int, claims: Sequence[Claim]) -> None:
        if not process.alive or process.incarnation != incarnation:
            return
        for wanted in claims:
            self._asked[process.name].remove(wanted)
            leases: Leases = claim(self._store, wanted)
            self._happened(process.offer(leases, self.clock_ms))

    def _start(self, process: Process) -> None:
        if process.alive:
            return
        process.start(self.random.getrandbits(64), self.clock_ms)
        for broker in sorted({broker for broker, _ in process.takes}):
            self._connect(process, broker)

    def _connect(self, process: Process, broker: str) -> None:
        self._happened(process.offer(Connected(broker), self.clock_ms))  # type: ignore[arg-type]
        for (where, topic), (packet, until_ms) in list(self._retained.items()):
            address = parse(topic)
            assert address is not None
            if where == broker and (broker, address.spec.name) in process.takes:
                if until_ms > self.true_ms:
                    self._happened(process.take(packet, self.clock_ms))
                else:
                    del self._retained[where, topic]

    def _end(self, process: Process) -> None:
        self.crashes += 1
        process.kill()
        for wanted in self._asked.pop(process.name, ()):
            if self._chance(0.5):
                # It was written, but nobody lived to be told.
                claim(self._store, wanted)
        self._at(self.true_ms + self.random.randrange(200, 5_000), self._start, process)

    # ---- faults ----

    def _crash(self) -> None:
        process = self.random.choice(self.processes)
        if process.alive:
            self._end(process)

    def _break(self) -> None:
        """The core broker dies; the next has none of its states, and nothing that was under way."""
        self.breaks += 1
        for key in [key for key in self._retained if key[0] == "core"]:
            del self._retained[key]
        for process in self.processes:
            if process.alive:
                self._connect(process, "core")

    def _jump(self) -> None:
        self.offset_ms += self.random.choice([-600_000, -5_000, -200, 200, 5_000, 600_000])
        if abs(self.offset_ms) > 3_600_000:
            self.offset_ms = 0

    def _flood(self) -> None:
        board = self.random.choice(list(self.boards.values()))
        for _ in range(300):
            sample = board.sample(board.sensors[0], self.true_ms, self.offset_ms, self.random)
            self._send(sample)

    def _reboot(self) -> None:
        self.random.choice(list(self.boards.values())).start(self.true_ms, self.random)

    # ---- time ----

    def _every(self, mean_s: float, work: Callable[[], None]) -> None:
        """Again and again, after random waits, until it settles."""
        wait_ms = min(round(self.random.expovariate(1 / mean_s) * 1000), 1 << 50)
        self._at(self.true_ms + wait_ms, self._turn, mean_s, work)

    def _turn(self, mean_s: float, work: Callable[[], None]) -> None:
        if not self._settling:
            work()
            self._every(mean_s, work)

    def _at(self, due_ms: int, work: Callable[..., None], *arguments: Any) -> None:
        if due_ms <= self.true_ms:
            self._ready.append((work, arguments))
            return
        self._number += 1
        heapq.heappush(self._queue, (due_ms, self._number, work, arguments))

    def _chance(self, share: float) -> bool:
        return share > 0 and self.random.random() < share


_FOREVER_MS: Final = 1 << 50


def _parts(settings: Settings) -> list[Part]:
    thalamus = settings["gatekeeper"]
    assert isinstance(thalamus, ThalamusSettings)
    takes: Mapping[str, Mapping[str, Sequence[TopicSpec]]] = {
        "brainstem": {"spinal": FROM_BOARDS, "core": FROM_PARTS},
        "relay": {"core": RELAY_TAKES},
        "gatekeeper": {"core": GATEKEEPER_TAKES},
    }
    builders: Mapping[str, Callable[..., Machine]] = {
        "brainstem": build_brainstem, "relay": build_relay, "gatekeeper": build_gatekeeper,
    }  # fmt: skip
    return [
        Part(plane, takes[plane], partial(_build, build, settings[plane]), number)
        for plane, build in builders.items()
        for number in range(1 + thalamus.gates.standbys if plane == "gatekeeper" else 1)
    ]


def _build(build: Callable[..., Machine], settings: Any, origin: Origin) -> Machine:
    return build(settings, origin, scope_of)
