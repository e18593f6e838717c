"""What differs between interpreters and ports; no other module asks which one runs it."""

import errno
import io
import os
import select
import socket
import sys
import time

from spinal.packets import LinkError
from spinal.ticks import MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MICROPYTHON = sys.implementation.name == "micropython"

_IPPROTO_TCP = 6
_TCP_NODELAY = 1
_NO_SUCH_OPTION = (errno.EINVAL, errno.EOPNOTSUPP, 92, 109)  # ENOPROTOOPT, and newlib's
_RECORD_HEAD = 5
_TRIES = 8  # with an address; as backoffs and timeouts go, half a minute to three
_MOST_TRIES = 31  # with one that leads nowhere
_MOST_UNKNOWN = 15  # and without any
_WOULD_WAIT = (errno.EAGAIN, errno.EINPROGRESS, errno.EALREADY)

if MICROPYTHON:
    import tls

    # Flushing a file syncs it, on littlefs as on the unix port.
    fsync = None

    def ticks() -> int:
        """Milliseconds as ticks (see `spinal.ticks`)."""
        return time.ticks_ms() & MASK  # type: ignore[operator] # an int, which the stubs hide

    def restart() -> None:
        """Reset the board; does not return."""
        import machine  # noqa: PLC0415 - the pure tests have none

        machine.reset()

    def microseconds(since: int = 0) -> int:
        """A count of microseconds, or how many went by since an earlier one."""
        now: "Any" = time.ticks_us()
        return time.ticks_diff(now, since) if since else now

    def trace(error: Exception) -> str:
        """The stack trace of an exception."""
        text = io.StringIO()
        sys.print_exception(error, text)
        return text.getvalue()

else:
    import traceback  # type: ignore[import-not-found] # CPython's

    def fsync(file: "Any") -> None:
        """Return once the file is on the medium."""
        os.fsync(file.fileno())

    def ticks() -> int:
        """Milliseconds as ticks (see `spinal.ticks`)."""
        return time.monotonic_ns() // 1000000 & MASK  # type: ignore[attr-defined] # CPython's

    def microseconds(since: int = 0) -> int:
        """A count of microseconds, or how many went by since an earlier one."""
        return time.monotonic_ns() // 1000 - since  # type: ignore[attr-defined] # CPython's

    def trace(error: Exception) -> str:
        """The stack trace of an exception."""
        return "".join(traceback.format_exception(error))


def random_below(limit: int) -> int:
    """A random integer from 0 to limit - 1, limit at most 2^31."""
    return int.from_bytes(os.urandom(4), "big") % limit


class Dialler:
    """Makes the connections to one broker, in TLS when `context` is given.

    Looking a name up keeps a board waiting, for seconds where nobody answers, and a hub that is
    down may be the one that would. So an address is kept until it has led nowhere for some time,
    and who found none waits longer each time before it asks again.
    `context` may be what went wrong with the identity: then there are no connections.
    """

    def __init__(self, context: object | None = None, server_name: str | None = None) -> None:
        self.context: "Any" = context
        self.server_name = server_name
        self.tries = 0
        self.most = 0
        """So many tries until the name is looked up again."""
        self._address: "Any" = None

    def __call__(self, host: str, port: int) -> "Transport":
        """Begin to connect; OSError when there is no such name."""
        if isinstance(self.context, Exception):
            raise LinkError("identity", str(self.context))
        if self.tries >= self.most:
            self.tries = 0
            most = _MOST_UNKNOWN if self._address is None else _MOST_TRIES
            self.most = min(2 * self.most + 1, most)
            # A port has few sockets: none is taken before.
            self._address = socket.getaddrinfo(host, port)[0][-1]
            self.most = max(self.most, _TRIES)
        self.tries += 1
        if self._address is None:
            raise OSError(errno.EHOSTUNREACH)
        return Transport(self._address, self)


class Transport:
    """A TCP connection that never waits, in TLS when its dialler has a context for that."""

    held = False
    """Whether the TLS handshake stopped short of sending a record, to go on at the next call."""

    def __init__(self, address: "Any", dialler: Dialler) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)  # noqa: FBT003 - its only argument
        _without_nagle(self.sock)
        self._stream: "Any" = None
        self.records: _OneRecord | None = None
        self._dialler: Dialler | None = dialler
        try:
            self.sock.connect(address)
        except OSError as error:
            if abs(error.args[0]) not in _WOULD_WAIT:
                self.sock.close()
                raise
        self._poller = select.poll()
        self._poller.register(self.sock, select.POLLOUT)

    def ready(self) -> bool:
        """True once TCP is connected; OSError when it was refused."""
        for _, events in self._poller.poll(0):
            if events & (select.POLLERR | select.POLLHUP):
                raise OSError(errno.ECONNREFUSED)
            self._stream = self._wrapped(self._dialler)
            return True
        return False

    def read_into(self, view: memoryview) -> int | None:
        """Bytes read, 0 at the end of the stream, None when there are none yet."""
        if self.records is not None:
            self.records.begin()
        return _unless_waiting(self._stream.readinto, view)

    def write(self, view: memoryview) -> int | None:
        """Bytes taken, None when none can be taken yet (during the TLS handshake, too)."""
        taken = _unless_waiting(self._stream.write, view)
        if self.records is not None:
            self.held = not taken and self.records.held
        if taken and self._dialler is not None:
            self._dialler.tries = 0
            self._dialler.most = _TRIES
            self._dialler = None
            if self.records is not None:
                # The handshake is over: from here on records may come as they do.
                self.records.open = True
                self.records = None
        return taken

    def close(self) -> None:
        """Close at once; the broker then publishes the last will."""
        if self._stream is not None:
            self._stream.close()
        self.sock.close()

    def _wrapped(self, dialler: "Any") -> "Any":
        if not MICROPYTHON:
            return _CPythonStream(self.sock)
        if dialler.context is None:
            return self.sock
        self.records = _OneRecord(self.sock)
        return dialler.context.wrap_socket(
            self.records, server_hostname=dialler.server_name, do_handshake_on_connect=False
        )


class _OneRecord(io.IOBase):
    """A socket that passes one TLS record each way in a turn, until `open` is set.

    mbedTLS goes on with a handshake as long as there is something to read and its records are
    taken: two to five computations of P-256 in one call, 14 ms on a PC, hundreds on a board. Each
    step of the handshake begins with a record that came, or when the one before has gone; so a
    turn ends where a second one would, and reads nothing more once a record is sent.
    """

    def __init__(self, sock: "Any") -> None:
        self.open = False
        self.held = False
        self._may_read = False
        self._may_write = False
        self._sock = sock

    def begin(self) -> None:
        """Let the next record pass, each way."""
        self._may_read = self._may_write = True
        self.held = False

    def readinto(self, buffer: bytearray) -> int | None:
        """As the socket's; an error as a negative number, which mbedTLS passes on."""
        head = not self.open and len(buffer) == _RECORD_HEAD
        if head and not self._may_read:
            return None
        try:
            size: int | None = self._sock.readinto(buffer)
        except OSError as error:
            return -abs(error.args[0])
        if head and size:
            self._may_read = False
        return size

    def write(self, data: bytes) -> int | None:
        """As the socket's; errors as above."""
        if not (self.open or self._may_write):
            self.held = True
            return None
        try:
            size: int | None = self._sock.write(data)
        except OSError as error:
            return -abs(error.args[0])
        if size:
            self._may_read = self._may_write = False
        return size

    def ioctl(self, _request: int, _argument: int) -> int:
        """Nothing to do: the socket itself is polled and closed."""
        return 0


class _CPythonStream:
    """Gives a CPython socket the two calls that MicroPython's have."""

    def __init__(self, sock: "Any") -> None:
        self._sock = sock
        self.readinto = sock.recv_into
        self.write = sock.send

    def close(self) -> None:
        self._sock.close()


def tls_context(certificate: str, key: str, authority: str) -> object:
    """A TLS client context that demands the broker's certificate; takes DER file names.

    Raises OSError naming the file that is missing, ValueError when one cannot be read as DER.
    """
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined] # the stubs lack it
    context.load_verify_locations(_contents(authority))
    context.load_cert_chain(_contents(certificate), _contents(key))
    return context


def _without_nagle(sock: "Any") -> None:
    # Nagle's algorithm holds a small packet back until the one before is acknowledged: 44 ms for a
    # PUBACK followed by a publish. Ports without the option (lwIP in old builds) say so by OSError.
    try:
        sock.setsockopt(_IPPROTO_TCP, _TCP_NODELAY, 1)
    except OSError as error:
        if abs(error.args[0]) not in _NO_SUCH_OPTION:
            raise


def _contents(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise OSError(error.errno, "identity file %s cannot be read" % name) from error


def _unless_waiting(call: "Any", view: memoryview) -> int | None:
    try:
        return call(view)
    except OSError as error:
        # Some ports tell lwIP's numbers, which are negative.
        if error.args and abs(error.args[0]) in _WOULD_WAIT:
            return None
        raise
    except ValueError as error:
        # So mbedTLS tells what it finds wrong with the broker's certificate.
        raise LinkError("tls", str(error).strip()) from error
