"""A session: one identity on one broker, for as long as the part runs."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final, Literal, NamedTuple, Never

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from nervus.bus.address import BrokerAddress, Filter, Limits
from nervus.bus.backoff import Backoff
from nervus.bus.client import Client, client_class
from nervus.bus.counters import SessionCounters
from nervus.bus.errors import (
    MessageExpiredError,
    MessageShedError,
    PublishDeniedError,
    PublishError,
    PublishTimeoutError,
    SubscriptionRefusedError,
    UnheardError,
)
from nervus.bus.failure import first_failure
from nervus.bus.outbox import Outbox, Outgoing
from nervus.bus.reasons import (
    NO_SUBSCRIBERS,
    NOT_AUTHORIZED,
    PASSING,
    QUOTA_EXCEEDED,
    to_do,
    to_do_about,
)
from nervus.tasks import cancel_and_wait
from nervus.wire import Packet

OnPacket = Callable[[Packet], Awaitable[None]]
OnConnect = Callable[[], Awaitable[None]]
OnTrouble = Callable[[str, str | None], None]
"""Takes who suffers, as `relay at core`, and from what; None from nothing any longer."""
Sink = Callable[["Delivery"], None]

_CLIENT: Final = client_class()
_new: Final = tuple.__new__
_FAILURE: Final = 0x80
_HEADER_BYTES: Final = 18
"""Of a PUBLISH at most: type, remaining length, topic length, id, properties with expiry."""
_LOG: Final = logging.getLogger(__name__)


class Delivery(NamedTuple):
    """A packet and the right to acknowledge it.

    Until it is acknowledged, the broker counts a QoS 1 packet against the session's receive
    maximum and sends no more beyond that.
    """

    packet: Packet
    qos: int
    client: Client
    mid: int

    def acknowledge(self) -> None:
        """Tell the broker that what the packet asks is done, or safe in a store."""
        if self.qos:
            self.client.acknowledge(self.mid)


class Session:
    """Connects, subscribes, receives and sends; again and again, with growing delays.

    MQTT 5, clean start: what a broker kept for us while we were away is never acted on late, unless
    `limits.durable` asks for it.
    A packet is acknowledged after `on_packet` returned. QoS 1 messages that were sent and not
    confirmed when the link broke are sent again, in order.

    Args:
        identity: The client id; with TLS also the certificate's common name.
        broker: Which broker this is.
        address: Where it listens.
        filters: What to subscribe to, retain-as-published; the filters must not overlap.
        on_packet: Takes the packets one after the other. Without it, `attach` a sink.
        on_connect: Called after each subscription: republishes retained state.
        limits: How much the session holds and how long it waits.
        wants: Says by its topic whether a packet is ours; the others are left to their owner.
        clock: Unix milliseconds.
    """

    def __init__(  # noqa: PLR0913  who, where, what: all of it is needed to connect at all
        self,
        identity: str,
        broker: Literal["spinal", "core"],
        address: BrokerAddress,
        *,
        filters: Sequence[Filter] = (),
        on_packet: OnPacket | None = None,
        on_connect: OnConnect | None = None,
        limits: Limits | None = None,
        wants: Callable[[str], bool] | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.identity = identity
        self.broker: Literal["spinal", "core"] = broker
        self.address = address
        self.counters = SessionCounters()
        self.trouble: str | None = None
        """Why it is not connected, or cannot send, and what to do; None while all is well."""
        self._filters = tuple(filters)
        self._on_packet = on_packet
        self._on_connect = on_connect
        self._on_trouble: OnTrouble | None = None
        self._limits = limits or Limits()
        self._wants = wants
        self._clock = clock
        self._sink: Sink = self._queue
        self._on_read: Callable[[], None] = lambda: None
        self._incoming: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._outbox = Outbox(self._limits.outgoing)
        self._waiting = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._unconfirmed: dict[int, Outgoing] = {}
        self._refused: list[Outgoing] = []
        self._up = asyncio.Event()
        self._ending = False
        self._sending: Client | None = None
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        # Jitter only has to differ between parts: no secret, and no need to repeat it.
        self._backoff, self._quota = (
            Backoff(
                self._limits.backoff_base_ms,
                self._limits.backoff_cap_ms,
                Random().random,  # noqa: S311  see above
            )
            for _ in range(2)
        )

    @property
    def _who(self) -> str:
        return f"{self.identity} at {self.broker}"

    @property
    def connected(self) -> bool:
        """Whether the session is connected and subscribed."""
        return self._up.is_set()

    @property
    def receive_maximum(self) -> int:
        """How many QoS 1 packets the broker may send before one is acknowledged."""
        return self._limits.receive_maximum

    @property
    def backlog(self) -> int:
        """Messages that wait to be sent or confirmed."""
        return len(self._outbox) + len(self._unconfirmed) + len(self._refused)

    async def wait_connected(self) -> None:
        """Wait until the session is connected and subscribed."""
        await self._up.wait()

    def attach(
        self,
        sink: Sink,
        on_connect: OnConnect | None = None,
        on_read: Callable[[], None] = lambda: None,
    ) -> None:
        """Give `sink` every delivery, to bound and acknowledge; `on_read` is told of each read."""
        self._sink, self._on_read = sink, on_read
        self._on_connect = on_connect or self._on_connect

    def tell_trouble(self, on_trouble: OnTrouble | None) -> None:
        """Have each change of `trouble` told; whoever was told before hears that it is over."""
        if self._on_trouble is not None and self.trouble is not None:
            self._on_trouble(self._who, None)
        self._on_trouble = on_trouble

    def post(self, message: Outgoing) -> None:
        """Queue a message; `message.done` tells how it went. Never waits.

        It goes out in the order of the posts, once the session is connected and while it lives. A
        full queue sheds the oldest message of the lowest priority.
        """
        client = self._sending
        if client is not None and not self._outbox and self._has_room(client):
            # Nearly always; to wake the sender for it would be two turns of the loop.
            try:
                self._send(client, message)
            except aiomqtt.MqttError as error:
                _LOG.debug(
                    "%s: %s waits for the next link: %s", self.identity, message.topic, error
                )
            return
        self._settle_shed(self._outbox.push(message))
        self._waiting.set()

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        expiry_ms: int | None = None,
        deadline_s: float = 5.0,
    ) -> None:
        """Publish, and wait until the broker has it (QoS 1) or the socket took it (QoS 0).

        Raises:
            PublishDeniedError: The broker forbids it.
            PublishTimeoutError: Not confirmed by the deadline; it may arrive yet.
            PublishError: Refused for another reason, expired, or shed.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: PublishError | None) -> None:
            if not future.done():
                future.set_exception(error) if error else future.set_result(None)

        expires_ms = None if expiry_ms is None else self._clock() + expiry_ms
        self.post(
            Outgoing(topic, payload, qos, retain, expires_ms=expires_ms, done=done, awaited=True)
        )
        try:
            async with asyncio.timeout(deadline_s):
                await future
        except TimeoutError as error:
            raise PublishTimeoutError(
                f"not confirmed after {deadline_s:g} s", where=topic, hint="is the broker up?"
            ) from error

    async def run(self) -> Never:
        """Keep the session up until cancelled.

        Raises:
            SubscriptionRefusedError: The broker refused a filter.
            Exception: Whatever `on_packet`, `on_connect`, a sink or a message's `done` raised.
        """
        self._ending = False
        tasks = [asyncio.create_task(self._stay_connected(), name=f"{self.identity} {self.broker}")]
        if self._on_packet is not None:
            tasks.append(asyncio.create_task(self._dispatch(self._on_packet), name="dispatch"))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Said before the tasks are cancelled: a cancellation that comes together with a result
            # or with the end of a link is lost, in `wait_for` and `TaskGroup` of Python 3.11.
            self._ending = True
            await cancel_and_wait(*tasks)
        raise AssertionError("a session ends by cancellation or by an error")

    async def _stay_connected(self) -> Never:
        while True:
            started_ms = self._clock()
            try:
                await self._serve()
            except aiomqtt.MqttError as error:
                self.counters.failures += 1
                self._suffer("; ".join(filter(None, (str(error), to_do_about(error)))))
            if self._clock() - started_ms >= self._limits.stable_ms:
                self._backoff.reset()
            if self._ending:
                raise asyncio.CancelledError
            await asyncio.sleep(self._backoff.next_ms() / 1000)

    async def _serve(self) -> None:
        counters, broker, wants, sink = self.counters, self.broker, self._wants, self._sink

        def deliver(topic: str | None, payload: bytes, qos: int, retain: bool, mid: int) -> None:  # noqa: FBT001 - a packet's flag
            counters.received += 1
            try:
                if topic is None or (wants is not None and not wants(topic)):
                    self._pass_over(client, topic, qos, mid)
                    return
                # As Packet(…) and Delivery(…), without the Python functions their constructors are.
                packet = _new(Packet, (broker, topic, payload, retain))
                sink(_new(Delivery, (packet, qos, client, mid)))
            except Exception as error:  # noqa: BLE001  as in _keep_failure, without a call more
                self._fail(error)

        confirm = partial(self._keep_failure, self._confirm)
        on_read = partial(self._keep_failure, self._on_read)
        client = _CLIENT(self.address, self.identity, self._limits, deliver, confirm, on_read)
        try:
            async with client:
                await self._subscribe(client)
                if not self._ending:
                    self.counters.connects += 1
                    await self._until_gone(client)
        finally:
            self._sending = None
            self._up.clear()
            client.release()
            self._take_back()

    async def _until_gone(self, client: Client) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.disconnected(), name="link")
                tasks.create_task(self._send_all(client), name="sender")
                tasks.create_task(self._greet(), name="greeting")
                tasks.create_task(self._raise_failure(), name="failure")
        except BaseExceptionGroup as group:
            raise first_failure(group) from group

    def _keep_failure(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001  aiomqtt would take it for a broken link; `run` raises it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._failed.set()

    async def _raise_failure(self) -> Never:
        await self._failed.wait()
        assert self._failure is not None  # noqa: S101  set before the event
        raise self._failure

    async def _greet(self) -> None:
        if self._on_connect is not None:
            await self._on_connect()
        self._suffer(None)
        self._up.set()

    def _suffer(self, trouble: str | None) -> None:
        """Tell a trouble once, not with each of the attempts that a night has."""
        if trouble == self.trouble:
            return
        self.trouble = trouble
        level = logging.INFO if trouble is None else logging.WARNING
        where = f"{self.identity}: {self.broker} at {self.address.host}:{self.address.port}"
        _LOG.log(level, "%s: %s", where, trouble or "all is well again")
        if self._on_trouble is not None:
            self._on_trouble(self._who, trouble)

    async def _subscribe(self, client: Client) -> None:
        if not self._filters:
            return
        codes = await client.subscribe_all(self._filters)
        for wanted, code in zip(self._filters, codes, strict=True):
            if code.value in PASSING:
                _LOG.warning("%s: %s refuses %s for now", self.identity, self.broker, wanted.topic)
                raise aiomqtt.MqttCodeError(code)
            if code.value >= _FAILURE:
                raise SubscriptionRefusedError(
                    f"{self.broker} broker: {code} (0x{code.value:02x}) for {self.identity}",
                    where=wanted.topic,
                    hint="does its role subscribe there in topics.json?",
                )

    def _pass_over(self, client: Client, topic: str | None, qos: int, mid: int) -> None:
        """Leave a packet to its owner, or to nobody where its topic is not even a text."""
        if topic is None:
            self.counters.dropped += 1
        else:
            self.counters.foreign += 1
        if qos:
            # Never again: a broker that lets it through would send it once more.
            client.acknowledge(mid)

    def _queue(self, delivery: Delivery) -> None:
        room = self._limits.incoming - (0 if delivery.qos else self._limits.receive_maximum)
        if len(self._incoming) >= max(1, room) and not delivery.qos:
            self.counters.dropped += 1
            return
        self._incoming.append(delivery)
        self._arrived.set()

    async def _dispatch(self, on_packet: OnPacket) -> Never:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._incoming:
                delivery = self._incoming.popleft()
                await on_packet(delivery.packet)
                delivery.acknowledge()

    async def _send_all(self, client: Client) -> Never:
        """Send what could not be sent when it was posted."""
        self._sending = client
        while True:
            while not self._outbox and not self._refused:
                self._waiting.clear()
                await self._waiting.wait()
            if self._refused and not self._unconfirmed:
                self._put_refused_back()
                await asyncio.sleep(self._quota.next_ms() / 1000)
            elif self._has_room(client):
                self._send(client, self._outbox.pop())
            elif client.unsent >= self._limits.unsent:
                await client.drained()
            else:
                self._confirmed.clear()
                await self._confirmed.wait()

    def _has_room(self, client: Client) -> bool:
        """Whether a message may be sent now."""
        in_flight = min(self._limits.in_flight, client.broker_receive_maximum)
        free = len(self._unconfirmed) < in_flight and client.unsent < self._limits.unsent
        return free and not self._refused

    def _send(self, client: Client, message: Outgoing) -> None:
        expiry_s = None
        if message.expires_ms is not None:
            left_ms = message.expires_ms - self._clock()
            if left_ms <= 0:
                self.counters.expired += 1
                message.finish(MessageExpiredError("expired unsent", where=message.topic))
                return
            expiry_s = -(-left_ms // 1000)
        size = len(message.payload) + len(message.topic.encode()) + _HEADER_BYTES
        if size > client.broker_packet_maximum:
            # The broker would end the connection, again for each attempt.
            self.counters.refused += 1
            limit = client.broker_packet_maximum
            error = f"{size} bytes, the broker takes {limit}"
            _LOG.error("%s: %s not sent: %s", self.identity, message.topic, error)
            message.finish(PublishError(error, where=message.topic))
            return
        try:
            mid = client.send(
                message.topic,
                message.payload,
                message.qos,
                retain=message.retain,
                expiry_s=expiry_s,
            )
        except aiomqtt.MqttError:
            self._settle_shed(self._outbox.put_back(message))
            raise
        if message.qos:
            self._unconfirmed[mid] = message
        else:
            self.counters.published += 1
            message.finish(None)

    def _confirm(self, mid: int, code: ReasonCode) -> None:
        message = self._unconfirmed.pop(mid, None)
        if message is None:
            return
        self._confirmed.set()
        if code.value < _FAILURE:
            self.counters.published += 1
            self._quota.reset()
            if self.trouble is not None:
                self._suffer(None)
            unheard = message.heard and code.value == NO_SUBSCRIBERS
            error = UnheardError("nobody listens there", where=message.topic) if unheard else None
            message.finish(error)
            return
        if code.value == QUOTA_EXCEEDED:
            self.counters.deferred += 1
            self._refused.append(message)
            self._waiting.set()
            return
        denied = code.value == NOT_AUTHORIZED
        self.counters.denied += denied
        self.counters.refused += not denied
        level = logging.DEBUG if message.awaited else logging.WARNING
        _LOG.log(level, "%s: %s refused %s: %s", self.identity, self.broker, message.topic, code)
        kind = PublishDeniedError if denied else PublishError
        message.finish(
            kind(
                f"{code} (0x{code.value:02x}) for {self.identity}",
                where=message.topic,
                hint="does its role publish there in topics.json?" if denied else "",
            )
        )

    def _put_refused_back(self) -> None:
        """Let what the broker had no room for be sent again, in its order."""
        trouble = f"no room for {len(self._refused)} messages: {to_do(QUOTA_EXCEEDED)}"
        self._suffer(trouble)
        for message in reversed(self._refused):
            self._settle_shed(self._outbox.put_back(message))
        self._refused.clear()

    def _take_back(self) -> None:
        if self._refused:
            self._put_refused_back()
        for message in reversed(self._unconfirmed.values()):
            self.counters.resent += 1
            self._settle_shed(self._outbox.put_back(message))
        self._unconfirmed.clear()
        self._confirmed.set()

    def _settle_shed(self, message: Outgoing | None) -> None:
        if message is not None:
            self.counters.shed += 1
            message.finish(MessageShedError("the outbox is full", where=message.topic))
