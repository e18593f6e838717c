"""A firmware link driven by a script instead of a network; time is an argument."""

import struct
from collections.abc import Callable, Iterator

from spinal.link import UP, Link, Settings

CONNACK = b"\x20\x02\x00\x00"


class Script:
    """A transport whose other side is the test."""

    sock = None
    held = False

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.writes: list[bytes] = []
        self.offers: list[int] = []
        self.takes = True
        self.ended = False
        self.closed = False
        self.connected = True

    def ready(self) -> bool:
        return self.connected

    def read_into(self, view: memoryview) -> int | None:
        if not self.incoming:
            return 0 if self.ended else None
        size = min(len(view), len(self.incoming))
        view[:size] = self.incoming[:size]
        del self.incoming[:size]
        return size

    def write(self, view: memoryview) -> int | None:
        self.offers.append(len(view))
        if not self.takes:
            return None
        self.writes.append(bytes(view))
        return len(view)

    def close(self) -> None:
        self.closed = True


class Owner:
    """Remembers what the link told it."""

    def __init__(self) -> None:
        self.ups = 0
        self.downs: list[tuple[str, list[object]]] = []
        self.messages: list[tuple[bytes, bytes, bool]] = []
        self.oversize: list[tuple[bytes, str]] = []
        self.acked: list[object] = []
        self.filters = [("/a/+", 1)]
        self.on_message: Callable[[], object] = lambda: None

    def link_will(self) -> tuple[str, bytes]:
        return "/will", b"offline"

    def link_filters(self) -> list[tuple[str, int]]:
        return self.filters

    def link_up(self) -> None:
        self.ups += 1

    def link_down(self, reason: str, tickets: list[object]) -> None:
        self.downs.append((reason, tickets))

    def link_message(self, topic: bytes, payload: bytes, *, retained: bool) -> object:
        self.messages.append((topic, payload, retained))
        work = self.on_message()
        return work if isinstance(work, Iterator) else None

    def link_oversize(self, topic: bytes, text: str) -> None:
        self.oversize.append((topic, text))

    def link_acked(self, ticket: object) -> None:
        self.acked.append(ticket)


class Bench:
    """A link with its script, owner, network switch and dice."""

    def __init__(self, **changes: int) -> None:
        self.owner = Owner()
        self.dials: list[Script] = []
        self.network = True
        self.reachable = True
        self.dice: list[int] = []
        config = Settings("m1", "127.0.0.1", 1883, **changes)
        self.link = Link(config, self.owner, self._dial, lambda: self.network, self._roll)

    @property
    def script(self) -> Script:
        return self.dials[-1]

    def up(self, now: int = 0) -> None:
        """Bring the link up at `now`."""
        self.link.poll(now)
        self.script.incoming += CONNACK
        self.link.poll(now)
        subscribe = self.script.writes[-1]
        self.script.incoming += suback(subscribe, b"\x01" * len(self.owner.filters))
        self.link.poll(now)
        assert self.link.state == UP
        self.script.writes.clear()

    def _dial(self, _host: str, _port: int) -> Script:
        self.dials.append(Script())
        self.script.connected = self.reachable
        return self.dials[-1]

    def _roll(self, limit: int) -> int:
        self.dice.append(limit)
        return limit - 1


def suback(subscribe: bytes, codes: bytes) -> bytes:
    at = 1
    while subscribe[at] & 0x80:
        at += 1
    return b"\x90" + bytes([2 + len(codes)]) + subscribe[at + 1 : at + 3] + codes


def publish(topic: bytes, payload: bytes, packet_id: int | None = None, flags: int = 0) -> bytes:
    body = struct.pack("!H", len(topic)) + topic
    if packet_id is not None:
        flags |= 2
        body += struct.pack("!H", packet_id)
    body += payload
    head = bytearray([0x30 | flags])
    size = len(body)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + body


def packet_id_of(packet: bytes) -> int:
    assert packet[0] & 0xF6 == 0x32
    length = struct.unpack_from("!H", packet, 2)[0]
    return int(struct.unpack_from("!H", packet, 4 + length)[0])
