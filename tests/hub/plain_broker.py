"""A real mosquitto without TLS, for tests that are about the session alone."""

import asyncio
import os
import pwd
import resource
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from nervus.bus import BrokerAddress, Session
from nervus.runtime.settings import free_port
from support import DEADLINE_S, DIES_WITH_US

ALLOWED = "topic readwrite #\n"


class PlainBroker:
    """Starts, stops, kills and freezes one mosquitto on a port of its own; fills its disk."""

    def __init__(self, folder: Path, acl: str = ALLOWED, *, extra: str = "") -> None:
        self.address = BrokerAddress("127.0.0.1", free_port())
        self._log = folder / "log"
        (folder / "acl").write_text(acl)
        (folder / "acl").chmod(0o600)
        self._config = folder / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(extra or f"acl_file {folder}/acl")

    def configure(self, extra: str) -> None:
        """Write its configuration, for its next start."""
        self._config.write_text(
            # Started by root, mosquitto would change to a user who may not read our folder.
            f"user {pwd.getpwuid(os.getuid()).pw_name}\n"
            f"listener {self.address.port} 127.0.0.1\n"
            f"{'' if 'allow_anonymous' in extra else 'allow_anonymous true'}\n"
            "log_type all\n"
            "set_tcp_nodelay true\n"
            f"{extra}\n"
        )

    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self.launch()
        await within(self._answers)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def fill_disk(self, size: int) -> None:
        """Let no file of it grow beyond `size` bytes: each further write of it fails."""
        self._limit_files(size)

    def free_disk(self) -> None:
        """Let it write again."""
        self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, size: int) -> None:
        assert self._process is not None
        limits = (size, resource.RLIM_INFINITY)
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, limits)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=DEADLINE_S)

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def launch(self) -> None:
        """Start it, whether it comes up or not."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*DIES_WITH_US, "mosquitto", "-c", str(self._config)], stdout=log, stderr=log,
                # As Python ignores SIGXFSZ, so does it: a write beyond a limit fails, as on a full
                # disk, and kills nobody.
                restore_signals=False,
            )  # fmt: skip

    async def _answers(self) -> bool:
        assert self.exit_code is None, self.log()
        try:
            _, writer = await asyncio.open_connection(self.address.host, self.address.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True


async def within(condition: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    """Wait until a condition, or one that is awaited, holds; fails at the deadline."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*sessions: Session) -> AsyncIterator[None]:
    """Run sessions until the block ends; they are connected when it begins."""
    tasks = [asyncio.create_task(session.run()) for session in sessions]
    try:
        async with asyncio.timeout(DEADLINE_S):
            for session, task in zip(sessions, tasks, strict=True):
                waiting = asyncio.create_task(session.wait_connected())
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if task.done():
                    await task
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
