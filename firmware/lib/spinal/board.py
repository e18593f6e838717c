"""The pins of this board: sensors read, actuators driven, and the one place that waits."""

import select

import machine
import network

from spinal.compat import random_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EDGES = 8
_IRQ_SLICE_MS = 2
_FULL = 65535


class Sensor:
    """One input. `read()` gives a bool (digital) or a number (analog, scaled)."""

    def __init__(self, config: dict, on_edge: "Any") -> None:
        self.id = config["id"]
        self.period_ms = config["period_ms"]
        self.edges: list[int] = []
        self.digital = config["driver"] == "digital"
        self._invert = config["invert"]
        if self.digital:
            self._level = -1
            pulls = {"up": machine.Pin.PULL_UP, "down": machine.Pin.PULL_DOWN}
            self._pin = machine.Pin(config["pin"], machine.Pin.IN, pulls.get(config["pull"]))  # type: ignore[arg-type] # None is taken, too
            self._wake = on_edge
            self._pin.irq(self._on_edge, machine.Pin.IRQ_RISING | machine.Pin.IRQ_FALLING)
        else:
            self._scale = config["scale"]
            self._offset = config["offset"]
            self._adc = machine.ADC(machine.Pin(config["pin"]))

    def read(self) -> object:
        """The value now; raises OSError when the hardware gives none.

        A digital input gives the levels it went through first, oldest first, one for each call.
        """
        if self.digital:
            level = self.edges.pop(0) if self.edges else self._pin.value()
            self._level = level
            return bool(level) != self._invert
        return self._adc.read_u16() * self._scale + self._offset

    def moved(self) -> bool:
        """Whether a digital input has moved since it was read, or stands elsewhere."""
        # Asked in every turn: ports lose interrupts when many come at once.
        return bool(self.edges) or self._pin.value() != self._level

    def _on_edge(self, pin: "Any") -> None:
        # A pulse that comes and goes while the loop does something else is not missed. A contact
        # that bounces longer than this is read as it stands when the loop comes to it.
        if len(self.edges) < _EDGES:
            self.edges.append(pin.value())
        self._wake()


class Actuator:
    """One output, in its boot state from the moment it exists."""

    def __init__(self, config: dict) -> None:
        self.id = config["id"]
        self._invert = config["invert"]
        level = self._level(config["boot"])
        if config["driver"] == "digital":
            self._drive = machine.Pin(config["pin"], machine.Pin.OUT, value=level > 0).value
            self._full = 1
        else:
            pin = machine.Pin(config["pin"])
            pwm = machine.PWM(pin, freq=config["frequency"], duty_u16=round(level * _FULL))
            self._drive = pwm.duty_u16
            self._full = _FULL

    def set(self, value: object) -> None:
        """Drive the output: true or false, or 0 to 1 for PWM."""
        self._drive(round(self._level(value) * self._full))

    def _level(self, value: "Any") -> float:
        level = float(value)
        return 1 - level if self._invert else level


class Board:
    """What is wired, the radio, and `wait`. Outputs take their boot state before inputs exist."""

    def __init__(self, node: dict) -> None:
        self._edge = False
        actuators = _wired("actuators", node["actuators"], Actuator)
        self.actuators = {actuator.id: actuator for actuator in actuators}
        self.sensors = _wired("sensors", node["sensors"], Sensor, self._wake)
        self._wlan = network.WLAN(network.STA_IF)
        self.radio: Any = None
        if node["wifi"] is None:
            self._wlan.active(True)  # noqa: FBT003 - the port's own call
        else:
            from spinal.radio import Radio  # noqa: PLC0415 - for boards with a Wi-Fi of their own

            self.radio = Radio(self._wlan, node["wifi"], random_below)
        self._poller = select.poll()
        self._watched: tuple | None = None
        self._service = None
        if hasattr(machine, "wake_source"):
            descriptor, self._service = machine.wake_source()
            self._poller.register(descriptor, select.POLLIN)

    def network_up(self) -> bool:
        """Whether there is a network, so that the link may try."""
        return self._wlan.isconnected()

    def rssi(self) -> int | None:
        """Wi-Fi signal in dBm, None where the radio does not tell."""
        try:
            return self._wlan.status("rssi")
        except (OSError, ValueError):
            return None

    def wait(self, ms: int, sock: object, *, wants_write: bool) -> bool:
        """Sleep up to `ms`; an input edge or the network ends it at once. Whether an edge did.

        On a real port an edge is an interrupt that a poll of sockets does not see, so the wait is
        cut into slices of 2 ms; a virtual board polls its control channel as well.
        """
        self._watch(sock, wants_write=wants_write)
        for sensor in self.sensors:
            if sensor.edges:
                self._edge = True
                ms = 0
        while True:
            step = ms if self._service else min(ms, _IRQ_SLICE_MS)
            woken = self._poller.poll(step)
            if self._service:
                self._service()
            ms -= step
            if woken or self._edge or ms <= 0:
                edge, self._edge = self._edge, False
                return edge

    def _watch(self, sock: object, *, wants_write: bool) -> None:
        events = select.POLLIN | (select.POLLOUT if wants_write else 0)
        wanted = (sock, events) if sock is not None else None
        if wanted == self._watched:
            return
        if self._watched is not None:
            self._poller.unregister(self._watched[0])
        if wanted is not None:
            self._poller.register(sock, events)
        self._watched = wanted

    def _wake(self) -> None:
        self._edge = True


def _wired(name: str, configs: list, part: "Any", *more: object) -> list:
    """The parts on their pins; NodeError when this port has no such pin, or not for that."""
    made = []
    for index, config in enumerate(configs):
        try:
            made.append(part(config, *more))
        except ValueError as error:
            from spinal.node import NodeError  # noqa: PLC0415 - let go of once it was read

            rule = "this board cannot have it on pin %d: %s" % (config["pin"], error)
            raise NodeError("node.json", "%s[%d]" % (name, index), rule) from error
    return made
