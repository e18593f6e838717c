"""The `machine` module of a virtual board: pins, ADC and PWM over the control channel."""

import errno
import os
import sys

import ffi
from control import channel
from umachine import *  # noqa: F403 - this module extends the built-in one

PWRON_RESET, HARD_RESET, WDT_RESET, DEEPSLEEP_RESET, SOFT_RESET = 1, 2, 3, 4, 5
_RESET_EXIT_CODE = 64
_PINS = 64  # more than any port has; the ports' numbers have gaps, too


class Pin:
    """A digital pin; an input reads 0, or 1 with a pull-up, until the outside sets it."""

    IN, OUT = 0, 1
    PULL_UP, PULL_DOWN = 1, 2
    IRQ_RISING, IRQ_FALLING = 1, 2

    def __init__(
        self, number: int, mode: int = -1, pull: int = -1, *, value: object | None = None
    ) -> None:
        if not 0 <= number < _PINS:
            raise ValueError("invalid pin")
        self.number = number
        self._out = mode == Pin.OUT
        self._level = None
        if self._out:
            self.value(0 if value is None else value)
        else:
            channel.pins.setdefault(number, 1 if pull == Pin.PULL_UP else 0)

    def value(self, *level: object) -> int | None:
        """Read the pin, or drive it when a level is given."""
        if not level:
            return self._level if self._out else channel.pins[self.number]
        level = 1 if level[0] else 0
        if self._out and level != self._level:
            self._level = level
            channel.output("pin", self.number, level)
        return None

    __call__ = value

    def on(self) -> None:
        """Drive the pin high."""
        self.value(1)

    def off(self) -> None:
        """Drive the pin low."""
        self.value(0)

    def irq(self, handler: object | None = None, trigger: int = IRQ_RISING | IRQ_FALLING) -> None:
        """Have `handler(pin)` run on the edges in `trigger`."""

        def edge() -> None:
            if trigger & (Pin.IRQ_RISING if self.value() else Pin.IRQ_FALLING):
                handler(self)

        channel.watch(self.number, edge)


class ADC:
    """An analog input, 0 to 65,535."""

    def __init__(self, pin: object) -> None:
        self._number = pin.number if isinstance(pin, Pin) else pin
        channel.pins.setdefault(self._number, 0)

    def read_u16(self) -> int:
        """The level that the outside set last; OSError while it holds the input broken."""
        level = channel.pins[self._number]
        if level is None:
            raise OSError(errno.EIO)
        return level


class PWM:
    """A pulse-width output."""

    def __init__(self, pin: object, *, freq: int = 1000, duty_u16: int = 0) -> None:
        self._number = pin.number if isinstance(pin, Pin) else pin
        self.frequency = freq
        self._level = None
        self.duty_u16(duty_u16)

    def freq(self, *hertz: object) -> int | None:
        """Read or set the frequency in hertz."""
        if not hertz:
            return self.frequency
        self.frequency = hertz[0]
        return None

    def duty_u16(self, *duty: object) -> int | None:
        """Read or set the duty cycle, 0 to 65,535."""
        if not duty:
            return self._level
        if duty[0] != self._level:
            self._level = duty[0]
            channel.output("pwm", self._number, self._level)
        return None


class RTC:
    """The port's clock, which starts as an ESP32's does: it keeps no time without power."""

    _time: tuple = (2000, 1, 1, 0, 0, 0, 0, 0)

    def datetime(self, *moment: tuple) -> tuple | None:
        """Read or set (year, month, day, weekday, hour, minute, second, fraction); it stands."""
        if not moment:
            return RTC._time
        RTC._time = moment[0]
        return None


class WDT:
    """A watchdog: the kernel ends the process when it is not fed in time, as hardware resets."""

    def __init__(self, id: int = 0, timeout: int = 5000) -> None:  # noqa: A002 - the port's own name
        del id
        self._watchdog = ffi.open("libc.so.6").func("I", "alarm", "I")
        self._longest = (timeout + 999) // 1000
        self.feed()

    def feed(self) -> None:
        """Put the reset off by the timeout, in whole seconds."""
        self._watchdog(self._longest)


def reset() -> None:
    """End the process; the virtual board's supervisor starts it again with the same flash."""
    sys.exit(_RESET_EXIT_CODE)


def reset_cause() -> int:
    """Why this start happened, one of the `…_RESET` constants."""
    return int(os.getenv("NERVUS_RESET_CAUSE") or PWRON_RESET)


def wake_source() -> tuple:
    """(descriptor, service): poll the one for input, then call the other; virtual boards only."""
    return channel.descriptor, channel.service
