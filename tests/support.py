"""What tests of several folders share: a prepared house, and foreign MQTT clients."""

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import coverage
import pytest

from nervus.runtime.brokers import brokers, prepare_brokers
from nervus.runtime.identity import Authority, Identity
from nervus.runtime.rights import refresh_rights
from nervus.runtime.settings import BrokerSettings, Settings, create_settings
from nervus.runtime.state import BROKERS, BrokerName, StateFolder
from nervus.runtime.status import read_status

DEADLINE_S = 12.0
PROBER = "prober"
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: of a test that fails on its way to the end of it nothing stays running."""


@dataclass(frozen=True)
class House:
    """A state folder with its settings and authority."""

    state: StateFolder
    settings: Settings
    authority: Authority
    listeners: list["Listener"] = field(default_factory=list)

    def log(self, broker: BrokerName) -> str:
        """Return what a broker of the `running_house` fixture has written so far."""
        return (self.state.broker(broker) / "log").read_text()

    def join(self, name: str, role: str, scope: str | None = None) -> Identity:
        """Issue an identity to brokers that run; its rights are in force on return."""
        identity = self.authority.issue(name, role, scope)
        assert self.refresh() == list(BROKERS)
        return identity

    def refresh(self, **options: float) -> list[BrokerName]:
        """Put the rights of all identities in force; which brokers hold to them."""

        def run() -> list[BrokerName]:
            state, settings = self.state, self.settings
            return asyncio.run(refresh_rights(state, settings, self.authority, PROBER, **options))

        # Fixtures in an event loop call it too.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()

    def client_arguments(self, identity: Identity, broker: BrokerName) -> list[str]:
        """Options with which mosquitto_pub and mosquitto_sub connect as `identity`."""
        listener = self.settings.brokers.get(broker)
        return [
            *("-h", listener.connect_host, "-p", str(listener.port)),
            *("--cafile", str(identity.ca)),
            *("--cert", str(identity.cert), "--key", str(identity.key)),
        ]

    def publish(
        self, identity: Identity, broker: BrokerName, topic: str, text: str, *options: str
    ) -> subprocess.CompletedProcess[str]:
        """Publish with mosquitto_pub, QoS 1 unless `options` say otherwise."""
        arguments = self.client_arguments(identity, broker)
        command = ["mosquitto_pub", *arguments, "-q", "1", "-t", topic, "-m", text, *options]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )

    def listen(
        self, identity: Identity, broker: BrokerName, topics: Sequence[str], count: int
    ) -> "Listener":
        """Subscribe with mosquitto_sub, ready when this returns; ended with the fixture."""
        arguments = [*self.client_arguments(identity, broker), "-C", str(count)]
        self.listeners.append(Listener(arguments, topics))
        return self.listeners[-1]


class Listener:
    """A mosquitto_sub that ends after a count of messages."""

    def __init__(self, arguments: list[str], topics: Sequence[str]) -> None:
        filters = [word for topic in topics for word in ("-t", topic)]
        # -d tells of the granted subscription before the first message can be missed.
        command = ["mosquitto_sub", *arguments, "-q", "1", "-v", "-d", *filters]
        self._process = subprocess.Popen(
            ["stdbuf", "-oL", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,  # so that reading a line takes nothing that comes after it
        )
        self._messages: list[str] = []
        self._read_until("Subscribed")

    def messages(self) -> list[str]:
        """All messages as `topic text`, once the count is reached."""
        if not self._process.stdout or self._process.stdout.closed:
            return self._messages
        output, _ = self._process.communicate(timeout=DEADLINE_S)
        lines = output.decode().splitlines()
        self._messages = [line for line in lines if line.startswith(("/", "$"))]
        return self._messages

    def close(self) -> list[str]:
        """End it however far it got; the messages so far."""
        self._process.terminate()
        return self.messages()

    def _read_until(self, word: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if word.encode() in line:
                return
        raise AssertionError(f"mosquitto_sub ended without {word!r}")


def prepared_house(path: Path) -> House:
    """Create a state folder that could run."""
    state = StateFolder.create(path)
    settings = create_settings(state)
    authority = Authority.create(state)
    prepare_brokers(state, settings, authority)
    return House(state, settings, authority)


@contextmanager
def broker_processes(house: House) -> Iterator[None]:
    """Run both brokers of a house; its listeners end with them."""
    with ExitStack() as ending:
        for broker in brokers(house.state, house.settings):
            log = broker.folder / "log"
            with log.open("wb") as written:
                process = subprocess.Popen(broker.command(), stdout=written, stderr=written)
            ending.callback(_end, process)
            eventually(partial(_serves, process, broker.settings, log))
        try:
            yield
        finally:
            for listener in house.listeners:
                ending.callback(listener.close)


def _serves(process: subprocess.Popen[bytes], listener: BrokerSettings, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    return answers(listener.connect_host, listener.port)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=DEADLINE_S)
        raise


@asynccontextmanager
async def reaping() -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """A list for processes; those that still run when the block ends, however it does, are killed.

    One that a failed test left to the garbage collector would fail the next test, too.
    """
    started: list[asyncio.subprocess.Process] = []
    try:
        yield started
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure neither this process nor what it starts meanwhile.

    Coverage more than doubles what Python takes, and adds 0.2 s to each start of it.
    """
    measured = coverage.Coverage.current()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        if measured is not None:
            measured.stop()
        try:
            yield
        finally:
            if measured is not None:
                measured.start()


def answers(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def is_up(house: House) -> bool:
    """Whether `nervus up` runs on a house, with each of its parts ready."""
    status = read_status(house.state)
    return status is not None and all(child["state"] == "ready" for child in status["children"])


def eventually(condition: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: It does not within the deadline.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def process_lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return False
    return fields[0] != "Z"


def processes_naming(path: Path) -> list[int]:
    """Return ids of running processes that name `path` on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if str(path).encode() in words and process_lives(int(folder.name)):
            found.append(int(folder.name))
    return found
