"""No turn of the loop is long: work on a message goes on in pieces, one in each poll."""

from collections.abc import Iterator
from pathlib import Path

from firmware.link_bench import Bench, publish
from firmware.rigs import on_board
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


def test_board_reacts_between_reading_checking_and_acting(tmp_path: Path) -> None:
    seen = on_board(tmp_path, ON_BOARD / "turns.py")

    # The lamp has followed the door twice before the message does anything.
    assert seen == [[[1], False], [[0], False], [[], True]]
