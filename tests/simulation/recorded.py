"""Journals of a simulated house, written by the real journal: what a replay can be tried on."""

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from nervus.bus import Journal, JournalSettings, code_fingerprint
from nervus.bus.journal_file import Happened, Record, Ticked, Took
from nervus.thalamus import Leases
from nervus.wire import Connected
from simulation.process import Process, Step
from simulation.world import CALM, PLAIN, START_MS, World, scope_of

_EVENTS = {kind.__name__: TypeAdapter(kind) for kind in (Connected, Leases)}


class _Writer:
    """Writes what a process took and said, and knows how much of it is written."""

    def __init__(self, data: Path, process: Process, boards: int) -> None:
        settings = PLAIN[process.plane].model_dump(mode="json")
        start = replace(process.start_record(settings), code=code_fingerprint())
        folder = data / "journal" / process.name
        self.journal = Journal(folder, start, JournalSettings(), (Leases,))
        self._process = process
        self._written = self._told = 0
        granted = self.journal.granted(scope_of)
        for number in range(boards):
            granted(f"b{number}")

    def catch_up(self) -> None:
        """Write what was taken since, and what came of the last of it."""
        for record in self._process.journal[self._written :]:
            self._write(record)
        self._written = len(self._process.journal)
        for effect in self._process.log[self._told :]:
            self.journal.output(effect)
        self._told = len(self._process.log)

    def _write(self, record: Record) -> None:
        match record:
            case Took(_, now_ms, packet):
                self.journal.packet(now_ms, packet)
            case Ticked(_, now_ms):
                self.journal.tick(now_ms)
            case Happened(_, now_ms, name, data):
                self.journal.event(now_ms, _EVENTS[name].validate_python(data))
            case _:
                raise AssertionError("the simulation has no shell that refuses")


def record_house(data: Path, seconds: float, seed: int = 1, boards: int = 4) -> int:
    """Simulate a calm house into `data/journal`; returns when it ended, unix milliseconds."""
    writers: dict[str, _Writer] = {}

    def watch(step: Step) -> None:
        process = step.process
        if process.name not in writers:
            writers[process.name] = _Writer(data, process, boards)
        writer = writers[process.name]
        writer.catch_up()

    world = World(seed, CALM, watch, settings=PLAIN, boards=boards)
    world.run(seconds)
    for writer in writers.values():
        writer.catch_up()
        writer.journal.close()
        assert not writer.journal.counters.lost
    return START_MS + round(seconds * 1000)
