"""The virtual board's control channel: JSON lines over the descriptor NERVUS_CONTROL_FD.

In:  {"pin": 4, "value": 1}   {"adc": 26, "value": 0..65535, or null: broken}   {"wifi": false}
Out: {"at_ns": unix nanoseconds, "pin": 2, "value": 1}   {"at_ns": …, "pwm": 15, "value": 0..65535}
     {"at_ns": …, "lost": n} when n records could not be sent because nobody read them
"""

import json
import os
import select
import sys
import time

_LINE_LIMIT = 4096
_BACKLOG_LIMIT = 65536


class Channel:
    """Inputs as the outside set them, and the record of every output change."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pins = {}
        self.wifi = True
        self._file = open(descriptor, "r+b")  # noqa: SIM115 - open as long as the board runs
        self._buffer = bytearray(128)
        self._line = bytearray()
        self._waiting = bytearray()
        self._shed = 0
        self._watched = {}

    def watch(self, pin: object, call: object) -> None:
        """Have `call()` run when an input pin changes."""
        self._watched[pin] = call

    def service(self) -> None:
        """Take what came in, without waiting. Ends the process when the other side is gone."""
        if self._waiting or self._shed:
            self._send()
        view = memoryview(self._buffer)
        while True:
            size = self._file.readinto(view)
            if size is None:
                return
            if size == 0:
                sys.exit(0)
            self._line.extend(view[:size])
            self._take()
            if size < len(view):
                return

    def stay(self) -> None:
        """Serve until the other side is gone, which ends the process."""
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN)
        while True:
            poller.poll()
            self.service()

    def output(self, kind: str, number: int, value: object) -> None:
        """Record a change of an output."""
        self._record('{"at_ns":%d,"%s":%d,"value":%d}\n' % (time.time_ns(), kind, number, value))

    def _take(self) -> None:
        *lines, rest = bytes(self._line).split(b"\n")
        if len(rest) > _LINE_LIMIT:
            raise ValueError("a control line of more than %d bytes" % _LINE_LIMIT)
        self._line = bytearray(rest)
        for line in lines:
            self._apply(json.loads(line))

    def _apply(self, message: dict) -> None:
        if "wifi" in message:
            self.wifi = bool(message["wifi"])
        elif "adc" in message:
            self.pins[message["adc"]] = message["value"]
        else:
            pin = message["pin"]
            changed = self.pins.get(pin) != message["value"]
            self.pins[pin] = message["value"]
            if changed and pin in self._watched:
                self._watched[pin]()

    def _record(self, line: str) -> None:
        if len(self._waiting) > _BACKLOG_LIMIT:
            self._shed += 1
            return
        self._waiting.extend(line.encode())
        self._send()

    def _send(self) -> None:
        if self._shed and len(self._waiting) < _BACKLOG_LIMIT:
            line = '{"at_ns":%d,"lost":%d}\n' % (time.time_ns(), self._shed)
            self._waiting.extend(line.encode())
            self._shed = 0
        size = self._file.write(self._waiting)
        if size:
            self._waiting = self._waiting[size:]


channel = Channel(int(os.getenv("NERVUS_CONTROL_FD")))
