"""Stands between a session and a real broker, and changes what the broker answers.

mosquitto refuses only for some of the reasons MQTT 5 knows. Here the real broker's own packets get
another reason code on their way, or one of its kind is put in, so that a session meets each. It may
also take what the session sends as slowly as one byte a second.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from nervus.bus import BrokerAddress

CONNACK, PUBACK, SUBACK, DISCONNECT = 2, 4, 9, 14

Bend = Callable[[int, bytes], bytes | None]
"""Takes type and bytes of one packet of the broker; returns what goes on, None for nothing."""


def connack(code: int) -> Bend:
    """Refuse the connection."""
    return lambda kind, packet: bytes([0x20, 3, 0, code, 0]) if kind == CONNACK else packet


def puback(code: int) -> Bend:
    """Refuse each QoS 1 message, though the broker took it."""
    return lambda kind, packet: (
        bytes([0x40, 4, *packet[2:4], code, 0]) if kind == PUBACK else packet
    )


def suback(code: int) -> Bend:
    """Refuse the subscription."""
    return lambda kind, packet: packet[:-1] + bytes([code]) if kind == SUBACK else packet


def disconnect(code: int) -> bytes:
    """A broker's farewell."""
    return bytes([0xE0, 2, code, 0])


class BendingProxy:
    """A listener before a broker; `bend` and `slow` may change while it runs.

    While `slow` is set, one byte a second of each connection goes on to the broker.
    """

    def __init__(self, broker: BrokerAddress) -> None:
        self._broker = broker
        self._links: set[asyncio.StreamWriter] = set()
        self.bend: Bend = lambda _, packet: packet
        self.connections = 0
        self._fast = asyncio.Event()
        self._fast.set()
        self.address = broker

    @property
    def slow(self) -> bool:
        """Whether it takes but a byte a second."""
        return not self._fast.is_set()

    @slow.setter
    def slow(self, slow: bool) -> None:
        if slow:
            self._fast.clear()
        else:
            self._fast.set()

    def say(self, packet: bytes) -> None:
        """Put a packet of the broker in, and end the connections behind it."""
        for link in list(self._links):
            link.write(packet)
            link.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            up_reader, up_writer = await asyncio.open_connection(
                self._broker.host, self._broker.port
            )
            self._links.add(writer)
            upward = asyncio.create_task(self._pump(reader, up_writer))
            try:
                while True:
                    packet = await _packet(up_reader)
                    bent = self.bend(packet[0] >> 4, packet)
                    if bent is not None:
                        writer.write(bent)
                        await writer.drain()
                    if bent is not packet and packet[0] >> 4 == CONNACK:
                        break
            finally:
                upward.cancel()
                self._links.discard(writer)
                up_writer.close()
        writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 if self.slow else 65_536):
                writer.write(data)
                await writer.drain()
                if self.slow:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._fast.wait(), 1)
            writer.close()


@asynccontextmanager
async def bending(broker: BrokerAddress) -> AsyncIterator[BendingProxy]:
    """Run a proxy before a broker until the block ends."""
    proxy = BendingProxy(broker)
    listener = socket.create_server(("127.0.0.1", 0))
    # What it is slow to take waits with whoever sent it, not in the machine between them.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    server = await asyncio.start_server(proxy._serve, sock=listener, limit=1_024)
    proxy.address = BrokerAddress("127.0.0.1", listener.getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        proxy.say(b"")


async def _packet(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(1)
    length, shift = 0, 0
    while True:
        head += (byte := await reader.readexactly(1))
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            return head + await reader.readexactly(length)
