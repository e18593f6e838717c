"""No turn of the loop is long: work on a message goes on in pieces, one in each poll."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.link_bench import Bench, publish
from firmware.rigs import on_board
from spinal import link as link_module
from spinal.link import UP

ON_BOARD = Path(__file__).parent / "on_board"


class Work:
    """Three pieces of work on each message; remembers when each was done."""

    def __init__(self, bench: Bench) -> None:
        self.log: list[str] = []
        bench.owner.on_message = self._begin

    def _begin(self) -> Iterator[None]:
        for piece in ("read", "check", "act"):
            self.log.append(piece)
            yield


def test_each_poll_does_one_piece_of_the_work_and_the_puback_follows_the_last() -> None:
    bench = Bench()
    bench.up()
    work = Work(bench)
    bench.script.incoming += publish(b"/a/1", b"do it", packet_id=7) + publish(b"/a/2", b"")
    seen = []
    for _ in range(5):
        bench.link.poll(1)
        seen.append((len(work.log), len(bench.owner.messages), list(bench.script.writes)))
        assert bench.link.wait_ms(1) == 0

    puback = b"\x40\x02\x00\x07"
    assert seen == [(0, 1, []), (1, 1, []), (2, 1, []), (3, 1, []), (3, 1, [puback])]
    bench.link.poll(1)
    assert len(bench.owner.messages) == 2


def test_what_is_published_meanwhile_goes_out_at_once() -> None:
    bench = Bench()
    bench.up()
    Work(bench)
    bench.script.incoming += publish(b"/a/1", b"do it", packet_id=7)
    bench.link.poll(1)
    bench.link.publish("/r", b"", 0)
    bench.link.poll(1)

    assert bench.script.writes == [publish(b"/r", b"")]


def test_lost_link_takes_the_rest_of_the_work_and_its_puback_with_it() -> None:
    bench = Bench(backoff_ms=500)
    bench.up()
    work = Work(bench)
    bench.script.incoming += publish(b"/a/1", b"do it", packet_id=7)
    for _ in range(2):
        bench.link.poll(1)
    bench.link.close()
    bench.link.poll(1)
    bench.up(1 + bench.link.wait_ms(1))
    for _ in range(5):
        bench.link.poll(1_000)

    assert bench.link.state == UP
    assert work.log == ["read"]
    assert bench.script.writes == []


@pytest.mark.parametrize("packet_id", [None, 7])
def test_message_of_a_mebibyte_is_passed_over_a_few_kib_in_each_poll(packet_id: int | None) -> None:
    bench = Bench(max_packet=4096)
    bench.up()
    large = publish(b"/a/1", b"x" * (1 << 20), packet_id)
    bench.script.incoming += large + publish(b"/a/2", b"next")
    polls = 0
    while not bench.owner.oversize:
        before = len(bench.script.incoming)
        bench.link.poll(1)
        polls += 1
        read = before - len(bench.script.incoming)
        assert 0 < read <= link_module._CHUNK * link_module._CHUNKS_PER_POLL
        assert bench.link.wait_ms(1) == 0
        assert len(bench.link._framer._body or b"") < 600
    bench.link.poll(1)

    ((topic, text),) = bench.owner.oversize
    assert topic == b"/a/1"
    assert str(len(large) - 4) in text
    assert polls > 200
    assert bench.script.writes == ([b"\x40\x02\x00\x07"] if packet_id else [])
    assert [payload for _, payload, _ in bench.owner.messages] == [b"next"]
    assert bench.owner.downs == []


@pytest.mark.parametrize(
    "packet",
    [
        publish(b"/a/" + b"t" * 5_000, b""),  # nothing tells where its packet id is
        b"\x30\x81\x80\x80\x01" + b"\x00\x04/a/1" + b"x" * 600,  # 2 MiB and a byte
        b"\x40\x80\x40",
    ],
)
def test_what_cannot_be_passed_over_ends_the_link(packet: bytes) -> None:
    bench = Bench(max_packet=4096)
    bench.up()
    bench.script.incoming += packet
    for _ in range(3):
        bench.link.poll(1)

    assert bench.owner.downs == [("oversize", [])]


@given(st.binary(max_size=900), st.integers(1, 700), st.booleans())
def test_messages_of_every_size_are_taken_or_passed_over_however_they_are_cut(
    payload: bytes,
    piece: int,
    acked: bool,  # noqa: FBT001 - a case
) -> None:
    bench = Bench(max_packet=256)
    bench.up()
    data = publish(b"/a/1", payload, 7 if acked else None) + publish(b"/a/2", b"next")
    for at in range(0, len(data), piece):
        bench.script.incoming += data[at : at + piece]
        bench.link.poll(1)
    while bench.link.busy:
        bench.link.poll(1)

    taken = 6 + 2 * acked + len(payload) <= 256
    assert len(bench.owner.oversize) == (not taken)
    assert [got for _, got, _ in bench.owner.messages] == [payload] * taken + [b"next"]
    assert b"".join(bench.script.writes) == b"\x40\x02\x00\x07" * acked


def test_board_reacts_between_the_pieces_of_its_work_on_a_message(tmp_path: Path) -> None:
    pong, rule = on_board(tmp_path, ON_BOARD / "turns.py")

    # The lamp has followed the door each time before the message does anything: it is read and
    # checked, a rule in two pieces and compiled.
    assert pong == [[[1], False], [[0], False], [[], True]]
    assert rule == [[[1], False], [[0], False], [[1], False], [[0], False], [[], True]]


@pytest.mark.parametrize("heap", ["192k", "224k", "320k"])
def test_board_collects_its_garbage_when_no_input_waits_for_it(tmp_path: Path, heap: str) -> None:
    by_interpreter, by_board, _, at_rest = on_board(tmp_path, ON_BOARD / "rests.py", heap=heap)

    # Left to the interpreter it would be in the midst of a message, and as often.
    assert by_interpreter == 0
    assert by_board
    # An input that moves as the board is about to collect is not kept waiting.
    assert at_rest == ["driven", "collected"]


def test_flood_of_notes_does_not_keep_a_board_at_its_console(tmp_path: Path) -> None:
    _, _, lines, _ = on_board(tmp_path, ON_BOARD / "rests.py")

    refused = "[0] pong refused: pong_unexpected"
    assert lines == [refused] * 10 + ["[1000] 14 more notes in this second"]
