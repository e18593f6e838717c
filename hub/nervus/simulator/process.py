"""One run of a virtual board: its process, its control channel and what it prints."""

import asyncio
import contextlib
import json
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from nervus.errors import NervusError
from nervus.simulator.toolchain import Toolchain

LOG_RING_LINES: Final = 500
_LOG_FILE_BYTES: Final = 1 << 20
_UNREAD_INPUT_BYTES: Final = 1 << 16
_RECORD_LIMIT: Final = 1 << 16
_TERMINATE_S: Final = 2.0

Record = dict[str, int]
Input = Mapping[str, int | None]


class BoardStartError(NervusError):
    """The board's process could not be started."""


class ControlError(NervusError):
    """The control channel carried something that is not a record, or the board reads no input."""


class Log:
    """What a board printed: the newest lines in memory, and a file with one predecessor."""

    def __init__(self, path: Path) -> None:
        self.lines: deque[str] = deque(maxlen=LOG_RING_LINES)
        self.path = path

    def write(self, text: str) -> None:
        """Keep one line."""
        self.lines.append(text)
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size > _LOG_FILE_BYTES:
                self.path.replace(self.path.with_suffix(".old.log"))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


class BoardProcess:
    """A running board. Make it with `start`, end it with `stop`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        control: socket.socket,
        on_record: Callable[[Record], None],
        log: Log,
    ) -> None:
        self._process = process
        self._control = control
        self._on_record = on_record
        self._log = log
        self._writer: asyncio.StreamWriter | None = None

    @classmethod
    async def start(
        cls,
        toolchain: Toolchain,
        flash: Path,
        *,
        environment: Mapping[str, str],
        inputs: Sequence[Input],
        on_record: Callable[[Record], None],
        log: Log,
    ) -> Self:
        """Start the process with its inputs already waiting for it.

        Raises:
            BoardStartError: The operating system refused.
            ImageError: The firmware does not compile.
        """
        settings = await asyncio.to_thread(toolchain.environment)
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        theirs.settimeout(0)
        for message in inputs:
            ours.send(_line(message))
        try:
            process = await asyncio.create_subprocess_exec(
                *toolchain.command(),
                cwd=flash,
                env={
                    **environment,
                    **settings,
                    "NERVUS_CONTROL_FD": str(theirs.fileno()),
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            ours.close()
            raise BoardStartError(
                f"the board's process does not start ({error.strerror})",
                where=str(toolchain.micropython),
                hint="run: tools/setup",
            ) from error
        finally:
            theirs.close()
        return cls(process, ours, on_record, log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def run(self) -> int:
        """Pass on records and log lines until the process ends; returns its exit status."""
        reader, self._writer = await asyncio.open_connection(
            sock=self._control, limit=_RECORD_LIMIT
        )
        try:
            await asyncio.gather(self._read_records(reader), self._read_log())
            return await self._process.wait()
        finally:
            self._writer.close()

    def send(self, message: Mapping[str, object]) -> None:
        """Give the board an input.

        Raises:
            ControlError: The board has left 64 KiB of inputs unread.
        """
        if self._writer is None or self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > _UNREAD_INPUT_BYTES:
            raise ControlError(
                "the board does not read its inputs",
                where=f"process {self.pid}",
                hint="it may be stopped or hang: look at its log",
            )
        self._writer.write(_line(message))

    def kill(self) -> None:
        """Cut the power: SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL when that does not do."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_TERMINATE_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def _read_records(self, reader: asyncio.StreamReader) -> None:
        # A killed process may leave half a record, or reset the channel.
        with contextlib.suppress(ConnectionResetError):
            while (line := await reader.readline()).endswith(b"\n"):
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise ControlError(
                        f"the board sent {line[:80]!r}, which is no record",
                        where=f"process {self.pid}",
                        hint="only firmware/simulator may write to the control channel",
                    ) from error
                self._on_record(record)

    async def _read_log(self) -> None:
        output = self._process.stdout
        if output is None:
            raise ControlError("the board's process has no standard output")
        while line := await output.readline():
            self._log.write(line.decode("utf-8", "replace").rstrip())


def _line(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
