"""Stands in for firmware/main.py: outputs that follow inputs, and nothing of the firmware.

What an edge takes here is what the simulator, the control channel and the scheduler take.
"""

import select

import machine

_PINS = 12
_DOOR_PIN, _LAMP_PIN = 10, 30


def main() -> None:
    """Follow, for ever."""
    for number in range(_PINS):
        _follow(number)
    descriptor, service = machine.wake_source()
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        poller.poll(-1)
        service()


def _follow(number: int) -> None:
    lamp = machine.Pin(_LAMP_PIN + number, machine.Pin.OUT, value=0)
    door = machine.Pin(_DOOR_PIN + number, machine.Pin.IN)
    door.irq(lambda pin: lamp.value(pin.value()))


main()
