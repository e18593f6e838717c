"""Journals of a simulated house, written by the real journal: what a replay can be tried on."""

from dataclasses import replace
from pathlib import Path

from nervus.bus import Journal, JournalSettings, code_fingerprint
from nervus.bus.journal_file import Happened, Refused, Ticked, Took
from nervus.wire import Connected
from simulation.process import Step
from simulation.world import CALM, SETTINGS, START_MS, World, scope_of


def record_house(data: Path, seconds: float, seed: int = 1, boards: int = 4) -> int:
    """Simulate a calm house into `data/journal`; returns when it ended, unix milliseconds."""
    journals: dict[str, Journal] = {}

    def watch(step: Step) -> None:
        process = step.process
        journal = journals.get(process.name)
        if journal is None:
            settings = SETTINGS[process.name].model_dump(mode="json")
            start = replace(process.start_record(settings), code=code_fingerprint())
            folder = data / "journal" / process.name
            journal = Journal(folder, start, JournalSettings())
            journals[process.name] = journal
            granted = journal.granted(scope_of)
            for number in range(boards):
                granted(f"b{number}")
        match process.journal[-1]:
            case Took(_, now_ms, packet):
                journal.packet(now_ms, packet)
            case Ticked(_, now_ms):
                journal.tick(now_ms)
            case Happened(_, now_ms, _, event):
                journal.event(now_ms, Connected(event["broker"]))
            case Refused():
                raise AssertionError("the simulation has no shell that refuses")
        for publish in step.sent:
            journal.output(publish)

    world = World(seed, CALM, watch, boards=boards)
    world.run(seconds)
    for journal in journals.values():
        journal.close()
        assert not journal.counters.lost
    return START_MS + round(seconds * 1000)
