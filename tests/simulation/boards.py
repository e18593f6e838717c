"""The boards of a simulated house: what they sense, byte for byte as firmware sends it."""

import math
from random import Random
from typing import Final, NamedTuple

from nervus.wire import topics

_PERIODS: Final = {
    "temperature": 1_000, "humidity": 1_000, "illuminance": 500, "motion": 500,
    "sound_level": 250, "door": 2_000, "supply_voltage": 2_000,
}  # fmt: skip
_BOOLEAN: Final = {"motion", "door"}
_OPEN: Final = 0.3
_BAD: Final = 0.01
_TEXT: Final = (
    '{"meta":{"message_id":"%%s","schema_version":"v1","contract":"AfferentSignal",'
    '"message_type":"AfferentSignal","source":"device:%(device)s","boot":%%d,"seq":%%d,'
    '"ttl_ms":10000,"t_ms":%%d,"clk":"%(clock)s"%%s},'
    '"payload":{"sensor_type":"%(sensor)s","value":%%s%%s}}'
)
_SYNC_MS: Final = 10_000
"""How often a board asks the hub for the time."""


class Sample(NamedTuple):
    """A message of a board: where, what, and whether it is urgent."""

    topic: str
    payload: bytes
    urgent: bool


class Board:
    """A board with some sensors, in a room; `clock` is hub or none, as on the wire."""

    def __init__(self, device: str, room: str, sensors: tuple[str, ...], clock: str) -> None:
        self.device = device
        self.sensors = sensors
        self.next_ms = 0
        """When it next senses something."""
        self._clock = clock
        self._number = int(device[1:])
        self._boot = 1
        self._born_ms = 0
        self._seq = 0
        self._due: dict[str, int] = {}
        self._synced_ms = 0
        self._offset_ms = 0
        self._topics = {s: topics.afferent("room", room, s, device).topic for s in sensors}
        self._texts = {s: _TEXT % {"device": device, "clock": clock, "sensor": s} for s in sensors}

    def start(self, now_ms: int, random: Random) -> None:
        """Boot: a new number, counters from 0."""
        self._boot += 1
        self._born_ms = now_ms
        self._synced_ms = 0
        self._seq = 0
        self._due = {name: now_ms + random.randrange(_PERIODS[name]) for name in self.sensors}
        self.next_ms = min(self._due.values())

    def samples(self, now_ms: int, offset_ms: int, random: Random) -> list[Sample]:
        """What is due now; `offset_ms` is how far the hub's clock is ahead, to be asked for."""
        found = []
        for name, due_ms in self._due.items():
            if due_ms <= now_ms:
                self._due[name] = now_ms + _PERIODS[name]
                found.append(self.sample(name, now_ms, offset_ms, random))
        self.next_ms = min(self._due.values())
        return found

    def sample(self, sensor: str, now_ms: int, offset_ms: int, random: Random) -> Sample:
        """One measurement; a door that opens is critical, one in a hundred is of bad quality."""
        urgent = False
        if sensor in _BOOLEAN:
            open_ = random.random() < _OPEN
            value, urgent = ("true" if open_ else "false"), sensor == "door" and open_
        else:
            value = f"{20 + 5 * math.sin(now_ms / 60_000 + self._number) + random.random():.3f}"
        if self._clock == "none":
            t_ms = now_ms - self._born_ms
        else:
            if now_ms >= self._synced_ms + _SYNC_MS:
                self._synced_ms, self._offset_ms = now_ms, offset_ms
            t_ms = now_ms + self._offset_ms
        seq = self._seq = self._seq + 1
        # Unique by time, board, boot and number; digits are letters of a ULID.
        unique = f"0{now_ms:013}{self._number:04}{self._boot % 1_000:03}{seq % 100_000:05}"
        text = self._texts[sensor] % (
            unique, self._boot, seq, t_ms, ',"priority":"critical"' if urgent else "",
            value, ',"quality":"bad"' if random.random() < _BAD else "",
        )  # fmt: skip
        return Sample(self._topics[sensor], text.encode(), urgent)


def house(count: int) -> list[Board]:
    """Boards in three rooms, two sensors each, every seventh without a clock."""
    names = tuple(_PERIODS)
    rooms = ("kitchen", "hall", "bath")
    return [
        Board(
            f"b{n}", rooms[n % 3], (names[n % 7], names[(n + 3) % 7]),
            "none" if n % 7 == 6 else "hub",
        )
        for n in range(count)
    ]  # fmt: skip
