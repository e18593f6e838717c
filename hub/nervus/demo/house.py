"""The simulated house: its boards, their reflexes, and who may command what.

Data only. A board is described by the node.json it would get at flashing; a reflex by the
ReflexConfigure payload that the hub keeps for it.
"""

from dataclasses import dataclass
from typing import Any, Final

ADC_FULL_SCALE: Final = 65_535
COLDEST, HOTTEST = 0.0, 50.0
LOUDEST = 120.0


@dataclass(frozen=True, slots=True)
class Board:
    """One board: where it stands, what is wired to it, what it does by itself."""

    device_id: str
    room: str
    sensors: tuple[dict[str, Any], ...]
    actuators: tuple[dict[str, Any], ...]
    reflexes: tuple[dict[str, Any], ...] = ()

    @property
    def scope(self) -> str:
        """The granted scope, `room/...`."""
        return f"room/{self.room}"

    def node(self, host: str, port: int) -> dict[str, Any]:
        """The node.json of this board for a broker."""
        return {
            "device_id": self.device_id,
            "scope_level": "room",
            "scope": self.room,
            "broker": {"host": host, "port": port},
            "keepalive_s": 10,
            "ping_s": 2,
            "sensors": list(self.sensors),
            "actuators": list(self.actuators),
        }

    def pin(self, part: str) -> int:
        """The pin of a sensor or an actuator."""
        pins = {each["id"]: each["pin"] for each in (*self.sensors, *self.actuators)}
        number: int = pins[part]
        return number


def thermometer(pin: int) -> dict[str, Any]:
    """An analog thermometer from 0 to 50 °C."""
    return {
        "id": "temperature", "driver": "analog", "pin": pin, "unit": "Cel",
        "scale": (HOTTEST - COLDEST) / ADC_FULL_SCALE, "offset": COLDEST,
        "period_ms": 100, "deadband": 0.1, "min_interval_ms": 200, "max_interval_ms": 5000,
    }  # fmt: skip


def microphone(pin: int) -> dict[str, Any]:
    """An analog sound level meter from 0 to 120 dB."""
    return {
        "id": "sound_level", "driver": "analog", "pin": pin, "unit": "dB",
        "scale": LOUDEST / ADC_FULL_SCALE, "offset": 0,
        "period_ms": 100, "deadband": 1, "min_interval_ms": 200, "max_interval_ms": 5000,
    }  # fmt: skip


def contact(name: str, pin: int) -> dict[str, Any]:
    """A digital input that reports every edge at once."""
    return {
        "id": name, "driver": "digital", "pin": pin,
        "period_ms": 10, "max_interval_ms": 5000, "urgent": {"change": True},
    }  # fmt: skip


def switch(name: str, pin: int) -> dict[str, Any]:
    """A relay, off at boot, never on for more than a minute."""
    return {"id": name, "driver": "digital", "pin": pin, "boot": 0, "max_on_ms": 60_000}


KITCHEN: Final = Board(
    "kitchen-1",
    "kitchen",
    sensors=(thermometer(26), microphone(27)),
    actuators=(switch("fan", 2), {"id": "light", "driver": "pwm", "pin": 3, "boot": 0}),
    reflexes=(
        {
            "reflex_id": "fan_on_heat", "version": 1, "enabled": True, "mode": "active",
            "when": {"sensor": "temperature", "op": "gt", "value": 26, "hysteresis": 1},
            "then": [{"actuator": "fan", "set": True}],
            "else": [{"actuator": "fan", "set": False}],
        },
    ),
)  # fmt: skip

HALLWAY: Final = Board(
    "hallway-1",
    "hallway",
    sensors=(contact("motion", 4),),
    actuators=(switch("lamp", 2),),
    reflexes=(
        {
            "reflex_id": "lamp_on_motion", "version": 1, "enabled": True, "mode": "active",
            "when": {"sensor": "motion", "op": "eq", "value": True},
            "then": [{"actuator": "lamp", "set": True}],
            "else": [{"actuator": "lamp", "set": False}],
        },
    ),
)  # fmt: skip

ENTRANCE: Final = Board(
    "entrance-1",
    "entrance",
    sensors=(contact("door", 5),),
    actuators=(switch("buzzer", 2), switch("bolt", 6)),
    reflexes=(
        {
            "reflex_id": "buzz_on_open_door", "version": 1, "enabled": True, "mode": "active",
            "when": {"sensor": "door", "op": "eq", "value": True, "for_ms": 1000},
            "then": [{"actuator": "buzzer", "pulse_ms": 300}],
        },
    ),
)  # fmt: skip

BOARDS: Final = (KITCHEN, HALLWAY, ENTRANCE)

INTRUDER: Final = "intruder"
"""A board with a valid certificate and bad manners: it has its own scope and nothing else."""

INTRUDER_SCOPE: Final = "room/shed"

SETTINGS: Final = """
# Short enough to watch them fade and expire, and what the demo's modes ask.
[brainstem]
alert_half_life_ms = 3000
arousal_half_life_ms = 5000

[thalamus.gates]
gate_ms = 3000

[[thalamus.gates.modes.night]]
target_kind = "topic_prefix"
target_id = "/bs/relay"
intent = "set_inhibition"
inhibition = 0
gate_mode = "winner_take_all"
"""

POLICY: Final = """\
# What the demo's consumer may do; whatever is not allowed here is denied.

[[rule]]
id = "light-up-to-80-percent"
principals = ["demo"]
capabilities = ["actuator.set"]
targets = ["kitchen-1/light"]
effect = "allow"
reason = "the dimmer runs hot above 80 %"
[rule.limits.value]
max = 0.8

[[rule]]
id = "short-buzz"
principals = ["demo"]
capabilities = ["actuator.pulse"]
targets = ["entrance-1/buzzer"]
effect = "allow"
reason = "a short sound disturbs nobody"
[rule.limits.pulse_ms]
max = 500
"""


def adc(celsius: float) -> int:
    """The analog input that the thermometer reads as this temperature."""
    return _full_scale((celsius - COLDEST) / (HOTTEST - COLDEST))


def loudness(decibels: float) -> int:
    """The analog input that the microphone reads as this sound level."""
    return _full_scale(decibels / LOUDEST)


def _full_scale(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * ADC_FULL_SCALE)
