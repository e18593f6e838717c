"""The boards of a simulated house: what they sense, byte for byte as firmware sends it."""

import math
from dataclasses import dataclass, field
from random import Random
from typing import Final

from nervus.wire import topics

_PERIODS: Final = {
    "temperature": 1_000, "humidity": 1_000, "illuminance": 500, "motion": 500,
    "sound_level": 250, "door": 2_000, "supply_voltage": 2_000,
}  # fmt: skip
_BOOLEAN: Final = {"motion", "door"}
_TEXT: Final = (
    '{{"meta":{{"message_id":"{id}","schema_version":"v1","contract":"AfferentSignal",'
    '"message_type":"AfferentSignal","source":"device:{device}","boot":{boot},"seq":{seq},'
    '"ttl_ms":{ttl},"t_ms":{t},"clk":"{clk}"{more}}},'
    '"payload":{{"sensor_type":"{sensor}","value":{value}{quality}}}}}'
)
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Sample:
    """A message of a board: where, what, and whether it is urgent."""

    topic: str
    payload: bytes
    urgent: bool


@dataclass(slots=True)
class Board:
    """A board with some sensors; `clock` is hub or none, as on the wire."""

    device: str
    room: str
    sensors: tuple[str, ...]
    clock: str = "hub"
    boot: int = 1
    born_ms: int = 0
    _seq: int = 0
    _due: dict[str, int] = field(default_factory=dict)

    def next_ms(self) -> int:
        """When it next senses something."""
        return min(self._due.values())

    def start(self, now_ms: int, random: Random) -> None:
        """Boot: a new number, counters from 0."""
        self.boot += 1
        self.born_ms = now_ms
        self._seq = 0
        self._due = {name: now_ms + random.randrange(_PERIODS[name]) for name in self.sensors}

    def samples(self, now_ms: int, random: Random) -> list[Sample]:
        """What is due now."""
        due = [name for name, at in self._due.items() if at <= now_ms]
        for name in due:
            self._due[name] = now_ms + _PERIODS[name]
        return [self.sample(name, now_ms, random) for name in due]

    def sample(self, sensor: str, now_ms: int, random: Random) -> Sample:
        """One measurement; a door that opens is critical, one in a hundred is of bad quality."""
        if sensor in _BOOLEAN:
            open_ = random.random() < 0.3
            value, urgent = ("true" if open_ else "false"), sensor == "door" and open_
        else:
            slow = math.sin(now_ms / 60_000 + len(self.device))
            value, urgent = f"{20 + 5 * slow + random.random():.3f}", False
        quality = random.random()
        self._seq += 1
        text = _TEXT.format(
            id=_ulid(self.boot, self.device, self._seq, now_ms),
            device=self.device,
            boot=self.boot,
            seq=self._seq,
            ttl=10_000,
            t=now_ms if self.clock == "hub" else now_ms - self.born_ms,
            clk=self.clock,
            more=',"priority":"critical"' if urgent else "",
            sensor=sensor,
            value=value,
            quality=',"quality":"bad"' if quality < 0.01 else "",
        )
        topic = topics.afferent("room", self.room, sensor, self.device).topic
        return Sample(topic, text.encode(), urgent)


def house(count: int) -> list[Board]:
    """Boards in three rooms, two sensors each, every seventh without a clock."""
    names = tuple(_PERIODS)
    rooms = ("kitchen", "hall", "bath")
    return [
        Board(
            f"b{n}",
            rooms[n % 3],
            (names[n % 7], names[(n + 3) % 7]),
            "none" if n % 7 == 6 else "hub",
        )
        for n in range(count)
    ]


def _ulid(boot: int, device: str, seq: int, now_ms: int) -> str:
    # Unique by board, boot and number; the first character of a ULID is below 8.
    number = int(device[1:])
    text = []
    value = (now_ms << 32) | ((boot & 0xFFF) << 20) | (number & 0xFFF) << 8 | (seq & 0xFF)
    for _ in range(25):
        text.append(_CROCKFORD[value & 31])
        value >>= 5
    return "0" + "".join(reversed(text))
