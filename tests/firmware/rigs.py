"""What the firmware tests stand on: a real broker, certificates, and a network that goes dead."""

import asyncio
import contextlib
import datetime as dt
import getpass
import ipaddress
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nervus.runtime.settings import free_port
from nervus.simulator import Toolchain

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Broker:
    """A mosquitto process that can be stopped and started again on the same port."""

    config: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        program = shutil.which("mosquitto", path=os.defpath + ":/usr/sbin:/usr/local/sbin")
        assert program, "mosquitto is not installed; run: tools/setup"
        log = self.config.with_suffix(".log").open("ab")
        self.process = subprocess.Popen([program, "-c", self.config], stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 5
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"mosquitto does not listen; see {self.config.parent}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(frozen=True)
class Certificates:
    """A folder with `ca`, `server` and `board`, each as NAME.{cert,key}.{pem,der}."""

    folder: Path

    def path(self, name: str, kind: str, form: str) -> Path:
        return self.folder / f"{name}.{kind}.{form}"


def make_certificates(folder: Path) -> Certificates:
    """An authority, a server certificate for loopback, two clients `m1` and `observer`."""
    loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority = issue(folder, "ca", None, [])
    issue(folder, "server", authority, loopback)
    issue(folder, "m1", authority, [])
    issue(folder, "observer", authority, [])
    return Certificates(folder)


def make_tls_broker(folder: Path, certificates: Certificates) -> Broker:
    """A broker that demands client certificates; CN = username = client id."""
    port = free_port()
    config = folder / "tls-broker.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\n"
        f"cafile {certificates.path('ca', 'cert', 'pem')}\n"
        f"certfile {certificates.path('server', 'cert', 'pem')}\n"
        f"keyfile {certificates.path('server', 'key', 'pem')}\n"
        "require_certificate true\nuse_identity_as_username true\n"
        "use_username_as_clientid true\nallow_anonymous false\nset_tcp_nodelay true\n"
        # Started by root it would give up the right to read the keys.
        f"log_type all\nuser {getpass.getuser()}\n"
    )
    return Broker(config, port)


class FaultProxy:
    """A TCP proxy that breaks what passes: its attributes say how, from now on.

    Attributes:
        open: False swallows everything in both directions, without closing anything.
        latency_s: How long each piece of a stream is held back.
        piece: Bytes passed on at a time, 0 for all; with `pause_s` after each.
        told: Whether the board's side is told when the broker's side ends.
    """

    def __init__(
        self, port: int, near: ssl.SSLContext | None = None, far: ssl.SSLContext | None = None
    ) -> None:
        self.open = True
        self.latency_s = 0.0
        self.piece = 0
        self.pause_s = 0.0
        self.told = True
        self._target = port
        self._near_tls, self._far_tls = near, far
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._near_tls)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for near, _ in self._connections:
            # In Python 3.11.2 a TLS transport that has ended cannot be aborted.
            if not near.is_closing():
                near.transport.abort()
        await self._server.wait_closed()

    def heal(self) -> None:
        """Pass everything on as it comes."""
        self.open = self.told = True
        self.latency_s = self.pause_s = 0.0
        self.piece = 0

    def reset(self) -> None:
        """End the board's side by RST."""
        near, _ = self._connections[-1]
        # An abort with nothing to linger for: RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        near.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        near.transport.abort()

    def half_open(self) -> None:
        """End the broker's side; the board is not told and may go on writing."""
        self.told = False
        self._connections[-1][1].transport.abort()

    def say_to_board(self, data: bytes) -> None:
        """Put bytes of our own into the stream to the board."""
        self._connections[-1][0].write(data)

    async def flood_board(self, data: bytes) -> None:
        """Put the same bytes into the stream to the board as fast as it takes them, for ever."""
        near, _ = self._connections[-1]
        while True:
            near.write(data)
            await near.drain()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.told = True
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1",
            self._target,
            ssl=self._far_tls,
            server_hostname="localhost" if self._far_tls else None,
        )
        self._connections.append((writer, far_writer))
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink, writer)))

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        near: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                while data := await source.read(4096):
                    await self._pass_on(data, sink)
            finally:
                if self.told or sink is not near:
                    sink.close()

    async def _pass_on(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        size = self.piece or len(data)
        for at in range(0, len(data), size):
            if self.open and not sink.is_closing():
                sink.write(data[at : at + size])
                await sink.drain()
            if self.pause_s:
                await asyncio.sleep(self.pause_s)


def issue(
    folder: Path,
    name: str,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    hosts: list[x509.GeneralName],
    begins_in: dt.timedelta = dt.timedelta(minutes=-5),
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins_in)
        .not_valid_after(now + begins_in + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    for ending, form in (("pem", serialization.Encoding.PEM), ("der", serialization.Encoding.DER)):
        (folder / f"{name}.cert.{ending}").write_bytes(certificate.public_bytes(form))
        (folder / f"{name}.key.{ending}").write_bytes(
            key.private_bytes(
                form,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
    return certificate, key


def on_board(folder: Path, script: Path, *arguments: str, heap: str = "192k") -> Any:
    """Run a script on a virtual board without a network; what it printed last."""
    toolchain = replace(Toolchain.locate(), form="ram", heap=heap)
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    with ours, theirs:
        done = subprocess.run(
            [*toolchain.command(script), *arguments],
            cwd=folder,
            env={**toolchain.environment(), "NERVUS_CONTROL_FD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=18,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
