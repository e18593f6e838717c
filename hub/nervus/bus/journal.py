"""The journal of a core's inputs: what it takes to run it again."""

import json
from typing import Any, TextIO

from nervus.wire import Packet


class Journal:
    """Writes one JSON line for each input, in the order in which the core took them.

    A line has `n` (from 0, without gaps), `now_ms`, `kind` (start, packet, tick, connected, offer)
    and what belongs to the kind. The writer owns no file: whoever opened `output` closes it.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._number = 0

    def start(self, now_ms: int, **fields: Any) -> None:
        """Record what the core was built from: settings, seed, boot."""
        self._write(now_ms, "start", fields)

    def packet(self, now_ms: int, packet: Packet) -> None:
        """Record a packet before the guard judges it."""
        fields = {
            "broker": packet.broker,
            "topic": packet.topic,
            "payload": packet.payload.hex(),
            "retain": packet.retain,
        }
        self._write(now_ms, "packet", fields)

    def tick(self, now_ms: int) -> None:
        """Record that time passed."""
        self._write(now_ms, "tick", {})

    def event(self, now_ms: int, kind: str, event: object) -> None:
        """Record an event that did not come by MQTT."""
        self._write(now_ms, kind, {"event": repr(event)})

    def _write(self, now_ms: int, kind: str, fields: dict[str, Any]) -> None:
        line = {"n": self._number, "now_ms": now_ms, "kind": kind} | fields
        self._number += 1
        self._output.write(json.dumps(line, separators=(",", ":")) + "\n")
