"""Messages of an outage on the flash: nothing is lost or out of order but what is reported so."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinal.outbox import OVERHEAD, PRIORITIES, Item, Outbox
from spinal.spill import SEGMENT, Spill

SIZE = 300
RAM = 10 * (SIZE + OVERHEAD)


def mark(data: bytes) -> bytes:
    return b"!" + data.lstrip(b"!")


def outbox(folder: Path, limit: int = 1 << 20) -> Outbox:
    folder.mkdir(exist_ok=True)
    return Outbox(256, max_bytes=RAM, mark=mark, spill=Spill(str(folder), limit))


def put(box: Outbox, seq: int, priority: str = "normal", qos: int = 1) -> None:
    data = b"%d" % seq
    box.put("/sc/t", data + b" " * (SIZE - len(data) - len("/sc/t")), qos, False, priority, seq)  # noqa: FBT003 - its signature
    box.spill_step()


def to_flash(box: Outbox) -> None:
    while len(box):
        box.begin_spill()
        while box.spill_step():
            pass


def seq_of(item: Item) -> int:
    return int(item.data.strip(b"! "))


def delivered(box: Outbox, window: int = 4) -> list[int]:
    """Take all that waits, with so many in flight; seqs as they are sent."""
    seqs, flying = [], []
    while True:
        item = box.next()
        if item is not None and len(flying) < window:
            box.sent(item)
            seqs.append(seq_of(item))
            assert item.seq == seqs[-1]
            flying += [item] if item.qos else []
        elif flying:
            box.acked(flying.pop(0))
        else:
            return seqs


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lost(box: Outbox) -> set[int]:
    return {seq for first, last in box.take_drops() for seq in range(first, last + 1)}


def test_more_than_fits_in_ram_comes_back_in_order_and_marked(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    for seq in range(200):
        put(box, seq, qos=seq % 2)
    assert files(tmp_path)
    assert len(box) < 20
    box.link_up()
    first = box.next()
    assert first is not None
    assert first.data.startswith(b"!0 ")
    assert (first.topic, first.qos, first.priority) == ("/sc/t", 0, "normal")

    assert delivered(box) == list(range(200))
    assert files(tmp_path) == []
    assert (box.dropped, box.take_drops()) == (0, [])


def test_what_is_on_the_flash_outlives_a_reboot(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    for seq in range(50):
        put(box, seq)
    to_flash(box)
    again = outbox(tmp_path)
    for seq in range(50, 100):
        put(again, seq)
    again.link_up()
    assert delivered(again) == list(range(100))


def test_segment_is_sent_again_until_the_broker_has_all_of_it(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    for seq in range(40):
        put(box, seq)
    box.link_up()
    for _ in range(3):
        item = box.next()
        assert item is not None
        box.sent(item)
    kept = files(tmp_path)
    box.link_lost()
    box.link_up()
    assert files(tmp_path) == kept
    assert delivered(box) == list(range(40))


def test_nothing_newer_overtakes_the_last_of_the_flash_but_control(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    for seq in range(15):
        put(box, seq)
    to_flash(box)
    assert len(box) == 0
    box.link_up()
    put(box, 15, "critical")
    put(box, 16, "control")
    assert delivered(box) == [16, *range(15), 15]


def test_oldest_segment_gives_way_and_its_numbers_are_told(tmp_path: Path) -> None:
    box = outbox(tmp_path, limit=3 * SEGMENT)
    for seq in range(300):
        put(box, seq)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * SEGMENT
    gone = lost(box)
    assert box.dropped == len(gone) > 100
    box.link_up()
    assert delivered(box) == sorted(set(range(300)) - gone)
    assert gone == set(range(len(gone)))


def test_retained_state_stays_in_ram(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    box.put("/sc/state", b"7", 1, True, "control", 7)  # noqa: FBT003 - its signature
    for seq in range(8, 40):
        put(box, seq)
    state = box.next()
    assert state is not None
    assert (state.retain, state.data) == (True, b"7")
    box.link_up()


@pytest.mark.parametrize("at", [0, 5, 12, 100, -1])
def test_broken_record_ends_its_segment_and_no_other(tmp_path: Path, at: int) -> None:
    box = outbox(tmp_path)
    for seq in range(60):
        put(box, seq)
        if seq % 10 == 9:
            to_flash(box)
    broken = tmp_path / files(tmp_path)[2]
    numbers = [item.seq for item in records(tmp_path, broken.name)]
    data = bytearray(broken.read_bytes())
    data[at] ^= 1
    broken.write_bytes(data)
    again = outbox(tmp_path)
    again.link_up()
    kept = numbers[:-1] if at == -1 else []
    assert delivered(again) == [seq for seq in range(60) if seq not in numbers or seq in kept]


def records(folder: Path, name: str) -> list[Item]:
    """The messages of one segment."""
    alone = folder.with_name(folder.name + "-alone")
    alone.mkdir()
    (alone / name).write_bytes((folder / name).read_bytes())
    spill = Spill(str(alone), 1 << 20)
    found = []
    while (item := spill.next()) is not None:
        found.append(item)
        spill.sent(item)
        if item.qos:
            spill.acked()
    return found


def test_flash_that_takes_nothing_is_told_and_ram_goes_on(tmp_path: Path) -> None:
    box = outbox(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for seq in range(100):
        put(box, seq)
    assert box.spill_error is not None
    assert "No such file" in box.spill_error or "2" in box.spill_error
    box.link_up()
    assert sorted(delivered(box) + list(lost(box))) == list(range(100))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.sampled_from(["put", "put", "put", "up", "down", "send", "ack"]), max_size=150))
def test_whatever_happens_each_message_arrives_or_is_told_as_lost(
    tmp_path: Path, events: list[str]
) -> None:
    for name in files(tmp_path):
        (tmp_path / name).unlink()
    box = outbox(tmp_path, limit=2 * SEGMENT)
    arrived: list[int] = []
    flying: list[Item] = []
    linked, seq = False, 0
    for event in events:
        if event == "put":
            for _ in range(3):
                put(box, seq, PRIORITIES[1 + seq % 3])
                seq += 1
        elif event == "up":
            box.link_up()
            linked = True
        elif event == "down":
            box.link_lost()
            linked, flying = False, []
        elif event == "send" and linked and len(flying) < 4 and (item := box.next()) is not None:
            box.sent(item)
            flying.append(item)
        elif event == "ack" and flying:
            arrived.append(flying[0].seq)
            box.acked(flying.pop(0))
    box.link_lost()
    box.link_up()
    arrived += delivered(box)
    gone = lost(box)
    assert set(arrived) | gone == set(range(seq))
    assert box.dropped == len(gone)
    assert files(tmp_path) == []


def test_records_are_as_small_as_their_message(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path), 1 << 20)
    item = Item("/sc/x", json.dumps({"a": 1}).encode(), 1, False, "normal", 4_000_000_000)  # noqa: FBT003 - its signature
    assert spill.write(item, item.data) is False
    spill.close()
    assert (tmp_path / files(tmp_path)[0]).stat().st_size == len("/sc/x") + len(item.data) + 13
    again = Spill(str(tmp_path), 1 << 20).next()
    assert again is not None
    assert again.seq == 4_000_000_000
