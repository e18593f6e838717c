"""MQTT clients of the security tests: paho for what is answered, bare TLS for what is refused."""

import socket
import ssl
from collections.abc import Callable
from threading import Condition
from typing import Self

from paho.mqtt.client import (
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTMessage,
    MQTTv5,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from nervus.runtime.identity import Identity
from nervus.runtime.state import BrokerName
from support import DEADLINE_S, House

NOT_AUTHORIZED = 0x87
# Protocol MQTT 4, flags clean session and user name, keepalive 10 s, client id x, user relay.
CONNECT = b"\x10\x14\x00\x04MQTT\x04\x82\x00\x0a\x00\x01x\x00\x05relay"
CONNACK_ACCEPTED = b"\x20\x02\x00\x00"


class Peer:
    """One identity on one broker by MQTT 5: what it was answered and what it received.

    A context manager; connected inside, and never connecting again by itself.
    """

    def __init__(
        self,
        house: House,
        identity: Identity,
        broker: BrokerName,
        *,
        client_id: str | None = None,
        user_name: str | None = None,
        will: str | None = None,
    ) -> None:
        self.identity = identity
        self.received: list[tuple[str, str]] = []
        self._condition = Condition()
        self._connected: bool | None = None
        self._codes: dict[int, list[int]] = {}
        self._listener = house.settings.brokers.get(broker)
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id or identity.name,
            protocol=MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.max_inflight_messages_set(200)
        self._client.tls_set_context(identity.ssl_context())
        if user_name is not None:
            self._client.username_pw_set(user_name)
        if will is not None:
            self._client.will_set(will, "will", qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect(self._listener.connect_host, self._listener.port, keepalive=30)
        self._client.loop_start()
        self._wait_until(lambda: self._connected is not None)
        assert self._connected, f"{self.identity.name} was refused"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for_the_end(self) -> None:
        """Wait until the broker has ended the session."""
        self._wait_until(lambda: self._connected is False)

    def vanish(self) -> None:
        """End without a word, so that the broker sends the will."""
        link = self._client.socket()
        assert link is not None
        link.shutdown(socket.SHUT_RDWR)

    def subscribe(self, *filters: str) -> list[int]:
        """Subscribe at QoS 1; the reason code of each filter."""
        result, number = self._client.subscribe([(each, 1) for each in filters])
        assert result is MQTTErrorCode.MQTT_ERR_SUCCESS
        assert number is not None
        return self._answer(number)

    def begin_publish(self, topic: str, text: str, *, retain: bool = False) -> int:
        """Publish at QoS 1 without waiting; a number to ask `code` with."""
        return self._client.publish(topic, text, qos=1, retain=retain).mid

    def code(self, number: int) -> int:
        """Return the reason code that the broker answered to `begin_publish`."""
        return self._answer(number)[0]

    def publish(self, topic: str, text: str, *, retain: bool = False) -> int:
        """Publish at QoS 1; the broker's reason code."""
        return self.code(self.begin_publish(topic, text, retain=retain))

    def settle(self) -> list[tuple[str, str]]:
        """Return all that came, with nothing still under way to this peer.

        The broker answers one connection in order: what it sent before now came before the answer.
        """
        self.publish("/nobody/reads/this", "")
        return list(self.received)

    def _answer(self, number: int) -> list[int]:
        self._wait_until(lambda: number in self._codes)
        return self._codes.pop(number)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        with self._condition:
            assert self._condition.wait_for(condition, DEADLINE_S), "the broker does not answer"

    def _on_connect(
        self, _c: Client, _u: object, _f: ConnectFlags, code: ReasonCode, _p: Properties | None
    ) -> None:
        with self._condition:
            self._connected = not code.is_failure
            self._condition.notify_all()

    def _on_disconnect(
        self, _c: Client, _u: object, _f: DisconnectFlags, _r: ReasonCode, _p: Properties | None
    ) -> None:
        with self._condition:
            self._connected = False
            self._condition.notify_all()

    def _on_publish(
        self, _c: Client, _u: object, number: int, code: ReasonCode, _p: Properties | None
    ) -> None:
        with self._condition:
            self._codes[number] = [code.value]
            self._condition.notify_all()

    def _on_subscribe(
        self, _c: Client, _u: object, number: int, codes: list[ReasonCode], _p: Properties | None
    ) -> None:
        with self._condition:
            self._codes[number] = [code.value for code in codes]
            self._condition.notify_all()

    def _on_message(self, _c: Client, _u: object, message: MQTTMessage) -> None:
        with self._condition:
            self.received.append((message.topic, message.payload.decode()))
            self._condition.notify_all()


def open_tls(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """Connect to a broker and shake hands; no MQTT yet."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def answer_to_connect(
    port: int, context: ssl.SSLContext | None, session: ssl.SSLSession | None = None
) -> bytes:
    """Send an MQTT 3.1.1 CONNECT of the user relay; what comes back before the end."""
    try:
        if context is None:
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain:
                plain.sendall(CONNECT)
                return plain.recv(4)
        with open_tls(port, context, session) as wrapped:
            wrapped.sendall(CONNECT)
            return wrapped.recv(4)
    except (ssl.SSLError, ConnectionError):
        return b""
