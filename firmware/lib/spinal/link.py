"""The board's MQTT 3.1.1 link: umqtt.simple as the codec, a state machine of our own around it.

`poll` does a bounded piece of work and never waits, so the network cannot hold up a reflex.
umqtt.simple would read and write its socket until a packet is whole; it is given a `Wire`
instead (`spinal.packets`), which gathers what it writes and stops it where it would wait.
"""

import umqtt.simple
from umqtt.simple import MQTTClient, MQTTException

from spinal.packets import (
    CONNACK,
    PUBACK,
    PUBLISH,
    SUBACK,
    Blocked,
    Framer,
    LinkError,
    Sockets,
    Wire,
    subscribe_packet,
)
from spinal.ticks import elapsed, later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOWN = "down"
DIALLING = "dialling"
CONNECTING = "connecting"
SUBSCRIBING = "subscribing"
UP = "up"

_CHUNK = 512
_CHUNKS_PER_POLL = 8
_UNSENT_LIMIT = 2048
_NO_NETWORK_MS = 1000
_REFUSED = 0x80
_NO_ROOM = (12, 0x7F00)  # ENOMEM, and mbedTLS's own


class Settings:
    """What a link is told once; `changes` names any of the values below.

    TypeError for a name that is none of them.
    """

    keepalive_s = 20
    """Seconds; a dead link is noticed within 1.5 times of it."""
    window = 4
    """QoS 1 messages in flight at a time."""
    max_packet = 4096
    """Bytes of the largest packet taken."""
    ack_timeout_ms = 10000
    connect_timeout_ms = 10000
    backoff_ms = 500
    backoff_cap_ms = 15000
    steady_ms = 5000
    """A connection that lasted so long starts the backoff anew."""

    def __init__(self, client_id: str, host: str, port: int, **changes: int) -> None:
        self.client_id = client_id
        self.host = host
        self.port = port
        for name, value in changes.items():
            if not hasattr(Settings, name):
                raise TypeError("a link has no setting " + name)
            setattr(self, name, value)


class Link:
    """One connection to the broker that is made, watched and made again for ever.

    `owner` is told what happens, always from inside `poll`:
    `link_will() -> (topic, payload)` before each attempt, `link_filters() -> [(filter, qos)]`,
    `link_up()`, `link_down(reason, tickets)` with the messages whose PUBACK never came,
    `link_message(topic, payload, retained)` and `link_acked(ticket)`. What `link_message` returns,
    when not None, is the work on the message in pieces: an iterator that does one in each `poll`.
    PUBACK and the next packet follow its end; a link that is lost before takes the rest with it.
    `link_oversize(topic, text)`: a message of more than `max_packet` bytes has been passed over.

    `dial(host, port)` returns a transport: `ready()`, `read_into(view)`, `write(view)`, `close()`,
    `sock` and `held`; reads and writes give None where they would wait, for another turn of the
    loop when `held` says so, else for the network. `network_up()` says whether
    there is a network at all, `random_below(n)` feeds the jitter. Times are ticks (see
    `spinal.ticks`).
    """

    def __init__(
        self,
        config: Settings,
        owner: "Any",
        dial: "Any",
        network_up: "Any",
        random_below: "Any",
    ) -> None:
        self.state = DOWN
        self.busy = False
        self.counters = {"connects": 0, "sent": 0, "received": 0, "acked": 0, "writes": 0}
        self.drops: dict[str, int] = {}
        self.last_error: "Any" = None
        self.caught_up_at = 0
        """Ticks at which all that had come was read. An answer that is missed after that is not
        there; before, it may lie behind the rest."""
        self._config = config
        self._owner = owner
        self.dial = dial
        self._network_up = network_up
        self._random_below = random_below
        self.transport: "Any" = None
        self._wire = Wire()
        self._framer = Framer(config.max_packet)
        self._chunk = bytearray(_CHUNK)
        self._chunk_at = 0
        self._chunk_end = 0
        self._client: "Any" = None
        self._in_flight: dict[int, tuple] = {}
        self._work_left: "Any" = None
        self._answer: "Any" = None
        self._packet_id = 0
        self._subscribing = (0, 0)
        self._attempts = 0
        self._retry_at: int | None = None  # no tick at all: ticks begin anywhere
        self._deadline = 0
        self._up_at = 0
        self._heard_at = 0
        self._spoke_at = 0
        self._ping_deadline: int | None = None
        self._offered = 0
        self._now = 0

    @property
    def sock(self) -> object:
        """What to poll for readability, or None."""
        return self.transport.sock if self.transport else None

    @property
    def wants_write(self) -> bool:
        """True while TCP connects or with bytes that the network has not taken yet."""
        # The first packet lies here throughout the TLS handshake, which waits for the other side: a
        # socket that can be written to would wake the loop again and again, for nothing.
        return self.state == DIALLING or (self.state != CONNECTING and bool(self._wire.unsent))

    def wait_ms(self, now: int) -> int:
        """How long nothing needs doing unless the network or the caller has something."""
        if self.busy:
            return 0
        if self.state == DOWN:
            if not self._network_up():
                return _NO_NETWORK_MS
            return 0 if self._retry_at is None else max(0, -elapsed(now, self._retry_at))
        if self.state != UP:
            return max(0, -elapsed(now, self._deadline))
        due = self._ping_deadline if self._ping_deadline is not None else self._ping_due()
        left = -elapsed(now, due)
        for _, deadline in self._in_flight.values():
            left = min(left, -elapsed(now, deadline))
        return max(0, left)

    def poll(self, now: int) -> None:
        """Do what can be done at once; never waits and never raises for the network's sake."""
        self._now = now
        self.busy = False
        try:
            self._work()
        except OSError as error:
            no_room = error.args and abs(error.args[0]) in _NO_ROOM
            self._drop("no_memory" if no_room else "io", repr(error))
        except MemoryError:
            # TLS asks for more than is left, or for one block larger than any: tried again later.
            self._drop("no_memory", "the heap has no room for the connection")
        except LinkError as error:
            self._drop(error.code, error.text)

    def can_take(self, qos: int) -> bool:
        """True when `publish` would take a message of this quality of service now."""
        return (
            self.state == UP
            and len(self._wire.unsent) < _UNSENT_LIMIT
            and (qos == 0 or len(self._in_flight) < self._config.window)
        )

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        *,
        retain: bool = False,
        ticket: object | None = None,
    ) -> bool:
        """Encode one message for the next `poll` to send; False when it cannot be taken now.

        For QoS 1 `ticket` comes back by `link_acked`, or by `link_down` when the link is lost.
        """
        if not self.can_take(qos):
            return False
        if qos:
            packet_id = self._next_packet_id()
            self._client.pid = packet_id - 1
            self._in_flight[packet_id] = (ticket, later(self._now, self._config.ack_timeout_ms))
        try:
            self._record(self._client.publish, topic, payload, retain, qos)
        except MemoryError:
            # Half a packet in the stream cannot be taken back.
            self._drop("no_memory", "the heap has no room for a packet")
            return False
        self.counters["sent"] += 1
        return True

    def close(self, reason: str = "closed") -> None:
        """Drop the connection; `poll` makes a new one after the backoff."""
        if self.transport:
            self._drop(reason, "asked for by this board")

    def _work(self) -> None:
        if not self._network_up():
            if self.transport:
                raise LinkError("network_down", "there is no network")
            # A network that comes and goes shortens no backoff, or the board would do one TLS
            # handshake after the other. A time gone by moves along: it would lie ahead one day.
            if self._retry_at is not None and self._passed(self._retry_at):
                self._retry_at = self._now
            return
        if self.state == DOWN:
            self._begin()
        if self.state == DIALLING:
            self._greet()
        if self.transport:
            self._receive()
            self._watch()
            self._flush()

    def _begin(self) -> None:
        if self._retry_at is not None and not self._passed(self._retry_at):
            return
        self._deadline = later(self._now, self._config.connect_timeout_ms)
        self._wire.clear()
        self._framer.clear()
        self._chunk_at = self._chunk_end = 0
        self._offered = 0
        self._client = self._new_client()
        self.transport = self.dial(self._config.host, self._config.port)
        self.state = DIALLING

    def _new_client(self) -> MQTTClient:
        umqtt.simple.socket = Sockets(self._wire)  # type: ignore[attr-defined, assignment] # on purpose
        config = self._config
        client = MQTTClient(
            config.client_id, config.host, config.port, keepalive=config.keepalive_s
        )
        client.set_callback(self._on_publish)
        topic, payload = self._owner.link_will()
        client.set_last_will(topic, payload, retain=True, qos=1)
        return client

    def _greet(self) -> None:
        if self.transport.ready():
            self._record(self._client.connect, True)  # noqa: FBT003 - clean_session by position in every umqtt
            self.state = CONNECTING

    def _record(self, encode: "Any", *arguments: object) -> None:
        # umqtt.simple waits for the answer of what it has just sent; the packet at hand, when a
        # handler publishes, is not that answer.
        packet, self._wire.packet = self._wire.packet, None
        try:
            encode(*arguments)
        except Blocked:
            return
        finally:
            self._wire.packet = packet

    def _receive(self) -> None:
        if self.state == DIALLING:
            return
        if self._work_left is not None:
            self._go_on()
            return
        view = memoryview(self._chunk)
        for _ in range(_CHUNKS_PER_POLL):
            if self._chunk_at == self._chunk_end:
                size = self.transport.read_into(view)
                if size is None:
                    self.caught_up_at = self._now
                    return
                if size == 0:
                    raise LinkError("closed_by_broker", "the broker closed the connection")
                self._heard_at = self._now
                self._ping_deadline = None
                self._chunk_at, self._chunk_end = 0, size
            while self._chunk_at < self._chunk_end:
                self._chunk_at += self._framer.feed(view[self._chunk_at : self._chunk_end])
                if self._framer.packet is None:
                    continue
                packet = self._framer.take()
                self._take(packet)
                if packet[0] & 0xF0 == PUBLISH:
                    # A message costs the board milliseconds: reflexes come before the next one.
                    self.busy = True
                    return
        self.busy = True

    def _go_on(self) -> None:
        self.busy = True
        for _ in self._work_left:
            return
        self._work_left = None
        self._wire.write(self._answer)

    def _take(self, packet: bytearray) -> None:
        kind = packet[0] & 0xF0
        self._wire.packet = memoryview(packet)
        self._wire.at = 0
        try:
            if (kind == CONNACK) != (self.state == CONNECTING):
                raise LinkError("protocol", "packet %#x while %s" % (packet[0], self.state))
            if kind == CONNACK:
                self._on_connack()
            elif kind == PUBACK:
                self._on_puback(packet)
            elif kind == SUBACK:
                self._on_suback(packet)
            elif kind == PUBLISH and self._framer.size > self._config.max_packet:
                self._pass_over(packet)
            elif kind == PUBLISH:
                self._take_message()
            else:
                self._client.wait_msg()
        finally:
            self._wire.packet = None

    def _take_message(self) -> None:
        # umqtt.simple writes the PUBACK as soon as its handler returns; the work may begin then.
        unsent, self._wire.unsent = self._wire.unsent, bytearray()
        try:
            self._client.wait_msg()
        finally:
            self._answer, self._wire.unsent = self._wire.unsent, unsent
        if self._work_left is None:
            self._wire.write(self._answer)

    def _pass_over(self, packet: bytearray) -> None:
        at = 1
        while packet[at] & 0x80:
            at += 1
        at += 3
        end = at + (packet[at - 2] << 8 | packet[at - 1])
        error = self._framer.oversize()
        if end + 2 > len(packet):
            raise error
        self._owner.link_oversize(bytes(packet[at:end]), error.text)
        if packet[0] & 2:
            # Or the broker would offer it again and again.
            self._wire.write(b"\x40\x02")
            self._wire.write(packet[end : end + 2])

    def _on_connack(self) -> None:
        self._wire.muted = True
        try:
            self._client.connect(True)  # noqa: FBT003 - as in _greet
        except MQTTException as error:
            raise LinkError("refused", "CONNACK return code %s" % error.args[0]) from error
        finally:
            self._wire.muted = False
        self.counters["connects"] += 1
        filters = self._owner.link_filters()
        packet_id = self._next_packet_id()
        self._subscribing = (packet_id, len(filters))
        self._wire.write(subscribe_packet(packet_id, filters))
        self._deadline = later(self._now, self._config.ack_timeout_ms)
        self.state = SUBSCRIBING

    def _on_suback(self, packet: bytearray) -> None:
        packet_id, count = self._subscribing
        codes = bytes(packet[-count:])
        if packet[2] << 8 | packet[3] != packet_id or len(packet) != 4 + count:
            raise LinkError("protocol", "a SUBACK that does not fit the SUBSCRIBE")
        if _REFUSED in codes:
            raise LinkError("subscribe_refused", "SUBACK codes " + str(list(codes)))
        self._up_at = self._heard_at = self._spoke_at = self.caught_up_at = self._now
        self.state = UP
        self._owner.link_up()

    def _on_puback(self, packet: bytearray) -> None:
        entry = self._in_flight.pop(packet[2] << 8 | packet[3], None)
        if entry is None:
            raise LinkError("protocol", "a PUBACK for nothing in flight")
        self.counters["acked"] += 1
        self._owner.link_acked(entry[0])

    def _on_publish(self, topic: str, payload: bytes) -> None:
        self.counters["received"] += 1
        retained = bool(self._wire.packet[0] & 1)
        self._work_left = self._owner.link_message(topic, payload, retained=retained)

    def _watch(self) -> None:
        if self.state != UP:
            if self._passed(self._deadline):
                raise LinkError("connect_timeout", "no answer while " + self.state)
            return
        for packet_id, (_, deadline) in self._in_flight.items():
            if elapsed(self.caught_up_at, deadline) >= 0:
                raise LinkError("puback_timeout", "no PUBACK for packet %d" % packet_id)
        if self._ping_deadline is not None:
            if self._passed(self._ping_deadline):
                raise LinkError("ping_timeout", "no PINGRESP")
        elif self._passed(self._ping_due()):
            self._client.ping()
            self._ping_deadline = later(self._now, self._config.keepalive_s * 750)
        if elapsed(self._now, self._up_at) >= self._config.steady_ms:
            self._attempts = 0

    def _ping_due(self) -> int:
        spoke_first = elapsed(self._heard_at, self._spoke_at) > 0
        quiet_since = self._spoke_at if spoke_first else self._heard_at
        return later(quiet_since, self._config.keepalive_s * 500)

    def _passed(self, deadline: int) -> bool:
        return elapsed(self._now, deadline) >= 0

    def _flush(self) -> None:
        unsent = self._wire.unsent
        if not unsent or self.state == DIALLING:
            return
        # TLS must be offered the same bytes again after it could not take them all (mbedTLS
        # returns the new length for the old record otherwise), so an offer never grows.
        self._offered = self._offered or len(unsent)
        taken = self.transport.write(memoryview(unsent)[: self._offered])
        if taken is None:
            self.busy = self.busy or self.transport.held
            return
        self.counters["writes"] += 1
        self._offered = 0
        self._spoke_at = self._now
        self._wire.sent(taken)
        if self._wire.unsent:
            self.busy = True

    def _drop(self, code: str, text: str) -> None:
        transport, self.transport = self.transport, None
        self.state = DOWN
        self._ping_deadline = None
        self.last_error = (code, text)
        self.drops[code] = self.drops.get(code, 0) + 1
        tickets = [ticket for ticket, _ in self._in_flight.values()]
        self._in_flight.clear()
        self._work_left = None
        self._wire.clear()
        if transport:
            transport.close()
        # Full jitter: delay = random(0, min(cap, base * 2^attempts)), after Brooker, "Exponential
        # Backoff and Jitter" (AWS Architecture Blog, 2015).
        ceiling = min(
            self._config.backoff_cap_ms, self._config.backoff_ms << min(self._attempts, 10)
        )
        self._attempts += 1
        self._retry_at = later(self._now, self._random_below(ceiling + 1))
        self._owner.link_down(code, tickets)

    def _next_packet_id(self) -> int:
        while True:
            self._packet_id = self._packet_id % 65535 + 1
            if self._packet_id not in self._in_flight:
                return self._packet_id
