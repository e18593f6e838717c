"""MQTT 3.1.1 packets: umqtt.simple without its socket, and the cutting of bytes into packets."""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNACK, PUBLISH, PUBACK, SUBACK = 0x20, 0x30, 0x40, 0x90
_PINGRESP = 0xD0
_HEAD_LIMIT = 5
_PASSED_LIMIT = 1 << 21
_BEGINNING = 516  # two bytes of length, a topic of 512 bytes, two of packet id
_SUBACK_HEAD = 2
_SEVEN_BITS = 0x7F
_FIXED_SIZES = {CONNACK: 2, PUBACK: 2, _PINGRESP: 0}


class LinkError(Exception):
    """The link has to be closed; `code` is stable, `text` says what was seen."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code + ": " + text)
        self.code = code
        self.text = text


class Blocked(Exception):  # noqa: N818 - not an error: the codec wants bytes that have not come
    """umqtt.simple would wait here."""


class Wire:
    """What umqtt.simple takes for its socket: gathers writes, serves one whole packet."""

    def __init__(self) -> None:
        self.unsent = bytearray()
        self.packet: "Any" = None
        self.at = 0
        self.muted = False

    def clear(self) -> None:
        """Forget everything: a new connection begins."""
        self.unsent = bytearray()
        self.packet = None
        self.muted = False

    def sent(self, size: int) -> None:
        """The transport took this many bytes."""
        self.unsent = self.unsent[size:] if size < len(self.unsent) else bytearray()

    def write(self, data: "str | bytes | bytearray", size: int | None = None) -> None:
        """Gather bytes; `size` of them when given."""
        if self.muted:
            return
        if isinstance(data, str):
            data = data.encode()
        self.unsent.extend(data if size is None else memoryview(data)[:size])

    def read(self, size: int) -> object:
        """Serve bytes of the packet at hand; Blocked without one, LinkError past its end."""
        if self.packet is None:
            raise Blocked
        end = self.at + size
        if size < 0 or end > len(self.packet):
            raise LinkError("malformed", "a packet shorter than its own lengths say")
        data = bytes(self.packet[self.at : end])
        self.at = end
        return data

    def connect(self, address: object) -> None:
        """The transport is connected already."""

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket's own call
        """Nothing waits here."""

    def settimeout(self, seconds: float | None) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The link closes its transport itself."""


class Sockets:
    """Stands in for the socket module inside umqtt.simple."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def socket(self, *_: object) -> Wire:
        """The wire, whatever is asked for."""
        return self._wire

    def getaddrinfo(self, host: str, port: int, *_: object) -> list:
        """Host and port as they are: the link dials by itself."""
        return [(0, 0, 0, "", (host, port))]


class Framer:
    """Cuts the byte stream into packets and refuses a packet before memory is set aside for it.

    A PUBLISH of more than `limit` bytes is passed over, up to 2 MiB: `packet` then holds only its
    beginning, 516 bytes behind the fixed header. `size` is the length that the packet states.
    """

    def __init__(self, limit: int) -> None:
        self.packet: "Any" = None
        self.size = 0
        self._limit = limit
        self._head = bytearray(_HEAD_LIMIT)
        self._body: "Any" = None
        self._have = 0
        self._left = 0

    def clear(self) -> None:
        """Forget what was begun."""
        self.packet = None
        self._body = None
        self._have = 0
        self._left = 0

    def take(self) -> "Any":
        """The whole packet; the next one begins."""
        packet = self.packet
        self.clear()
        return packet

    def feed(self, view: memoryview) -> int:
        """Take bytes up to the end of one packet; returns how many, `packet` is set when whole."""
        if self._body is None:
            for index, byte in enumerate(view):
                self._head[self._have] = byte
                self._have += 1
                if self._have > 1 and not byte & 0x80:
                    self._open()
                    return index + 1
                if self._have == _HEAD_LIMIT:
                    raise LinkError("malformed", "a packet length of more than four bytes")
            return len(view)
        size = min(len(view), len(self._body) - self._have)
        if size:
            self._body[self._have : self._have + size] = view[:size]
            self._have += size
        else:
            size = min(len(view), self._left)
            self._left -= size
        self._close()
        return size

    def oversize(self) -> LinkError:
        """What is wrong with a packet of more than `limit` bytes."""
        text = "a packet of %d bytes, the limit is %d" % (self.size, self._limit)
        return LinkError("oversize", text)

    def _open(self) -> None:
        size = 0
        for index in range(1, self._have):
            size |= (self._head[index] & 0x7F) << 7 * (index - 1)
        kind = self._head[0] & 0xF0
        self.size = size
        if size > self._limit:
            if kind != PUBLISH or size > _PASSED_LIMIT:
                raise self.oversize()
            self._left = max(0, size - _BEGINNING)
            size -= self._left
        if kind == PUBLISH:
            legal = self._head[0] & 6 in (0, 2)
        else:
            legal = size == _FIXED_SIZES.get(kind, -1) or (kind == SUBACK and size > _SUBACK_HEAD)
        if not legal:
            raise LinkError("protocol", "packet %#x of %d bytes" % (self._head[0], size))
        try:
            self._body = bytearray(self._have + size)
        except MemoryError:
            raise LinkError("oversize", "no memory for a packet of %d bytes" % size) from None
        self._body[: self._have] = memoryview(self._head)[: self._have]
        self._close()

    def _close(self) -> None:
        if self._have == len(self._body) and not self._left:
            self.packet = self._body


def subscribe_packet(packet_id: int, filters: list) -> bytearray:
    """A SUBSCRIBE for several (filter, qos)."""
    # umqtt.simple writes a length of one byte, so one long filter breaks it.
    body = bytearray(struct.pack("!H", packet_id))
    for topic, qos in filters:
        name = topic.encode()
        body.extend(struct.pack("!H", len(name)))
        body.extend(name)
        body.append(qos)
    packet = bytearray(b"\x82")
    size = len(body)
    while size > _SEVEN_BITS:
        packet.append(size & _SEVEN_BITS | 0x80)
        size >>= 7
    packet.append(size)
    packet.extend(body)
    return packet
