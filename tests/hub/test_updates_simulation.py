"""The hub's updates against the boards' own code, in simulated time, all going wrong."""

from pathlib import Path

import pytest

from firmware.update_pack import SIGNER
from hub.update_world import World
from nervus.updates import Pack

FILES = {"spinal/runtime.mpy": bytes(range(256)) * 3, "spinal/empty.py": b"", "app.py": b"x" * 64}
GOOD = Pack.signed("0.2.0", FILES, SIGNER, chunk_size=64)
BOARDS = ("b1", "b2", "b3")


@pytest.mark.parametrize("seed", range(8))
def test_every_board_gets_there_whatever_is_lost_doubled_or_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    world = World(tmp_path, monkeypatch, seed, loss=0.05, doubles=0.1, delay_ms=900, at_once=2)
    chance = world.random
    world.add(*BOARDS)
    world.crash = lambda: chance.choice(["before", "after"]) if chance.random() < 0.1 else "live"
    update_id = world.order(GOOD, *BOARDS)
    cuts = {board: sorted(chance.randint(2_000, 90_000) for _ in range(2)) for board in BOARDS}
    began_ms = world.now_ms

    def done() -> bool:
        for name, at in cuts.items():
            if at and world.now_ms - began_ms > at[0] and not world.boards[name].slots.trial:
                at.pop(0)
                world.boards[name].boot()
        return set(world.states(update_id).values()) == {"confirmed"}

    world.run(done, minutes=40)
    for board in world.boards.values():
        assert (board.version, board.files()) == ("0.2.0", FILES)
        assert not board.slots.trial
    assert world.starts > 2


@pytest.mark.parametrize("seed", range(4))
def test_a_version_that_does_not_run_is_tried_by_the_canary_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    world = World(tmp_path, monkeypatch, seed, loss=0.05, doubles=0.1, delay_ms=900)
    chance = world.random
    world.add(*BOARDS)
    world.crash = lambda: chance.choice(["before", "after"]) if chance.random() < 0.1 else "live"
    world.broken.add("0.2.0")
    update_id = world.order(GOOD, *BOARDS)
    world.run(lambda: world.states(update_id)["b1"] == "rolled_back", minutes=30)
    world.pass_time(60_000)
    assert world.states(update_id) == {"b1": "rolled_back", "b2": "held", "b3": "held"}
    assert world.rollout(update_id).stopped.startswith("b1: ")
    assert [world.boards[name].tried for name in BOARDS] == [{"0.2.0"}, set(), set()]
    assert {board.version for board in world.boards.values()} == {"0.1.0"}


@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_hub_that_dies_at_any_commit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """It dies at every commit once: the first time there, then one later each time."""
    for number in range(14):
        folder = tmp_path / str(number)
        folder.mkdir()
        world = World(folder, monkeypatch)
        world.add("b1")
        commits = iter(range(10_000))
        world.crash = lambda commits=commits, number=number: (
            mode if next(commits) == number else "live"
        )
        update_id = world.order(GOOD, "b1")
        world.run(
            lambda world=world, update_id=update_id: world.states(update_id) == {"b1": "confirmed"}
        )
        assert world.boards["b1"].files() == FILES
        assert world.starts == 2, f"there is no commit {number}"
