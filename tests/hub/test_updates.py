"""The updates core by its rules, each said by a board word by word."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firmware.update_pack import SIGNER
from hub.update_voice import Voice
from hub.update_world import World
from nervus.updates import Pack, Withdrawn

FILES = {"spinal/empty.py": b"", "app.py": bytes(range(130)), "last.py": b"end"}
PACK = Pack.signed("0.2.0", FILES, SIGNER, chunk_size=64)
NEWER = Pack.signed("0.3.0", FILES, SIGNER, chunk_size=64)

Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(**settings: Any) -> World:
        world = World(tmp_path, monkeypatch, **settings)
        world.pass_time(1_000)
        return world

    return made


def offers(world: World, device_id: str = "b1") -> int:
    return len(world.sent("update_offer", device_id))


def codes(world: World) -> list[str]:
    return [each.reason_code for each in world.rejected]


def test_a_board_is_seen_through_from_the_offer_to_the_trial(make: Make) -> None:
    world, b1 = make(), Voice()
    update_id = world.order(PACK, "b1")
    world.pass_time()
    (offer,) = world.sent("update_offer", "b1")
    assert offer.message.payload == PACK.offer
    seen = []
    for said in (
        b1.report("offer", "succeeded"),
        b1.ask("app.py", 0),
        b1.ask("last.py", 0),
        b1.report("verify", "succeeded"),
        b1.report("install", "succeeded"),
        Voice(boot=2).info("0.2.0"),
        Voice(boot=2).report("probation", "running"),
    ):
        world.step(said)
        seen.append(world.board(update_id, "b1").state)
    assert seen == ["pulling"] * 4 + ["trial"] * 3
    later = Voice(boot=3)
    world.step(later.report("probation", "succeeded"))
    board = world.board(update_id, "b1")
    assert (board.state, board.done, board.total) == ("confirmed", 133, 133)
    assert world.core.needed == frozenset()
    world.step(later.report("download", "running"))
    world.step(later.report("offer", "refused", "bad_signature"))
    assert world.board(update_id, "b1").state == "confirmed"
    assert [chunk.message.payload.path for chunk in world.sent("chunk")] == ["app.py", "last.py"]


def test_canaries_go_first_and_the_others_in_their_number(make: Make) -> None:
    world = make(at_once=2)
    names = ("b1", "b2", "b3", "b4")
    update_id = world.order(PACK, *names, canary=1)
    world.pass_time(5_000)
    assert [offers(world, name) for name in names] == [1, 0, 0, 0]
    world.step(Voice("b1").report("probation", "succeeded"))
    world.pass_time()
    assert [offers(world, name) for name in names] == [1, 1, 1, 0]
    world.step(Voice("b2").report("offer", "refused", "no_space"))
    world.pass_time()
    assert offers(world, "b4") == 1
    assert list(world.states(update_id).values()) == ["confirmed", "refused", "offered", "offered"]
    assert world.rollout(update_id).stopped == ""


@pytest.mark.parametrize("before", [(), (("install", "succeeded"),)])
def test_whose_turn_has_not_come_gets_nothing_by_saying_that_it_fetches(
    make: Make, before: tuple[tuple[str, str], ...]
) -> None:
    world, b2 = make(), Voice("b2")
    update_id = world.order(PACK, "b1", "b2", canary=1)
    # It goes on with an order of the same version that was withdrawn.
    for said in (*before, ("offer", "succeeded"), ("download", "running")):
        world.step(b2.report(*said))
    world.step(b2.ask())
    world.pass_time(60_000)
    assert world.states(update_id) == {"b1": "offered", "b2": "trial" if before else "waiting"}
    assert world.sent("chunk") == []
    assert codes(world) == ["unknown_name"]
    world.step(Voice("b1").report("probation", "succeeded"))
    world.step(b2.ask())
    world.pass_time()
    assert world.states(update_id)["b2"] == ("pulling" if before else "offered")


@pytest.mark.parametrize(
    ("stage", "status", "code", "state"),
    [
        ("rollback", "succeeded", "taken_back", "rolled_back"),
        ("offer", "refused", "taken_back", "rolled_back"),
        ("offer", "refused", "bad_signature", "refused"),
        ("verify", "failed", "bad_digest", "failed"),
    ],
)
def test_a_canary_that_does_not_get_there_stops_the_roll_out(
    make: Make, stage: str, status: str, code: str, state: str
) -> None:
    world = make()
    update_id = world.order(PACK, "b1", "b2")
    world.pass_time()
    world.step(Voice().report(stage, status, code))
    world.pass_time(60_000)
    assert world.states(update_id) == {"b1": state, "b2": "held"}
    assert world.rollout(update_id).stopped == f"b1: because of {code}"
    assert offers(world, "b2") == 0


def test_who_fetches_is_held_when_another_takes_it_back_and_who_is_on_trial_ends_it(
    make: Make,
) -> None:
    world = make()
    update_id = world.order(PACK, "b1", "b2", "b3", canary=0)
    world.pass_time()
    fetching, trying = Voice("b2"), Voice("b3")
    world.step(fetching.ask())
    world.step(trying.report("install", "succeeded"))
    world.step(Voice("b1").report("rollback", "succeeded", "taken_back"))
    assert world.states(update_id) == {"b1": "rolled_back", "b2": "held", "b3": "trial"}
    chunks = len(world.sent("chunk"))
    world.step(fetching.ask(offset=64))
    assert len(world.sent("chunk")) == chunks
    # Neither does one that lost what it had installed begin anew.
    world.step(trying.ask())
    assert len(world.sent("chunk")) == chunks
    assert codes(world) == ["unknown_name"] * 2
    world.step(fetching.report("download", "failed", "no_chunk", passes=True))
    assert world.states(update_id)["b2"] == "held"
    # It had all of it already, and says so: that is how it is.
    world.step(fetching.report("install", "succeeded"))
    world.step(trying.report("probation", "succeeded"))
    assert world.states(update_id) == {"b1": "rolled_back", "b2": "trial", "b3": "confirmed"}
    # It lost what it had installed and begins anew, which it is not to.
    world.step(fetching.report("offer", "succeeded"))
    assert world.states(update_id)["b2"] == "held"


def test_a_silent_board_is_offered_again_and_goes_quiet_and_is_offered_when_it_is_back(
    make: Make,
) -> None:
    world = make()
    update_id = world.order(PACK, "b1")
    world.pass_time(119_000)
    assert offers(world) == 4  # at once, after 15, 30 and 60 s
    world.pass_time(2_000)
    assert world.board(update_id, "b1").code == "quiet"
    world.pass_time(600_000)
    assert offers(world) == 4
    world.step(Voice(boot=9).info("0.1.0"))
    world.pass_time()
    assert (world.states(update_id)["b1"], offers(world)) == ("offered", 5)


def test_a_board_that_is_away_takes_nobody_s_place_and_may_answer_all_the_same(make: Make) -> None:
    world = make(at_once=1)
    for name in ("b1", "b2"):
        world.step(Voice(name).status())
        world.step(Voice(name).info())
    world.step(Voice("b1").status("offline"))
    update_id = world.order(PACK, "b1", "b2", canary=0)
    world.pass_time()
    assert world.states(update_id) == {"b1": "gone_quiet", "b2": "offered"}
    assert world.board(update_id, "b1").error == "it is offline"
    world.step(Voice("b1", 2).report("offer", "succeeded"))
    assert world.states(update_id)["b1"] == "pulling"


def test_a_canary_that_is_away_keeps_the_others_waiting(make: Make) -> None:
    world = make()
    world.step(Voice("b1").status("offline"))
    update_id = world.order(PACK, "b1", "b2")
    world.pass_time(600_000)
    assert world.states(update_id) == {"b1": "gone_quiet", "b2": "waiting"}
    assert world.rollout(update_id).stopped == ""


def test_a_will_counts_for_the_session_that_is_there(make: Make) -> None:
    world = make()
    old, new = Voice("b1"), Voice("b1", 2)
    world.step(new.status())
    world.step(old.status("offline"))
    assert world.stored().seen[0].online
    world.step(new.status("offline"))
    assert not world.stored().seen[0].online


def test_births_again_and_again_are_no_flood_of_offers(make: Make) -> None:
    world = make()
    world.order(PACK, "b1")
    world.pass_time()
    for boot in range(2, 30):
        world.step(Voice(boot=boot).info())
        world.step(Voice(boot=boot).info())
        world.pass_time()
    assert 3 < offers(world) < 10


def test_silence_on_trial_is_asked_about_and_then_stops_the_roll_out(make: Make) -> None:
    world, b1 = make(), Voice()
    update_id = world.order(PACK, "b1", "b2", canary=0)
    world.pass_time()
    world.step(b1.report("install", "succeeded"))
    world.pass_time(299_000)
    assert offers(world) == 1 + 6
    world.pass_time(2_000)
    assert world.board(update_id, "b1").code == "quiet_on_trial"
    assert world.states(update_id)["b2"] == "held"
    assert world.rollout(update_id).stopped.startswith("b1: it did not say")
    # It comes back with what it ran before, and is asked what became of the other.
    world.step(Voice(boot=5).info("0.1.0"))
    assert world.states(update_id)["b1"] == "trial"
    world.pass_time(16_000)
    assert offers(world) == 8
    world.step(Voice(boot=5).report("offer", "refused", "taken_back"))
    assert world.states(update_id)["b1"] == "rolled_back"


def test_a_lost_report_of_success_is_made_up_for_by_the_answer_to_an_offer(make: Make) -> None:
    world = make()
    update_id = world.order(PACK, "b1")
    world.pass_time()
    late = Voice(boot=2)
    world.step(late.info("0.2.0"))
    assert world.states(update_id)["b1"] == "trial"
    world.step(late.report("offer", "refused", "on_trial", passes=True))
    assert world.states(update_id)["b1"] == "trial"
    world.step(late.report("offer", "refused", "not_newer"))
    assert world.states(update_id)["b1"] == "confirmed"


def test_an_offer_before_the_restart_finds_it_on_trial(make: Make) -> None:
    world, b1 = make(), Voice()
    world.step(b1.info("0.1.0"))
    update_id = world.order(PACK, "b1")
    world.pass_time()
    world.step(b1.report("install", "succeeded"))
    world.step(b1.report("offer", "refused", "on_trial", passes=True))
    board = world.board(update_id, "b1")
    assert (board.state, board.code) == ("trial", "")
    world.pass_time(301_000)
    world.step(b1.report("offer", "refused", "on_trial", passes=True))
    assert world.states(update_id)["b1"] == "gone_quiet"


@pytest.mark.parametrize(
    ("runs", "before", "state"),
    [
        ("0.3.0", None, "refused"),
        ("0.2.0", None, "confirmed"),
        ("0.1.0", None, "offered"),
        ("fork-7", None, "offered"),
        ("0.1.0", "install", "confirmed"),
    ],
)
def test_not_newer_is_understood_by_what_the_board_runs(
    make: Make, runs: str, before: str | None, state: str
) -> None:
    world, b1 = make(), Voice()
    world.step(b1.info(runs))
    update_id = world.order(PACK, "b1")
    world.pass_time()
    if before:
        world.step(b1.report(before, "succeeded"))
    world.step(b1.report("offer", "refused", "not_newer"))
    assert world.states(update_id)["b1"] == state


def test_a_board_that_tries_another_version_is_asked_again_until_that_is_over(make: Make) -> None:
    world, b1 = make(tries=1), Voice()
    update_id = world.order(PACK, "b1")
    for _ in range(5):
        world.pass_time(15_000)
        world.step(b1.report("offer", "refused", "on_trial", passes=True))
    board = world.board(update_id, "b1")
    assert (board.state, board.code, offers(world)) == ("offered", "on_trial", 5)


@pytest.mark.parametrize(
    ("stage", "code", "passes"), [("download", "no_chunk", True), ("offer", "torn", False)]
)
def test_what_may_pass_is_tried_again_a_few_times(
    make: Make, stage: str, code: str, *, passes: bool
) -> None:
    world, b1 = make(), Voice()
    update_id = world.order(PACK, "b1")
    world.pass_time()
    for state in ("offered", "offered", "failed"):
        world.step(b1.report("offer", "succeeded"))
        world.step(b1.report(stage, "failed", code, passes=passes))
        assert world.states(update_id)["b1"] == state
        world.pass_time(15_000)
    assert offers(world) == 3
    world.step(b1.report(stage, "failed", code, passes=True))
    assert world.states(update_id)["b1"] == "failed"


def test_a_clock_that_is_set_forward_is_nobody_s_silence(make: Make) -> None:
    world = make()
    update_id = world.order(PACK, "b1", "b2", canary=0)
    world.pass_time()
    world.step(Voice("b1").report("install", "succeeded"))
    world.now_ms += 3_600_000
    world.pass_time(100_000)
    assert world.states(update_id) == {"b1": "trial", "b2": "offered"}
    world.pass_time(22_000)
    assert world.states(update_id) == {"b1": "trial", "b2": "gone_quiet"}
    world.pass_time(180_000)
    assert world.states(update_id) == {"b1": "gone_quiet", "b2": "held"}


def test_a_download_without_end_is_given_up(make: Make) -> None:
    world, b1 = make(whole_ms=60_000), Voice()
    update_id = world.order(PACK, "b1")
    for _ in range(62):
        world.pass_time(1_000)
        world.step(b1.ask())
    assert world.board(update_id, "b1").code == "too_slow"


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        ({"version": "0.3.0"}, "unknown_name", "0.3.0 is not offered to b1"),
        ({"path": "secret.py"}, "unknown_name", "there is no secret.py in 0.2.0"),
        ({"offset": 63}, "schema_invalid", "no chunk of app.py begins at 63"),
        ({"offset": 192}, "schema_invalid", "no chunk of app.py begins at 192"),
        ({"path": "spinal/empty.py"}, "schema_invalid", "no chunk of spinal/empty.py begins at 0"),
    ],
)
def test_what_is_not_to_be_had_is_refused_with_its_reason(
    make: Make, asked: dict[str, Any], code: str, reason: str
) -> None:
    world, b1 = make(), Voice()
    world.order(PACK, "b1")
    world.pass_time()
    world.step(b1.ask(**asked))
    (rejected,) = world.rejected
    assert (rejected.reason_code, rejected.reason) == (code, reason)
    assert rejected.source == "device:b1"
    assert world.sent("chunk") == []
    world.step(b1.ask())
    assert len(world.sent("chunk", "b1")) == 1


def test_a_board_that_was_offered_nothing_gets_nothing(make: Make) -> None:
    world = make()
    world.order(PACK, "b1", "b2")
    world.pass_time()
    for name in ("b2", "b3"):
        world.step(Voice(name).ask())
    assert codes(world) == ["unknown_name", "unknown_name"]
    assert world.sent("chunk") == []


def test_a_board_gets_chunks_at_a_rate_and_is_told_when_it_asks_for_more(make: Make) -> None:
    world, b1 = make(chunks_per_s=4.0), Voice()
    world.order(PACK, "b1")
    world.pass_time()
    for _ in range(10):
        world.step(b1.ask())
    assert len(world.sent("chunk")) == 4
    assert codes(world) == ["queue_full"] * 5
    world.pass_time(1_000)
    assert len(world.sent("chunk")) == 5
    assert world.core.counters["too_fast"] == 5


def test_an_older_message_changes_nothing(make: Make) -> None:
    world, b1 = make(), Voice()
    update_id = world.order(PACK, "b1")
    world.pass_time()
    running, asked = b1.report("download", "running"), b1.ask()
    world.step(b1.report("install", "succeeded"))
    world.step(running)
    world.step(asked)
    assert world.states(update_id)["b1"] == "trial"
    assert world.sent("chunk") == []
    # A board that lost what it had installed asks in earnest.
    world.step(b1.ask())
    assert world.states(update_id)["b1"] == "pulling"


def test_a_board_that_was_flashed_anew_counts_from_the_beginning_and_is_heard(make: Make) -> None:
    world = make()
    update_id = world.order(PACK, "b1")
    world.pass_time()
    world.step(Voice(boot=70).ask())
    flashed = Voice(boot=1)
    world.step(flashed.info("0.1.0"))
    world.step(flashed.report("offer", "refused", "no_key"))
    assert world.board(update_id, "b1").code == "no_key"


def test_what_a_board_says_of_another_version_changes_nothing(make: Make) -> None:
    world, b1 = make(), Voice()
    update_id = world.order(PACK, "b1")
    world.pass_time()
    world.step(b1.report("rollback", "succeeded", "taken_back", version="0.1.9"))
    world.step(Voice("b2").report("rollback", "succeeded", "taken_back"))
    assert world.states(update_id) == {"b1": "offered"}
    assert world.core.counters["unknown_report"] == 2


def test_a_newer_order_takes_the_place_of_the_older_one(make: Make) -> None:
    world = make()
    first = world.order(PACK, "b1", "b2", "b3", canary=1)
    world.pass_time()
    world.step(Voice("b1").report("probation", "succeeded"))
    world.pass_time()
    second = world.order(NEWER, "b2")
    assert world.states(first) == {"b1": "confirmed", "b2": "held", "b3": "offered"}
    assert world.board(first, "b2").error == f"superseded by {second}"
    world.step(Voice("b2").report("probation", "succeeded"))  # of 0.2.0
    assert world.states(second) == {"b2": "waiting"}
    assert world.states(first)["b2"] == "held"
    third = world.order(NEWER, "b3")
    assert world.rollout(first).stopped == ""
    fourth = world.order(NEWER, "b2", "b3", "b4")
    assert world.rollout(second).stopped == f"superseded by {fourth}"
    assert world.states(third) == {"b3": "held"}


def test_a_canary_on_trial_that_gets_a_newer_order_leaves_nobody_waiting(make: Make) -> None:
    world = make()
    first = world.order(PACK, "b1", "b2")
    world.pass_time()
    world.step(Voice("b1").report("install", "succeeded"))
    second = world.order(NEWER, "b1")
    assert world.states(first) == {"b1": "held", "b2": "held"}
    assert world.rollout(first).stopped == f"superseded by {second}"


def test_a_withdrawn_order_stops_and_the_same_order_twice_is_one(make: Make) -> None:
    world = make()
    update_id = world.order(PACK, "b1", "b2")
    world.pass_time()
    world.order(PACK, "b1", "b2", update_id=update_id)
    assert world.states(update_id) == {"b1": "offered", "b2": "waiting"}
    world.step(Withdrawn("01UNKNOWN"))
    world.step(Withdrawn(update_id))
    world.step(Withdrawn(update_id, "ada"))
    assert world.states(update_id) == {"b1": "held", "b2": "held"}
    assert world.rollout(update_id).stopped == "withdrawn"


def test_a_roll_out_whose_pack_is_lost_stops_and_says_so(make: Make) -> None:
    world = make()
    update_id = world.order(PACK, "b1", "b2", "b3", canary=0)
    world.pass_time()
    world.step(Voice("b1").report("install", "succeeded"))
    world.step(Voice("b2").ask())
    world.packs.clear()
    before = len(world.published)
    world.start()
    world.pass_time(100_000)
    assert world.rollout(update_id).stopped == "its pack is lost"
    assert world.states(update_id) == {"b1": "trial", "b2": "held", "b3": "held"}
    assert len(world.published) == before
    world.step(Voice("b1", 2).ask())
    assert codes(world) == ["unknown_name"]
    world.step(Voice("b1", 2).report("probation", "succeeded"))
    assert world.states(update_id)["b1"] == "confirmed"


def test_ended_roll_outs_are_remembered_up_to_a_number(make: Make) -> None:
    world = make(kept_rollouts=1)
    ids = []
    for number in range(3):
        ids.append(world.order(PACK, "b1"))
        world.pass_time()
        world.step(Voice(boot=number + 1).report("probation", "succeeded"))
        world.pass_time()
    assert [row.update_id for row in world.stored().rollouts] == ids[2:]
    assert [row.update_id for row in world.stored().boards] == ids[2:]
    assert world.core.known == frozenset(ids[2:])
    world.start()
    assert world.core.known == frozenset(ids[2:])
