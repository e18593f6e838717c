"""The updates core after a start: it takes up what is stored, each board where it was."""

from pathlib import Path

import pytest

from firmware.update_pack import SIGNER
from hub.update_voice import Voice
from hub.update_world import World
from nervus.updates import Pack, Withdrawn

PACK, NEWER = (
    Pack.signed(version, {"app.py": bytes(range(130))}, SIGNER) for version in ("0.2.0", "0.3.0")
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_the_births_are_waited_for(world: World) -> None:
    world.order(PACK, "b1")
    world.pass_time(750)
    assert not world.sent("update_offer", "b1")
    world.pass_time()
    assert len(world.sent("update_offer", "b1")) == 1
    world.start()
    world.pass_time(750)
    assert len(world.sent("update_offer", "b1")) == 1
    world.pass_time()
    assert len(world.sent("update_offer", "b1")) == 2


def test_a_trial_in_a_roll_out_that_another_followed_still_ends(world: World) -> None:
    first, second = world.order(PACK, "b1"), world.order(NEWER, "b1")
    world.step(Withdrawn(second))
    world.step(Voice("b1").report("probation", "running"))
    assert (world.states(first), world.states(second)) == ({"b1": "trial"}, {"b1": "held"})
    world.start()
    world.pass_time(1_000_000)
    assert world.states(first) == {"b1": "gone_quiet"}
