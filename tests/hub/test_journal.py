"""The journal: complete, bounded, torn where it was torn, never in the way of what it records."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.journals import START, Offered, echo, journal, of, only_run
from hub.plane_inputs import NOW_MS, bundle
from nervus.bus import Journal, JournalError, JournalRun, JournalSettings, Replay
from nervus.bus.journal_file import Answered, Happened, Lost, Refused, Sent, Ticked, Took, Torn
from nervus.wire import Connected, Packet, Rejected, encode, topics
from support import DEADLINE_S, eventually

BUNDLE = topics.relay_bundle("room", "kitchen", "somatic").topic


def driver() -> Packet:
    return Packet("core", BUNDLE, encode(bundle().message))


def refused() -> Rejected:
    packet = Packet("core", BUNDLE, b"\xff\x00", retain=True)
    return Rejected("queue_full", "queue", "full", packet, None, None, None, None)


def test_every_kind_of_input_comes_back_as_it_was(tmp_path: Path) -> None:
    packet = driver()
    with journal(tmp_path) as one:
        ask = one.granted({"b1": "room/kitchen"}.get)
        one.event(1, Connected("core"))
        assert [ask("b1"), ask("b1"), ask("b2")] == ["room/kitchen", "room/kitchen", None]
        one.packet(2, packet)
        one.packet(3, Packet("spinal", "/a", b"\x00\xff", retain=True))
        one.tick(4)
        one.event(5, Offered(7, ("x", "y")))
        one.refused(6, refused())
    start, *records = only_run(tmp_path).records()
    assert start == START
    assert of(Took, records) == [
        Took(1, 2, packet),
        Took(2, 3, Packet("spinal", "/a", b"\x00\xff", retain=True)),
    ]
    assert of(Ticked, records) == [Ticked(3, 4)]
    assert of(Happened, records) == [
        Happened(0, 1, "Connected", {"broker": "core"}),
        Happened(4, 5, "Offered", {"number": 7, "names": ["x", "y"]}),
    ]
    assert of(Answered, records) == [Answered("b1", "room/kitchen"), Answered("b2", None)]
    (told,) = of(Refused, records)
    assert replace(told.rejected, address=None) == refused()
    assert not of(Lost, records)


def test_a_replay_takes_what_was_recorded_and_compares_what_comes_of_it(tmp_path: Path) -> None:
    machine = echo({}.get)
    with journal(tmp_path) as one:
        for number, packet in enumerate((driver(), Packet("core", BUNDLE, b"no"), driver())):
            one.packet(NOW_MS, packet)
            verdict = machine.guard.judge(packet, NOW_MS)
            if isinstance(verdict, Rejected):
                effects: Any = machine.lane.step(verdict, NOW_MS)
            else:
                effects = machine.core.step(verdict, NOW_MS)
            for effect in effects:
                one.output(effect)
            if number == 0:
                one.event(NOW_MS, Offered(1))
                one.output(Offered(1))
    replay = Replay(echo)
    steps = list(replay.run(only_run(tmp_path).records()))
    assert [(len(step.effects), step.agrees) for step in steps] == [
        (1, True), (1, True), (1, True), (1, True),
    ]  # fmt: skip
    assert replay.exact
    assert steps[1].effects == (Offered(1),)
    assert steps[0].lines().startswith(b"0 core 0 0 10000 /th/relay/event/room/kitchen/")


def test_a_replay_by_another_seed_disagrees_where_an_id_was_made(tmp_path: Path) -> None:
    with journal(tmp_path) as one:
        one.tick(NOW_MS)
        one.packet(NOW_MS, driver())
        one.output("not what will come of it")
        one.tick(NOW_MS + 50)
        one.tick(NOW_MS + 100)
    steps = list(Replay(echo).run(only_run(tmp_path).records()))
    assert [step.agrees for step in steps] == [True, False, True, None]


def test_an_event_that_the_machine_does_not_know_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path, START, JournalSettings()) as one:
        one.event(1, Offered(1))
    with pytest.raises(JournalError, match="Other cannot be replayed"):
        list(Replay(echo).run([Happened(0, 1, "Other", None)]))
    with pytest.raises(JournalError, match="Offered does not fit"):
        list(Replay(echo).run(only_run(tmp_path).records()))


def test_a_torn_tail_is_told_and_what_came_before_is_kept(tmp_path: Path) -> None:
    with journal(tmp_path) as one:
        for now_ms in range(100):
            one.tick(now_ms)
        wait_for(lambda: one.counters.bytes)
        whole = one.counters.bytes
        one.packet(100, driver())
    (path,) = only_run(tmp_path).segments
    data = path.read_bytes()
    head = len(data) - (one.counters.bytes - whole)
    for cut in (head + 3, head + 20, len(data) - 1):
        path.write_bytes(data[:cut])
        *records, torn = only_run(tmp_path).records()
        assert torn == Torn(path, head)
        assert len(of(Ticked, records)) == 100
    damaged = bytearray(data)
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    replay = Replay(echo)
    assert len(list(replay.run(only_run(tmp_path).records()))) == 100
    assert not replay.exact


def test_a_killed_process_leaves_a_journal_that_reads_up_to_its_end(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        from hub.journals import journal
        one = journal(Path({str(tmp_path)!r}))
        for number in range(10**9):
            one.tick(number)
            time.sleep(0.0001)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        eventually(lambda: any(path.stat().st_size > 2_000 for path in tmp_path.iterdir()))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=DEADLINE_S)
    ticks = of(Ticked, only_run(tmp_path).records())
    assert len(ticks) > 100
    assert [tick.number for tick in ticks] == list(range(len(ticks)))


def test_segments_are_bounded_and_the_oldest_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small frames, so that how the writer is scheduled does not decide how large a file gets.
    monkeypatch.setattr(Journal, "frame_records", 200)
    with journal(tmp_path, segment_mib=1, limit_mib=2) as one:
        for number in range(8_000):
            # Nothing that zlib could make small.
            one.packet(number, Packet("core", BUNDLE, os.urandom(600)))
    run = only_run(tmp_path)
    assert one.counters.lost == 0
    assert one.counters.deleted > 0
    assert not run.complete
    assert sum(path.stat().st_size for path in run.segments) < 4 << 20
    records = list(run.records())
    numbers = [record.number for record in of(Took, records)]
    assert numbers == list(range(records[0].number, 8_000))


def test_a_missing_segment_ends_exactness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "frame_records", 500)
    with journal(tmp_path, segment_mib=1, limit_mib=100) as one:
        for number in range(6_000):
            one.packet(NOW_MS + number, Packet("core", BUNDLE, os.urandom(600)))
    run = only_run(tmp_path)
    assert run.complete
    assert len(run.segments) > 2
    run.segments[1].unlink()
    replay = Replay(echo)
    list(replay.run(only_run(tmp_path).records()))
    assert not replay.exact


def test_starts_are_told_apart_and_sorted(tmp_path: Path) -> None:
    for boot in (30, 20):
        with journal(tmp_path, replace(START, boot=boot)):
            pass
    runs = JournalRun.all_of(tmp_path)
    assert [(run.boot, run.seed, run.complete) for run in runs] == [(20, 5, True), (30, 5, True)]
    assert runs[0].start() == replace(START, boot=20)
    assert runs[0].changed_ms > START.boot


@pytest.mark.req("S4-56")
def test_a_writer_that_is_behind_costs_records_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "queue_limit", 50)
    monkeypatch.setattr(Journal, "flush_s", 0.01)
    gate = threading.Event()
    write = Journal._write

    def held(self: Journal, lines: list[bytes]) -> None:
        assert gate.wait(DEADLINE_S)
        write(self, lines)

    monkeypatch.setattr(Journal, "_write", held)
    with journal(tmp_path) as one:
        for now_ms in range(1_000):
            one.tick(now_ms)
        lost = one.counters.lost
        gate.set()
        wait_for(lambda: one.counters.bytes)
        one.tick(1_000)
    assert lost > 800
    records = list(only_run(tmp_path).records())
    assert of(Lost, records) == [Lost(lost)]
    assert len(of(Ticked, records)) == 1_001 - lost
    replay = Replay(echo)
    assert [step.agrees for step in replay.run(records)][-2:] == [None, None]
    assert not replay.exact


def test_a_full_disk_ends_the_journal_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with journal(tmp_path) as one:
            for number in range(100):
                one.packet(number, Packet("core", BUNDLE, os.urandom(600)))
            wait_for(lambda: one.counters.lost or one._broken)
            one.tick(1)
        assert one.counters.lost > 0
        assert "journal ended" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert isinstance(list(only_run(tmp_path).records())[-1], Torn)


def test_what_cannot_be_written_down_ends_the_journal_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with journal(tmp_path) as one:
        one.packet(1, Packet("core", "half a character: \ud800", b""))
        wait_for(lambda: one._broken)
        one.tick(2)
        assert one.counters.lost > 0
    assert "journal ended" in caplog.text


def test_what_is_no_journal_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "0000000001-0000000000000001-00000000.journal"
    path.write_bytes(b"something else")
    with pytest.raises(JournalError, match=path.name):
        list(only_run(tmp_path).records())
    path.write_bytes(b"NVJRNL1\n")
    with pytest.raises(JournalError, match=r"before its first record; .*move this file away"):
        only_run(tmp_path).start()
    path.unlink()
    path.mkdir()
    with pytest.raises(JournalError, match=r"cannot be read .*; .*move this file away"):
        list(only_run(tmp_path).records())


def test_grants_of_too_many_devices_are_told_again(tmp_path: Path) -> None:
    with journal(tmp_path) as one:
        ask = one.granted(lambda device_id: f"device/{device_id}")
        for number in (*range(4_096), 1, 4_096, 1):
            ask(f"b{number}")
    answers = of(Answered, only_run(tmp_path).records())
    assert len(answers) == 4_098
    assert answers[-1] == Answered("b1", "device/b1")


def wait_for(condition: Callable[[], object]) -> None:
    eventually(lambda: bool(condition()))


def test_a_digest_stands_after_its_input(tmp_path: Path) -> None:
    with journal(tmp_path) as one:
        one.tick(1)
        one.output("a")
        one.output("b")
        one.tick(2)
    _, *records = only_run(tmp_path).records()
    assert [type(record) for record in records] == [Ticked, Sent, Ticked]
    assert (records[1].number, records[1].count) == (0, 2)
