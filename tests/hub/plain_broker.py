"""A real mosquitto without TLS, for tests that are about the session alone."""

import asyncio
import os
import pwd
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from nervus.bus import BrokerAddress, Session
from nervus.runtime.settings import free_port
from support import DEADLINE_S

ALLOWED = "topic readwrite #\n"


class PlainBroker:
    """Starts, stops, kills and freezes one mosquitto on a port of its own."""

    def __init__(self, folder: Path, acl: str = ALLOWED, *, extra: str = "") -> None:
        self.address = BrokerAddress("127.0.0.1", free_port())
        self._log = folder / "log"
        (folder / "acl").write_text(acl)
        (folder / "acl").chmod(0o600)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            # Started by root, mosquitto would change to a user who may not read our folder.
            f"user {pwd.getpwuid(os.getuid()).pw_name}\n"
            f"listener {self.address.port} 127.0.0.1\n"
            "allow_anonymous true\n"
            "log_type all\n"
            "set_tcp_nodelay true\n"
            f"{extra or f'acl_file {folder}/acl'}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self._launch()
        await within(self._answers)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=DEADLINE_S)

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["mosquitto", "-c", str(self._config)], stdout=log, stderr=log
            )

    async def _answers(self) -> bool:
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
