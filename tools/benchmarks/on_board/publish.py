"""Runs on the virtual board's MicroPython: QoS 1 publishes over the firmware's own link, in TLS.

Started as `micropython publish.py PLAN`, PLAN being a JSON file: host, port, device_id, scope,
cert, key, ca (DER files), count, deadline_s. Prints one JSON object.
"""

import gc
import json
import select
import sys

from spinal import compat, topics
from spinal.clock import Clock
from spinal.envelope import Envelope
from spinal.ids import MessageIds
from spinal.link import Link, Settings
from spinal.ticks import elapsed

_WAIT_MS = 50
_SEED = bytes(range(10))


class Owner:
    """Owns the link: counts what the broker has acknowledged."""

    def __init__(self, plan: dict) -> None:
        self.acked = 0
        self.downs: list = []
        self._plan = plan

    def link_will(self) -> tuple:
        """A will that nobody reads."""
        return topics.device_status(self._plan["device_id"]), "{}"

    def link_filters(self) -> list:
        """What a board subscribes to."""
        plan = self._plan
        return topics.filters("room", plan["scope"], plan["device_id"])

    def link_up(self) -> None:
        """Connected."""

    def link_down(self, reason: str, _tickets: list) -> None:
        """Keep why."""
        self.downs.append(reason)

    def link_message(self, topic: bytes, payload: bytes, *, retained: bool) -> None:
        """Nothing is sent to this board."""

    def link_acked(self, _ticket: object) -> None:
        """Count one."""
        self.acked += 1


def main() -> None:
    """Publish so many afferents; the window is the firmware's own."""
    with open(sys.argv[1]) as file:  # noqa: PTH123 - MicroPython has no pathlib
        plan = json.load(file)
    owner = Owner(plan)
    context = compat.tls_context(plan["cert"], plan["key"], plan["ca"])
    link = Link(
        Settings(plan["device_id"], plan["host"], plan["port"]),
        owner,
        compat.Dialler(context, plan["host"]),
        lambda: True,
        compat.random_below,
    )
    envelope = Envelope(plan["device_id"], 1, MessageIds(_SEED), Clock())
    topic = topics.afferent("room", plan["scope"], "temperature", plan["device_id"])
    started = compat.ticks()
    began = None
    sent = 0
    while (
        owner.acked < plan["count"] and elapsed(compat.ticks(), started) < plan["deadline_s"] * 1000
    ):
        link.poll(compat.ticks())
        while sent < plan["count"] and link.can_take(1):
            began = compat.ticks() if began is None else began
            data = envelope.afferent("temperature", sent / 10, "Cel", sent, 10000)
            link.publish(topic, data, 1)
            sent += 1
        link.poll(compat.ticks())
        if link.sock and not link.busy and not link.can_take(1):
            _wait(link)
    gc.collect()
    took = elapsed(compat.ticks(), began) if began is not None else 0
    print(json.dumps({"acked": owner.acked, "ms": took, "downs": owner.downs}))


def _wait(link: Link) -> None:
    poller = select.poll()
    poller.register(link.sock, select.POLLIN | (select.POLLOUT if link.wants_write else 0))
    poller.poll(_WAIT_MS)


main()
