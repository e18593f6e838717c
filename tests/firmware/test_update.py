"""An application over the air: what is taken, what is refused, what a cut or a lie does to it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware.update_pack import CHUNK, KEY, Pack
from slots import BAD_BOOTS, Slots
from spinal.store import Store
from spinal.update import Update

FILES = {
    "spinal/runtime.mpy": bytes(range(256)) * 2 + b"tail",
    "spinal/empty.py": b"",
    "app.py": b"x" * CHUNK,
}
NEW = Pack("1.1.0", FILES)


class Board:
    """What is on a board's flash, and the update that runs on it. Time is in its own ticks."""

    def __init__(self, keys: tuple[str, ...] = (KEY,), running: str = "1.0.0") -> None:
        self._keys, self._running = list(keys), running
        self.room: int | None = None
        self.told: list[tuple[str, str, str]] = []
        self.asked: list[tuple[str, int]] = []
        self.now = 0
        self.boot()

    def boot(self) -> None:
        """Power on."""
        self.slots = Slots(Store("."))
        self.slots.count_boot()
        running = self.slots.version or self._running
        self.update = Update(self.slots, self._keys, running, self._tell, self._ask, self._room)

    def _room(self) -> int | None:
        return self.room

    def run(self, pack: Pack | None, turns: int = 3_000, *, linked: bool = True) -> bool:
        """Let it work, answered from `pack`; whether it then has installed the update."""
        for _ in range(turns):
            self.now += 5
            self.update.step(self.now, linked=linked)
            while pack is not None and self.asked:
                self.update.chunk(pack.chunk(*self.asked.pop(0)))
        return self.update.installed

    def files(self, slot: str) -> dict[str, bytes]:
        found = {}
        for path in Path(slot).rglob("*"):
            if path.is_file() and path.name != "manifest":
                found[str(path.relative_to(slot))] = path.read_bytes()
        return found

    def _tell(self, _version: str, stage: str, status: str, error: dict[str, Any] | None) -> None:
        self.told.append((stage, status, error["code"] if error else ""))

    def _ask(self, _version: str, path: str, offset: int) -> None:
        self.asked.append((path, offset))


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield Board()
    os.chdir(before)


@pytest.mark.parametrize("octets", [False, True])
def test_a_signed_application_is_fetched_and_starts_on_trial(board: Board, octets: bool) -> None:  # noqa: FBT001 - a parameter of the test
    pack = Pack("1.1.0", FILES, octets=octets)
    board.update.offer(pack.offer())
    assert board.run(pack)
    assert board.told == [
        ("offer", "succeeded", ""),
        ("download", "running", ""),
        ("verify", "succeeded", ""),
        ("install", "succeeded", ""),
    ]
    board.boot()
    assert (board.slots.slot, board.slots.version, board.slots.trial) == ("slot-a", "1.1.0", True)
    assert board.files("slot-a") == FILES
    assert board.slots.good()
    assert not board.slots.trial


@pytest.mark.parametrize(
    ("offer", "keys", "code"),
    [
        (NEW.offer(Ed25519PrivateKey.generate()), (KEY,), "bad_signature"),
        ({**NEW.offer(), "version": "1.2.0"}, (KEY,), "bad_signature"),
        ({**NEW.offer(), "files": NEW.offer()["files"][:1]}, (KEY,), "bad_signature"),
        (NEW.offer(), (), "no_key"),
        (Pack("1.0.0", FILES).offer(), (KEY,), "not_newer"),
        (Pack("0.9.9", FILES).offer(), (KEY,), "not_newer"),
        (Pack("1.1-rc1", FILES).offer(), (KEY,), "bad_version"),
        ({**NEW.offer(), "files": NEW.offer()["files"] * 2}, (KEY,), "bad_paths"),
        (Pack("1.1.0", {"manifest": b"x"}).offer(), (KEY,), "bad_paths"),
        (
            {**NEW.offer(), "files": [{"path": "a", "size": 1 << 50, "sha256": "0" * 64}]},
            (KEY,),
            "no_space",
        ),
    ],
)
def test_what_cannot_be_proven_or_must_not_run_is_refused(
    board: Board, offer: dict[str, Any], keys: tuple[str, ...], code: str
) -> None:
    board = Board(keys)
    board.update.offer(offer)
    assert not board.run(NEW)
    assert board.told == [("offer", "refused", code)]
    assert board.asked == []
    assert sorted(path.name for path in Path().iterdir()) == ["slots.a", "slots.b"]


def test_what_the_heap_has_no_room_for_is_refused(board: Board) -> None:
    total = sum(map(len, FILES.values()))
    board.room = total * 7 // 10 - 1
    board.update.offer(NEW.offer())
    assert board.told == [("offer", "refused", "no_memory")]
    board.room += 1
    board.update.offer(NEW.offer())
    assert board.run(NEW)


def test_what_is_being_taken_is_not_refused_for_the_room_that_it_takes(board: Board) -> None:
    board.room = 10**6
    board.update.offer(NEW.offer())
    board.run(None)
    board.room = 0
    board.update.offer(NEW.offer())
    assert board.run(NEW)
    assert "refused" not in [status for _, status, _ in board.told]


def test_a_second_key_may_sign_too(board: Board) -> None:
    other = Ed25519PrivateKey.generate()
    board = Board((other.public_key().public_bytes_raw().hex(), KEY))
    board.update.offer(NEW.offer())
    assert board.run(NEW)


def test_a_lying_chunk_server_never_gets_its_bytes_started(board: Board) -> None:
    lies = Pack("1.1.0", {path: bytes(len(data)) for path, data in FILES.items()})
    board.update.offer(NEW.offer())
    assert not board.run(lies)
    assert board.told[-1] == ("verify", "failed", "bad_digest")
    assert board.slots.slot == ""


def test_chunks_nobody_asked_for_or_of_a_wrong_length_change_nothing(board: Board) -> None:
    board.update.offer(NEW.offer())
    board.run(None, 1_000)
    (asked,) = board.asked
    right = NEW.chunk(*asked)
    for wrong in (
        {**right, "offset": CHUNK},
        {**right, "path": "app.py"},
        {**right, "version": "1.2.0"},
        {**right, "data": right["data"][:40]},
        {**right, "data": b"of CBOR, too short"},
    ):
        board.update.chunk(wrong)
    board.run(None, 10)
    assert not Path("slot-a/spinal/runtime.mpy").exists()
    board.update.chunk(right)
    assert board.run(NEW)


def test_a_request_is_repeated_and_given_up_in_the_end(board: Board) -> None:
    board.update.offer(NEW.offer())
    board.run(None, 1_000)
    assert len(board.asked) == 1
    board.run(None, 2_100)
    assert len(board.asked) == 2
    board.run(None, 60_000)
    assert board.told[-1] == ("download", "failed", "no_chunk")
    board.update.offer(NEW.offer())
    board.asked.clear()
    assert board.run(NEW)


def test_without_a_link_nothing_is_asked_and_with_it_at_once(board: Board) -> None:
    board.update.offer(NEW.offer())
    board.run(None, 5_000, linked=False)
    assert board.asked == []
    board.run(None, 2)
    assert len(board.asked) == 1
    board.update.link_up()
    board.run(None, 1)
    assert len(board.asked) == 2


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=4), st.integers(0, 3))
def test_a_download_goes_on_after_a_restart_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory, turns: list[int], torn: int
) -> None:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("board"))
    try:
        board = Board()
        board.update.offer(NEW.offer())
        for count in turns:
            if board.run(NEW, count):
                break
            part = Path("slot-a/spinal/runtime.mpy")
            if torn and part.exists():
                part.write_bytes(part.read_bytes()[:-torn])
            board.asked.clear()
            board.boot()
        assert board.update.installed or board.run(NEW)
        assert board.files("slot-a") == FILES
    finally:
        os.chdir(before)


@pytest.mark.parametrize("kept", [0, 3, 9, 40, 100, -130, -100, -2])
def test_a_torn_offer_is_forgotten_and_can_come_again(board: Board, kept: int) -> None:
    board.update.offer(NEW.offer())
    Path("update.txt").write_text(Path("update.txt").read_text()[:kept])
    board.boot()
    board.run(NEW, 500)
    assert board.told == [("offer", "failed", "torn")]
    board.update.offer(NEW.offer())
    assert board.run(NEW)


def test_the_offer_that_is_being_taken_changes_nothing_and_another_replaces_it(
    board: Board,
) -> None:
    board.update.offer(NEW.offer())
    board.run(None, 1_000)
    board.update.offer(NEW.offer())
    board.run(None, 1_000)
    assert len(board.asked) == 1
    newer = Pack("1.2.0", {"app.py": b"newer"})
    board.update.offer(newer.offer())
    board.asked.clear()
    assert board.run(newer)
    assert board.files("slot-a") == {"app.py": b"newer"}


def test_what_does_not_run_is_taken_back_and_not_taken_again(board: Board) -> None:
    board.update.offer(NEW.offer())
    board.run(NEW)
    for _ in range(BAD_BOOTS):
        board.boot()
        assert (board.slots.slot, board.slots.safe) == ("slot-a", False)
    board.boot()
    assert (board.slots.slot, board.slots.taken_back, board.slots.safe) == ("", True, False)
    board.update.offer(NEW.offer())
    assert board.told[-1] == ("offer", "refused", "taken_back")
    board.update.offer(Pack("1.1.1", FILES).offer())
    assert board.run(NEW) is False  # 1.1.0 is served, 1.1.1 was asked for
    assert board.run(Pack("1.1.1", FILES), 4_000)


def test_on_trial_no_other_update_is_taken_so_that_there_is_a_way_back(board: Board) -> None:
    board.update.offer(NEW.offer())
    board.run(NEW)
    board.boot()
    board.update.offer(Pack("1.2.0", FILES).offer())
    assert board.told[-1] == ("offer", "refused", "on_trial")


def test_an_offer_between_install_and_restart_changes_nothing(board: Board) -> None:
    board.update.offer(NEW.offer())
    assert board.run(NEW)
    board.update.offer(NEW.offer())
    board.update.offer(Pack("1.2.0", FILES).offer())
    assert board.told[-2:] == [("offer", "refused", "on_trial")] * 2
    assert board.run(NEW)
    # The way back leads to what ran before, not to what is installed.
    for _ in range(BAD_BOOTS + 1):
        board.boot()
    assert (board.slots.slot, board.slots.taken_back) == ("", True)


def test_the_next_update_takes_the_other_slot_and_leaves_the_running_one(board: Board) -> None:
    board.update.offer(NEW.offer())
    board.run(NEW)
    board.boot()
    board.slots.good()
    newer = Pack("1.2.0", {"app.py": b"newer"})
    board.update.offer(newer.offer())
    assert board.run(newer)
    assert board.files("slot-a") == FILES
    board.boot()
    assert (board.slots.slot, board.files("slot-b")) == ("slot-b", {"app.py": b"newer"})
    newest = Pack("1.3.0", {"main.py": b"newest"})
    board.slots.good()
    board.update.offer(newest.offer())
    assert board.run(newest)
    assert board.files("slot-a") == {"main.py": b"newest"}


def test_three_bad_boots_mean_safe_mode_until_one_is_good(board: Board) -> None:
    for _ in range(BAD_BOOTS - 1):
        board.boot()
        assert not board.slots.safe
    board.boot()
    assert board.slots.safe
    assert not board.slots.good()
    board.boot()
    assert not board.slots.safe


def test_a_restart_by_intention_is_no_bad_boot(board: Board) -> None:
    for _ in range(BAD_BOOTS + 2):
        board.slots.restarting()
        board.boot()
        assert not board.slots.safe


def test_a_restart_by_intention_is_told_from_one_of_the_watchdog(board: Board) -> None:
    board.boot()
    assert not board.slots.asked
    board.slots.restarting()
    board.boot()
    assert board.slots.asked
    board.boot()
    assert not board.slots.asked


def test_a_lost_record_starts_what_was_flashed(board: Board) -> None:
    board.update.offer(NEW.offer())
    board.run(NEW)
    for name in ("slots.a", "slots.b"):
        Path(name).write_bytes(b"rubbish")
    board.boot()
    assert board.slots.slot == ""
