"""What happens in the demo's house, as tasks that run until they are cancelled."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from nervus.demo.house import BOARDS, ENTRANCE, HALLWAY, KITCHEN, Board, adc, loudness
from nervus.demo.intruder import Intruder
from nervus.demo.parts import Clock, Consumer, Hypothalamus, Modulator
from nervus.demo.tally import Tally
from nervus.simulator import VirtualBoard

DAY_S: Final = 16.0
"""A simulated day."""

MOTION_S: Final = 0.4
"""Somebody passes the sensor, and is gone again."""

GLASS_BREAKS: Final = 15
"""Tenths of a second into each turn of the kitchen's sounds."""

FULL_DUTY: Final = 65_535

_COMMANDS: Final = (
    (KITCHEN, "light", "actuator.set", {"value": 0.6}),
    (ENTRANCE, "buzzer", "actuator.pulse", {"pulse_ms": 150}),
    (KITCHEN, "light", "actuator.set", {"value": 0.2}),
    (ENTRANCE, "buzzer", "actuator.pulse", {"pulse_ms": 80}),
    (KITCHEN, "light", "actuator.set", {"value": 1.0}),
    (ENTRANCE, "bolt", "actuator.set", {"value": False}),
)


@dataclass(frozen=True, slots=True)
class Cast:
    """The parts that act."""

    consumer: Consumer
    modulator: Modulator
    hypothalamus: Hypothalamus
    intruder: Intruder


class Script:
    """Drives inputs, asks for actions and attention, cuts power, lets the intruder in."""

    def __init__(
        self,
        boards: Mapping[str, VirtualBoard],
        cast: Cast,
        tally: Tally,
        clock: Clock,
    ) -> None:
        self._boards = boards
        self._cast = cast
        self._tally = tally
        self._clock = clock
        self._set_ns: dict[str, int] = {}

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        """Play all parts of the script at once; what fails ends the demo."""
        async with asyncio.TaskGroup() as group:
            scenes = [
                group.create_task(scene(), name=scene.__name__)
                for scene in (
                    self._day, self._motion, self._door, self._commands, self._repeats,
                    self._attention, self._sound, self._power_cut, self._mischief,
                )
            ]  # fmt: skip
            scenes += [
                group.create_task(self._watch_outputs(board), name=board.device_id)
                for board in BOARDS
            ]
            try:
                yield
            finally:
                for scene in scenes:
                    scene.cancel()

    async def _day(self) -> None:
        kitchen = self._boards[KITCHEN.device_id]
        while True:
            celsius = 24 - 6 * math.cos(2 * math.pi * self._clock.seconds() / DAY_S)
            kitchen.set_adc(KITCHEN.pin("temperature"), adc(celsius))
            await asyncio.sleep(0.1)

    async def _motion(self) -> None:
        present = False
        while True:
            present = not present
            self._edge(HALLWAY, "motion", value=present)
            await asyncio.sleep(MOTION_S)

    async def _door(self) -> None:
        while True:
            await asyncio.sleep(3.0)
            self._edge(ENTRANCE, "door", value=True)
            self._say("the front door opens")
            await asyncio.sleep(2.0)
            self._edge(ENTRANCE, "door", value=False)

    async def _commands(self) -> None:
        while True:
            for board, actuator, capability, arguments in _COMMANDS:
                await self._cast.consumer.request(
                    board.room, board.device_id, actuator, capability, arguments
                )
                await asyncio.sleep(0.3)

    async def _repeats(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            await self._cast.consumer.repeat_unanswered()

    async def _attention(self) -> None:
        room = KITCHEN.room
        while True:
            await asyncio.sleep(0.5)
            self._say("[magenta]a modulator: no somatic from the kitchen → shut[/]")
            await self._cast.modulator.shut(room, "somatic", 2500)
            await asyncio.sleep(2.5)
            self._say("[magenta]nobody renews it: it expires, content flows[/]")
            await asyncio.sleep(1.5)
            self._say("[magenta]a modulator: less of it → merged, thinned, fading[/]")
            await self._cast.modulator.suppress(room, "somatic", 0.95, 2500)
            await asyncio.sleep(2.5)
            self._say("[magenta]night in the kitchen: the winner takes all[/]")
            await self._cast.hypothalamus.set_mode(room, "night", 4000)
            await asyncio.sleep(5.0)

    async def _sound(self) -> None:
        kitchen, pin = self._boards[KITCHEN.device_id], KITCHEN.pin("sound_level")
        while True:
            for tenth in range(90):
                if tenth == GLASS_BREAKS:
                    self._say("[red]glass breaks in the kitchen: an alert, and it fades[/]")
                breaks = GLASS_BREAKS <= tenth < GLASS_BREAKS + 4
                decibels = 45 + 10 * math.sin(tenth) + (50 if breaks else 0)
                kitchen.set_adc(pin, loudness(decibels))
                await asyncio.sleep(0.1)

    async def _power_cut(self) -> None:
        while True:
            await asyncio.sleep(11.0)
            self._say("[yellow]entrance-1 loses its power and comes back with its reflex[/]")
            self._boards[ENTRANCE.device_id].kill()

    async def _mischief(self) -> None:
        while True:
            await asyncio.sleep(1.5)
            await self._cast.intruder.misbehave()

    async def _watch_outputs(self, board: Board) -> None:
        name = board.device_id
        actuators = {each["pin"]: each["id"] for each in board.actuators}
        with self._boards[name].outputs() as outputs:
            async for output in outputs:
                actuator = actuators[output.number]
                value = output.value / FULL_DUTY if output.kind == "pwm" else output.value
                self._tally.boards[name].outputs[actuator] = value
                if actuator == "lamp" and name in self._set_ns:
                    self._tally.reflex_ms.add((output.at_ns - self._set_ns.pop(name)) / 1e6)
                elif actuator in ("fan", "buzzer") and value:
                    self._say(f"[green]{name}: {actuator} on[/]")

    def _edge(self, board: Board, sensor: str, *, value: bool) -> None:
        now_ns = time.time_ns()
        if sensor == "motion":
            self._set_ns[board.device_id] = now_ns
        self._cast.consumer.expect(board.device_id, sensor, value=value, set_ns=now_ns)
        self._boards[board.device_id].set_pin(board.pin(sensor), int(value))

    def _say(self, text: str) -> None:
        self._tally.tell(self._clock.seconds(), text)
