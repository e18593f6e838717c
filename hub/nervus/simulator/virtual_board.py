"""A virtual board that a test or the demo holds in its hands: inputs, outputs, power."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from nervus.simulator.process import BoardProcess, Input, Log, Record
from nervus.simulator.toolchain import Toolchain
from nervus.tasks import cancel_and_wait

OutputKind = Literal["pin", "pwm"]

_QUEUE_LIMIT: Final = 4096
_FIRST_RESTART_S: Final = 0.2
_LONGEST_RESTART_S: Final = 5.0
_STEADY_S: Final = 10.0
_POWER_ON, _WATCHDOG_RESET = 1, 3


@dataclass(frozen=True, slots=True)
class Identity:
    """DER files of one identity: certificate, key, and the authority that signed the broker's."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class Output:
    """A change of an output.

    Attributes:
        at_ns: When the board made it, Unix time in nanoseconds.
        kind: `pin` or `pwm`.
        number: The pin's number.
        value: 0 or 1 for a pin, 0 to 65,535 for PWM.
        used_us: Processor time that the board's process had used by then; 0 unless its program
            tells (the benchmarks' do).
        slept: How often it had let go of its processor by then; as above.
    """

    at_ns: int
    kind: OutputKind
    number: int
    value: int
    used_us: int = 0
    slept: int = 0


class VirtualBoard:
    """The firmware on MicroPython, with a flash folder that outlives its process.

    A board that dies comes back by itself with the same flash and the inputs as they stand.

    Args:
        flash: The board's file system; created when missing.
        node: The content of node.json, without `identity`.
        identity: DER files, copied to the flash; none for a broker without TLS.
        toolchain: What it runs on, `Toolchain.locate()` when not given.
    """

    def __init__(
        self,
        flash: Path,
        node: Mapping[str, object],
        identity: Identity | None = None,
        toolchain: Toolchain | None = None,
    ) -> None:
        self.flash = flash
        self.device_id = str(node["device_id"])
        self.starts = 0
        self.lost_records = 0
        self.log = Log(flash.with_name(flash.name + ".log"))
        self._node = dict(node)
        self._identity = identity
        self._toolchain = toolchain
        self._inputs: dict[tuple[str, int], Input] = {}
        self._levels: dict[tuple[OutputKind, int], Output] = {}
        self._listeners: list[asyncio.Queue[Output]] = []
        self._process: BoardProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """The process id while the board runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Write the flash, start the process and keep it running.

        Raises:
            ToolchainError: MicroPython or umqtt.simple is missing.
            BoardStartError: The process does not start.
        """
        toolchain = self._toolchain or Toolchain.locate()
        self._write_flash()
        self._started.clear()
        self._supervisor = asyncio.create_task(
            self._supervise(toolchain), name=f"virtual board {self.device_id}"
        )
        started = asyncio.create_task(self._started.wait(), name="virtual board started")
        await asyncio.wait({started, self._supervisor}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._supervisor.done():
            await self._supervisor

    async def stop(self) -> None:
        """End the board; no process is left."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            await cancel_and_wait(supervisor)

    def kill(self) -> None:
        """Cut the power: SIGKILL. The board comes back by itself."""
        if self._process:
            self._process.kill()

    def set_pin(self, number: int, value: int) -> None:
        """Drive a digital input, 0 or 1."""
        self._set("pin", number, {"pin": number, "value": value})

    def set_adc(self, number: int, value: int | None) -> None:
        """Set an analog input, 0 to 65,535; None breaks it: reading it raises OSError."""
        self._set("adc", number, {"adc": number, "value": value})

    def set_wifi(self, up: bool) -> None:  # noqa: FBT001 - a switch has one argument
        """Give the board its network, or take it away."""
        self._set("wifi", 0, {"wifi": up})

    def level(self, kind: OutputKind, number: int) -> int | None:
        """The value an output last took, None before the board first drove it."""
        output = self._levels.get((kind, number))
        return output.value if output else None

    @contextlib.contextmanager
    def outputs(self) -> Iterator[AsyncIterator[Output]]:
        """Changes of outputs from now on; a reader 4096 behind loses the oldest, counted."""
        queue: asyncio.Queue[Output] = asyncio.Queue(_QUEUE_LIMIT)
        self._listeners.append(queue)
        try:
            yield _drain(queue)
        finally:
            self._listeners.remove(queue)

    async def wait_for(
        self, kind: OutputKind, number: int, value: int, timeout_s: float = 5.0
    ) -> Output:
        """The output's next change to `value`, or the last one if it has that value already.

        Raises:
            TimeoutError: It did not take the value in time.
        """
        with self.outputs() as changes:
            last = self._levels.get((kind, number))
            if last and last.value == value:
                return last
            async with asyncio.timeout(timeout_s):
                async for output in changes:
                    if (output.kind, output.number, output.value) == (kind, number, value):
                        return output
        raise TimeoutError

    def _set(self, kind: str, number: int, message: Input) -> None:
        self._inputs[kind, number] = message
        if self._process:
            self._process.send(message)

    async def _supervise(self, toolchain: Toolchain) -> None:
        cause = _POWER_ON
        delay = _FIRST_RESTART_S
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            status = await self._run_once(toolchain, cause)
            self.log.write(f"[virtual board] process ended with status {status}")
            cause = _reset_cause(status)
            delay = _FIRST_RESTART_S if clock() - began > _STEADY_S else delay
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_RESTART_S)

    async def _run_once(self, toolchain: Toolchain, cause: int) -> int:
        environment = {
            "HOME": str(self.flash),
            "NERVUS_RESET_CAUSE": str(cause),
        }
        process = await BoardProcess.start(
            toolchain,
            self.flash,
            environment=environment,
            inputs=list(self._inputs.values()),
            on_record=self._record,
            log=self.log,
        )
        self._process = process
        self.starts += 1
        self._started.set()
        try:
            return await process.run()
        finally:
            self._process = None
            await process.stop()

    def _record(self, record: Record) -> None:
        if "lost" in record:
            self.lost_records += record["lost"]
            return
        kind: OutputKind = "pin" if "pin" in record else "pwm"
        used = record.get("used_us", 0), record.get("slept", 0)
        output = Output(record["at_ns"], kind, record[kind], record["value"], *used)
        self._levels[kind, output.number] = output
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
                self.lost_records += 1
            queue.put_nowait(output)

    def _write_flash(self) -> None:
        self.flash.mkdir(parents=True, exist_ok=True, mode=0o700)
        node = dict(self._node)
        if self._identity:
            files = {
                "cert": ("cert.der", self._identity.certificate),
                "key": ("key.der", self._identity.key),
                "ca": ("ca.der", self._identity.authority),
            }
            for name, source in files.values():
                _copy_private(source, self.flash / name)
            node["identity"] = {field: name for field, (name, _) in files.items()}
        partial = self.flash / "node.json.new"
        partial.write_text(json.dumps(node, indent=1), encoding="utf-8")
        partial.replace(self.flash / "node.json")


async def _drain(queue: asyncio.Queue[Output]) -> AsyncIterator[Output]:
    while True:
        yield await queue.get()


def _copy_private(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        shutil.copyfileobj(reader, writer)


def _reset_cause(status: int) -> int:
    # The watchdog is an alarm of the kernel's; a process that ends by itself has lost its way too,
    # and a board that resets itself cannot be told from that on an RP2.
    return _POWER_ON if status < 0 and status != -signal.SIGALRM else _WATCHDOG_RESET
