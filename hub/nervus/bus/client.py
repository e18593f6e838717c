"""aiomqtt, told to acknowledge late: the one place that touches what it keeps private.

aiomqtt 2.5 acknowledges a packet before anybody has seen it, forgets the broker's reason codes and
queues without bound (empicano/aiomqtt#29, #119, #334). paho below it can do all three, and
aiomqtt hides paho. `Client` overrides four of aiomqtt's callbacks and calls five of paho's names;
`_require` refuses to start with a version in which one of them is missing.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import ConnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from nervus.bus.address import BrokerAddress, Filter, Limits
from nervus.bus.errors import ClientShapeError

OnMessage = Callable[[MQTTMessage], None]
OnConfirmed = Callable[[int, ReasonCode], None]

_OVERRIDDEN: Final = {
    "on_connect": "_on_connect",
    "on_message": "_on_message",
    "on_publish": "_on_publish",
    "on_socket_unregister_write": "_on_socket_unregister_write",
}
_CALLED: Final = ("ack", "manual_ack_set", "publish", "_out_packet", "_sock_close")
_NO_LIMIT: Final = 268_435_460  # what MQTT itself can carry
_LOG: Final = logging.getLogger(__name__)


class Client(aiomqtt.Client):
    """One connection: MQTT 5, clean start, no Nagle, acknowledgement by `acknowledge` alone.

    Args:
        address: Where to connect.
        identity: The client id.
        limits: How much it holds and how long it waits.
        on_message: Takes each packet, in the event loop, before it is acknowledged.
        on_confirmed: Takes message id and reason code of each PUBACK.

    Raises:
        ClientShapeError: aiomqtt or paho lacks a name this class relies on.
    """

    def __init__(
        self,
        address: BrokerAddress,
        identity: str,
        limits: Limits,
        on_message: OnMessage,
        on_confirmed: OnConfirmed,
    ) -> None:
        connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        connect.ReceiveMaximum = limits.receive_maximum
        super().__init__(
            address.host,
            address.port,
            identifier=identity,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
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
        self._deliver = on_message
        self._confirm = on_confirmed
        self._drained = asyncio.Event()
        self._drained.set()
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

    def acknowledge(self, message: MQTTMessage) -> None:
        """Send PUBACK; nothing happens once the connection is gone, its broker forgot us."""
        if self.live:
            self._client.ack(message.mid, message.qos)

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
        self._client._sock_close()  # noqa: SLF001  aiomqtt leaves it open after an error in a read
        if self._disconnected.done() and not self._disconnected.cancelled():
            # Whoever was cancelled before it could look at the reason leaves none unread.
            self._disconnected.exception()

    def _require(self) -> None:
        missing = [name for name in _CALLED if not hasattr(self._client, name)]
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

    def _on_message(self, client: PahoClient, userdata: Any, message: MQTTMessage) -> None:
        del client, userdata
        self._deliver(message)

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

    def _on_socket_unregister_write(self, client: PahoClient, userdata: Any, sock: Any) -> None:
        # paho calls this when its queue is empty, and when it closes the socket.
        self._drained.set()
        super()._on_socket_unregister_write(client, userdata, sock)
