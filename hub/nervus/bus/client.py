"""aiomqtt, told to acknowledge late: the one place that touches what it keeps private.

aiomqtt 2.5 acknowledges a packet before anybody has seen it, forgets the broker's reason codes and
queues without bound (empicano/aiomqtt#29, #119, #334). paho below it can do all three, and
aiomqtt hides paho. `Client` overrides seven of aiomqtt's methods and calls five of paho's names;
`_require` refuses to start with a version in which one of them is missing.

`FastClient` also takes PUBLISH and PUBACK away from both, and leaves them the session: connecting,
subscribing, pings, the end. It needs two more private names; `client_class` looks for them.
"""

import asyncio
import inspect
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from nervus.bus.address import BrokerAddress, Filter, Limits
from nervus.bus.errors import ClientShapeError
from nervus.bus.reasons import CUT_OFF
from nervus.bus.receive import (
    OnConfirmed,
    OnPublish,
    Receiver,
    puback_packet,
    publish_packet,
)

_OVERRIDDEN: Final = {
    "on_connect": "_on_connect",
    "on_disconnect": "_on_disconnect",
    "on_message": "_on_message",
    "on_publish": "_on_publish",
    "on_socket_open": "_on_socket_open",
    "on_socket_register_write": "_on_socket_register_write",
    "on_socket_unregister_write": "_on_socket_unregister_write",
}
_CALLED: Final = ("ack", "manual_ack_set", "publish", "_out_packet", "_sock_close")
_CONNECT: Final = "_client_connect"
_NO_LIMIT: Final = 268_435_460  # what MQTT itself can carry
_FAST_CALLED: Final = {
    "_sock_recv": ["bufsize"],
    "_packet_queue": ["command", "packet", "mid", "qos", "info"],
    "loop_read": ["max_packets"],
    "loop_write": [],
}
# MQTT 5, 3.1.2.11.2. Of a session that expires at a time, mosquitto 2.0.11 keeps a dangling pointer
# when it reads its rights again while the client is away (BROKERS.md).
_NEVER: Final = 0xFFFF_FFFF
_READ_BYTES: Final = 65_536
_READS: Final = 64
_OPAQUE: Final = 0x40
_MESSAGE_IDS: Final = 65_535
_LOG: Final = logging.getLogger(__name__)


class Client(aiomqtt.Client):
    """One connection: MQTT 5, no Nagle, acknowledgement by `acknowledge` alone.

    Args:
        address: Where to connect.
        identity: The client id.
        limits: How much it holds and how long it waits.
        on_publish: Takes topic (None when not UTF-8), payload, QoS, retain flag and message id
            of each packet, in the event loop, before it is acknowledged.
        on_confirmed: Takes message id and reason code of each PUBACK.
        on_read: Called after that for all that came at once.

    Raises:
        ClientShapeError: aiomqtt or paho lacks a name this class relies on.
    """

    def __init__(
        self,
        address: BrokerAddress,
        identity: str,
        limits: Limits,
        on_publish: OnPublish,
        on_confirmed: OnConfirmed,
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        connect.ReceiveMaximum = limits.receive_maximum
        connect.SessionExpiryInterval = _NEVER if limits.durable else 0
        super().__init__(
            address.host,
            address.port,
            identifier=identity,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=not limits.durable,
            properties=connect,
            tls_context=address.tls,
            keepalive=limits.keepalive_s,
            timeout=limits.timeout_s,
            max_inflight_messages=limits.in_flight,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            logger=_LOG,
        )
        self._require()
        self._client.manual_ack_set(on=True)
        self._client.connect_timeout = limits.timeout_s
        self._deliver = on_publish
        self._confirm = on_confirmed
        self._on_read = on_read
        self._drained = asyncio.Event()
        self._drained.set()
        self._connecting = False
        self._released = False
        self.broker_receive_maximum = 65_535
        self.broker_packet_maximum = _NO_LIMIT

    @property
    def live(self) -> bool:
        """Whether the connection stands."""
        return self._connected.done() and not self._disconnected.done()

    @property
    def unsent(self) -> int:
        """Packets that wait for the socket."""
        return len(self._client._out_packet)  # noqa: SLF001  see the module's docstring

    async def subscribe_all(self, filters: Sequence[Filter]) -> list[ReasonCode]:
        """Subscribe with retain-as-published; returns the broker's code for each filter."""
        wanted = [(f.topic, SubscribeOptions(qos=f.qos, retainAsPublished=True)) for f in filters]
        codes = await self.subscribe(wanted)
        return [code for code in codes if isinstance(code, ReasonCode)]

    def send(
        self, topic: str, payload: bytes, qos: int, *, retain: bool, expiry_s: int | None
    ) -> int:
        """Hand a packet to the socket; returns its message id, for `on_confirmed`.

        Raises:
            aiomqtt.MqttError: The connection is gone.
        """
        properties = None
        if expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        self._drained.clear()
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != 0:
            raise aiomqtt.MqttCodeError(info.rc, "Could not publish message")
        return info.mid

    def acknowledge(self, mid: int) -> None:
        """Send PUBACK; nothing happens once the connection is gone, its broker forgot us."""
        if self.live:
            self._client.ack(mid, 1)

    async def drained(self) -> None:
        """Wait until the socket took everything, or the connection is gone."""
        waiting = asyncio.ensure_future(self._drained.wait())
        try:
            await asyncio.wait((waiting, self._disconnected), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def disconnected(self) -> None:
        """Wait until the connection is gone.

        Raises:
            aiomqtt.MqttError: Always; says why.
        """
        await asyncio.wait((self._disconnected,))
        cause = self._disconnected.exception()
        if isinstance(cause, aiomqtt.MqttError):
            raise cause
        raise aiomqtt.MqttError(str(cause or "the broker closed the connection"))

    def release(self) -> None:
        """Close the socket, whatever state the connection is in."""
        self._released = True
        if not self._connecting:
            self._client._sock_close()  # noqa: SLF001  aiomqtt leaves it open after an error in a read
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                # Whoever was cancelled before it could look at the reason leaves none unread.
                future.exception()

    def _client_connect(self) -> None:
        # In a thread, which nobody can cancel; without anybody who waits, it closes its own link.
        self._connecting = True
        try:
            super()._client_connect()
        finally:
            self._loop.call_soon_threadsafe(self._end_connecting)

    def _end_connecting(self) -> None:
        self._connecting = False
        if self._released:
            self.release()

    def _require(self) -> None:
        missing = [name for name in _CALLED if not hasattr(self._client, name)]
        missing += [_CONNECT] * (not hasattr(aiomqtt.Client, _CONNECT))
        missing += [
            ours
            for theirs, ours in _OVERRIDDEN.items()
            if getattr(self._client, theirs, None) != getattr(self, ours)
        ]
        if missing or not isinstance(self._client, PahoClient):
            raise ClientShapeError(
                f"aiomqtt or paho-mqtt lacks {', '.join(missing) or 'paho below'}",
                where="nervus.bus.client",
                hint="install the versions of the lock file",
            )

    def _on_connect(
        self,
        client: PahoClient,
        userdata: Any,
        flags: ConnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        self.broker_receive_maximum = getattr(properties, "ReceiveMaximum", 65_535)
        self.broker_packet_maximum = getattr(properties, "MaximumPacketSize", _NO_LIMIT)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(self, *arguments: Any) -> None:
        if not self._connected.done():
            # aiomqtt would wait on for an answer. It may be the connecting thread that says so.
            self._loop.call_soon_threadsafe(self._cut_off)
            return
        super()._on_disconnect(*arguments)

    def _cut_off(self) -> None:
        if not self._connected.done() and not self._released:
            self._connected.set_exception(aiomqtt.MqttError(CUT_OFF))

    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        del client, userdata
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = None
        self._deliver(topic, bytes(message.payload), message.qos, message.retain, message.mid)
        self._on_read()

    def _on_publish(
        self,
        client: PahoClient,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        del client, userdata, properties
        self._confirm(mid, reason_code)

    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # Its CONNECT would take the place of the next link.
        if not self._released:
            super()._on_socket_register_write(client, userdata, sock)

    def _on_socket_unregister_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # paho calls this when its queue is empty, and when it closes the socket.
        self._drained.set()
        super()._on_socket_unregister_write(client, userdata, sock)


class FastClient(Client):
    """The same, with PUBLISH and PUBACK read and written without paho.

    What is read is parsed in place, many packets to a wake-up; what is sent or acknowledged within
    one turn of the loop is written at once. paho gets every other packet from memory, whole.
    """

    def __init__(
        self,
        address: BrokerAddress,
        identity: str,
        limits: Limits,
        on_publish: OnPublish,
        on_confirmed: OnConfirmed,
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(address, identity, limits, on_publish, on_confirmed, on_read)
        self._turn = _TURNS.setdefault(self._loop, _Turn())
        self._receiver = Receiver(on_publish, self._settle, self._leave_to_paho)
        self._left = _Left()
        self._client._sock_recv = self._left.take  # type: ignore[method-assign]  # noqa: SLF001
        self._rest_s = limits.rest_ms / 1_000
        self._thread = threading.get_ident()
        self._frames: list[bytes] = []
        self._handed = 0
        self._mid = 0
        self._unconfirmed: set[int] = set()
        self._flushing = False

    @property
    def unsent(self) -> int:
        """Packets that wait for the socket."""
        return self._handed

    def send(
        self, topic: str, payload: bytes, qos: int, *, retain: bool, expiry_s: int | None
    ) -> int:
        """Hand a packet to the socket; returns its message id, for `on_confirmed`.

        Raises:
            aiomqtt.MqttError: The connection is gone.
        """
        if not self.live:
            raise aiomqtt.MqttError("the connection is gone")
        mid = self._next_mid() if qos else 0
        self._write_soon(publish_packet(topic, payload, qos, mid, retain=retain, expiry_s=expiry_s))
        return mid

    def acknowledge(self, mid: int) -> None:
        """Send PUBACK; nothing happens once the connection is gone, its broker forgot us."""
        if self._flushing or self.live:
            self._write_soon(puback_packet(mid))

    def _next_mid(self) -> int:
        while True:
            # paho's SUBSCRIBE counts from 1 too, but is answered before anything is sent.
            self._mid = self._mid % _MESSAGE_IDS + 1
            if self._mid not in self._unconfirmed:
                self._unconfirmed.add(self._mid)
                return self._mid

    def _settle(self, mid: int, code: ReasonCode) -> None:
        self._unconfirmed.discard(mid)
        self._confirm(mid, code)

    def _write_soon(self, frame: bytes) -> None:
        self._handed += 1
        self._frames.append(frame)
        if not self._flushing:
            self._flushing = True
            self._drained.clear()
            if self._turn.reading:
                self._turn.writers.append(self)
            else:
                self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        try:
            data = b"".join(self._frames)
            self._frames.clear()
            client = self._client
            if not client.want_write() and not (data := self._write(data)):
                self._handed = 0
                self._drained.set()
                return
            if data:
                # As a PUBACK: the one packet after whose writing paho does nothing.
                client._packet_queue(_OPAQUE, data, 0, 0)  # noqa: SLF001
            client.loop_write()
            connection = client.socket()
            if connection is not None and client.want_write():
                self._loop.add_writer(connection.fileno(), self._flush)
        except Exception as error:  # noqa: BLE001  as aiomqtt: whatever it is, the link is broken
            self._break(error)
        finally:
            self._flushing = False

    def _write(self, data: bytes) -> bytes:
        """Write while the socket takes it; returns the rest, which is paho's to write or to fail.

        Nearly always there is none: by way of paho's queue it would take four times as long.
        """
        connection: Any = self._client.socket()
        if not data or connection is None:
            return data
        try:
            return data[connection.send(data) :]
        except OSError:
            return data

    def _break(self, error: Exception) -> None:
        if not self._connected.done():
            self._cut_off()
        elif not self._disconnected.done():
            self._disconnected.set_exception(error)

    def _readable(self) -> None:
        connection: Any = self._client.socket()
        if connection is None:
            return
        self._turn.reading = True
        try:
            all_there_was = self._read(connection)
            self._on_read()
        except Exception as error:  # noqa: BLE001  as aiomqtt: whatever it is, the link is broken
            self._break(error)
            return
        finally:
            self._turn.end()
        if self._rest_s and all_there_was and self.live:
            self._loop.remove_reader(connection.fileno())
            self._loop.call_later(self._rest_s, self._read_on, connection)

    def _read_on(self, connection: Any) -> None:
        current: Any = self._client.socket()
        if connection is current:
            self._loop.add_reader(connection.fileno(), self._readable)

    def _read(self, connection: Any) -> bool:
        """Take what the socket has, in bounds; returns whether that was all."""
        # Over TLS each message comes alone; of an SSLSocket, `recv` only leads to `read`.
        sealed = isinstance(connection, ssl.SSLSocket)
        receive = connection.read if sealed else connection.recv
        found: list[bytes] = []
        ended = False
        try:
            while len(found) < _READS:
                data = receive(_READ_BYTES)
                if not data:
                    ended = True
                    break
                found.append(data)
                if not sealed and len(data) < _READ_BYTES:
                    break  # That was all: to ask again would be a call and an exception.
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        if found:
            self._receiver.feed(b"".join(found))
        if ended:
            self._leave_to_paho(b"")
        return len(found) < _READS

    def _leave_to_paho(self, packet: bytes) -> None:
        self._left.give(packet)
        self._client.loop_read()

    def _on_socket_open(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        super()._on_socket_open(client, userdata, sock)
        # After aiomqtt's own reader, and instead of it.
        self._loop.call_soon_threadsafe(self._loop.add_reader, sock.fileno(), self._readable)

    def _on_socket_register_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        if threading.get_ident() != self._thread:
            super()._on_socket_register_write(client, userdata, sock)
        elif not self._flushing:
            self._loop.add_writer(sock.fileno(), self._flush)

    def _on_socket_unregister_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        self._handed = len(self._frames)
        super()._on_socket_unregister_write(client, userdata, sock)


class _Turn:
    """One turn of a loop in which a client reads: whatever comes of that is written at its end."""

    def __init__(self) -> None:
        self.reading = False
        self.writers: list[FastClient] = []

    def end(self) -> None:
        self.reading = False
        writers, self.writers = self.writers, []
        for client in writers:
            client._flush()  # noqa: SLF001  of this module


_TURNS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn]] = WeakKeyDictionary()


class _Left:
    """A socket to paho: one packet, then nothing yet; or the end."""

    def __init__(self) -> None:
        self._data = b""
        self._ended = False

    def give(self, packet: bytes) -> None:
        self._data, self._ended = packet, not packet

    def take(self, bufsize: int) -> bytes:
        if not self._data and not self._ended:
            raise BlockingIOError
        taken, self._data = self._data[:bufsize], self._data[bufsize:]
        return taken


def client_class() -> type[Client]:
    """The fast client where paho has the shape it needs, else the stock one."""
    for name, wanted in _FAST_CALLED.items():
        method = getattr(PahoClient, name, None)
        found = list(inspect.signature(method).parameters)[1:] if callable(method) else None
        if found != wanted:
            _LOG.warning("paho-mqtt has another %s%s: its own, slower loop is used", name, found)
            return Client
    return FastClient
