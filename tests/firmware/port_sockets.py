"""Sockets with the manners of the ports, which the unix port hides; runs on both interpreters.

`Net` stands in for the modules `socket` and `select` inside `spinal.compat` and for a TLS context.
Behind it a broker as small as can be answers CONNECT, SUBSCRIBE, QoS 1 PUBLISH and PINGREQ.
"""

POLLIN, POLLOUT, POLLERR, POLLHUP = 1, 4, 8, 16
TLS_RECORD = 40
AGAIN = 11
# The records of a handshake: whether each goes out, and its bytes.
HANDSHAKE = (
    (True, 450), (False, 65), (False, 656), (False, 5), (False, 4), (True, 319), (True, 42),
    (True, 85), (True, 6), (False, 1), (False, 32),
)  # fmt: skip


class Hang(Exception):  # noqa: N818 - what it stands for is worse than an error
    """A call was made that would never return on this port."""


class Port:
    """How one port behaves: error numbers as it tells them, and how much it takes at a time."""

    def __init__(self, name: str, **manners: object) -> None:
        self.name = name
        self.in_progress = 115
        self.again: int | None = None  # None: a call gives None where it would wait
        self.timed_out = 110
        self.reset = 104
        self.lookup_failed = -2
        self.no_such_option: int | None = None
        self.takes = 1 << 16  # bytes of one write
        self.refused_by = POLLERR | POLLHUP
        self.keeps_timeout = True  # after setblocking(True); false on boards
        self.no_room: type[Exception] | int = MemoryError
        for word, value in manners.items():
            setattr(self, word, value)


PORTS = (
    Port("unix"),
    Port(
        "esp32",
        in_progress=119,
        timed_out=116,
        lookup_failed=-202,
        no_such_option=109,
        takes=1436,
        refused_by=POLLHUP,
        keeps_timeout=False,
        no_room=12,
    ),
    Port(
        "pico",
        again=11,
        lookup_failed=-6,
        no_such_option=22,
        takes=536,
        refused_by=POLLOUT,  # writable, and the first call fails
        keeps_timeout=False,
        no_room=-0x7F00,  # MBEDTLS_ERR_SSL_ALLOC_FAILED
    ),
    Port("lwip", again=-11, in_progress=-115, timed_out=-110, reset=-104, takes=16),
)


class Net:
    """The network of a port: what its link dials comes out here."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.open_sockets = 0
        self.connects_after = 1  # polls
        self.refuses = False
        self.resolves = True
        self.lives_at = "10.0.0.1"
        self.look_ups = 0
        self.alive = True
        self.fails: int | None = None  # raised by the next read
        self.ends = False
        self.room = True
        self.steps = 0  # of TLS handshakes, and the most that one call took
        self.most_steps = 0
        self.published: list[bytes] = []

    # The modules' own names, as spinal.compat calls them.

    POLLIN, POLLOUT, POLLERR, POLLHUP = POLLIN, POLLOUT, POLLERR, POLLHUP

    def socket(self) -> "Socket":
        self.open_sockets += 1
        return Socket(self)

    def getaddrinfo(self, _host: str, port: int) -> list:
        self.look_ups += 1
        if not self.resolves:
            raise OSError(self.port.lookup_failed)
        return [(2, 1, 0, "", (self.lives_at, port))]

    def poll(self) -> "Poller":
        return Poller()

    def wrap_socket(self, stream: object, **_options: object) -> "TLS":
        if not self.room:
            if isinstance(self.port.no_room, int):
                raise OSError(self.port.no_room, "MBEDTLS_ERR_SSL_ALLOC_FAILED")
            raise self.port.no_room
        return TLS(stream, self)


class Poller:
    """select.poll() of one socket."""

    def register(self, sock: "Socket", _events: int) -> None:
        self._sock = sock

    def poll(self, _ms: int) -> list:
        return self._sock.polled()


class Socket:
    """One connection of a board to the little broker."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._blocking = True
        self._timeout: float | None = None
        self._polls = 0
        self._turn = 0
        self._in = bytearray()
        self._out = bytearray()
        self._closed = False
        self._there = True
        self.shaking = False  # a TLS handshake goes on

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket's own call
        self._blocking = flag
        if flag and not self._net.port.keeps_timeout:
            self._timeout = None

    def settimeout(self, seconds: "float | None") -> None:
        self._timeout = seconds
        self._blocking = seconds is None or seconds > 0

    def setsockopt(self, *_option: object) -> None:
        if self._net.port.no_such_option is not None:
            raise OSError(self._net.port.no_such_option)

    def connect(self, address: tuple) -> None:
        self._there = address[0] == self._net.lives_at
        self._would_wait(self._net.port.in_progress)

    def polled(self) -> list:
        self._polls += 1
        if self._net.refuses or not self._there:
            return [(self, self._net.port.refused_by)]
        return [(self, POLLOUT)] if self._polls > self._net.connects_after else []

    def readinto(self, view: "bytearray | memoryview") -> "int | None":
        net = self._net
        if net.refuses:
            raise OSError(111)
        if net.fails is not None:
            failure, net.fails = net.fails, None
            raise OSError(failure)
        if net.ends:
            return 0
        if not self._in:
            return self._would_wait(net.port.again)
        size = min(len(view), len(self._in))
        view[:size] = self._in[:size]
        self._in = self._in[size:]
        return size

    def write(self, view: "bytes | memoryview") -> "int | None":
        self._turn += 1
        if self._turn % 2:
            # Its buffer is full each second time.
            return self._would_wait(self._net.port.again)
        size = min(len(view), self._net.port.takes)
        if self._net.alive and not self.shaking:
            self._out.extend(view[:size])
            self._answer()
        return size

    def say(self, data: bytes) -> None:
        self._in.extend(data)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._net.open_sockets -= 1

    def _would_wait(self, number: "int | None") -> None:
        if self._blocking:
            raise Hang(self._net.port.name)
        if number is not None:
            raise OSError(number)

    def _answer(self) -> None:
        while len(self._out) > 1:
            size, at, shift = 0, 1, 0
            while at < len(self._out):
                size |= (self._out[at] & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if not self._out[at - 1] & 0x80:
                    break
            if len(self._out) < at + size or self._out[at - 1] & 0x80:
                return
            kind, body = self._out[0] & 0xF0, bytes(self._out[at : at + size])
            self._out = self._out[at + size :]
            if kind == 0x10:
                self._in.extend(b"\x20\x02\x00\x00")
            elif kind == 0x80:
                self._in.extend(b"\x90\x03" + body[:2] + b"\x01")
            elif kind == 0x30:
                topic = body[0] << 8 | body[1]
                self._net.published.append(body[topic + 4 :])
                self._in.extend(b"\x40\x02" + body[topic + 2 : topic + 4])
            elif kind == 0xC0:
                self._in.extend(b"\xd0\x00")


class TLS:
    """A TLS stream without a cipher; each call takes its handshake as far as the stream lets it.

    Its other side says all that comes next once it was told all that comes before.
    """

    def __init__(self, stream: object, net: Net) -> None:
        self._stream = stream
        self._net = net
        self._steps = list(HANDSHAKE)
        self._buffer = memoryview(bytearray(1024))
        self._record = 0  # bytes of the record at hand, 0 before its head was read or it was begun
        self._at = 0
        self._sock = stream._sock
        self._sock.shaking = True

    def readinto(self, view: "bytearray | memoryview") -> "int | None":
        return _passed_on(self._stream.readinto(view)) if self._ready() else None

    def write(self, view: "bytes | memoryview") -> "int | None":
        piece = memoryview(view)[:TLS_RECORD]
        return _passed_on(self._stream.write(piece)) if self._ready() else None

    def close(self) -> None:
        """The socket below is closed by its owner."""

    def _ready(self) -> bool:
        steps = 0
        while self._steps and self._step(*self._steps[0]):
            del self._steps[0]
            steps += 1
        self._net.steps += steps
        self._net.most_steps = max(steps, self._net.most_steps)
        self._sock.shaking = bool(self._steps)
        return not self._steps

    def _step(self, out: bool, size: int) -> bool:  # noqa: FBT001 - as in the table above
        """Send or read what is left of one record; whether that is done."""
        if out:
            done = self._move(self._stream.write, 5 + size)
            if done and len(self._steps) > 1:
                for _, answer in self._answers():
                    self._sock.say(bytes((22, 3, 3, answer >> 8, answer & 255)) + bytes(answer))
            return done
        if not self._record and self._move(self._stream.readinto, 5):
            self._record = self._buffer[3] << 8 | self._buffer[4]
        if self._record and self._move(self._stream.readinto, self._record):
            self._record = 0
            return True
        return False

    def _move(self, call: object, size: int) -> bool:
        while self._at < size:
            moved = _passed_on(call(self._buffer[self._at : size]))
            if moved is None:
                return False
            self._at += moved
        self._at = 0
        return True

    def _answers(self) -> list:
        following = self._steps[1:]
        ends = [n for n, step in enumerate(following) if step[0]]
        return following[: ends[0]] if ends else following


def _passed_on(size: "int | None") -> "int | None":
    """As MicroPython reads what a stream in Python returns: negative numbers are errors."""
    if size is None or size >= 0:
        return size
    if size == -AGAIN:
        return None
    raise OSError(-size)
