"""The device registry: stale wills, pings and births; and the desired reflexes it triggers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.command_inputs import NOW_MS, Ask, Board, World, action_id, reflexes
from nervus.reliable import ReflexFolder, load_reflexes, rule_hash
from nervus.reliable.core import Desired
from nervus.reliable.reflexes import OTHERS_LIMIT, DesiredReflex
from nervus.reliable.registry import Registry
from nervus.wire import Removed, topics
from nervus.wire.contracts import ErrorDetail, ReflexConfigurePayload
from spinal.rule import rule_hash as board_hash

RULE: dict[str, Any] = {
    "reflex_id": "cool",
    "version": 1,
    "enabled": True,
    "mode": "active",
    "when": {"sensor": "temperature", "op": "gt", "value": 30.5},
    "then": [{"actuator": "fan", "set": True}],
}


def status(registry: Registry, board: Board, text: str, **fields: Any) -> bool:
    return registry.status("b1", board.status(text, NOW_MS, **fields).message)  # type: ignore[arg-type]


def test_the_will_of_an_older_session_does_not_take_a_device_offline() -> None:
    registry, old, new = Registry(), Board("b1", boot=1), Board("b1", boot=2)
    will = old.status("offline", NOW_MS).message
    assert status(registry, old, "online")
    assert status(registry, new, "online")
    assert not registry.status("b1", will)  # type: ignore[arg-type]
    assert registry.availability("b1") == "online"
    assert not status(registry, new, "online")


def test_the_will_of_the_session_itself_counts_although_it_was_made_before_its_birth() -> None:
    registry, board = Registry(), Board("b1")
    will = board.status("offline", NOW_MS).message
    assert status(registry, board, "online")
    registry.status("b1", will)  # type: ignore[arg-type]
    assert registry.availability("b1") == "offline"
    assert status(registry, board, "online")


def test_a_later_session_that_was_missed_takes_the_device_offline() -> None:
    registry = Registry()
    assert status(registry, Board("b1", boot=1), "online")
    assert not status(registry, Board("b1", boot=2), "offline")
    assert registry.availability("b1") == "offline"


def test_who_pings_lives_although_an_old_will_is_retained() -> None:
    registry, old, new = Registry(), Board("b1", boot=1), Board("b1", boot=2)
    will = old.status("offline", NOW_MS).message
    registry.status("b1", will)  # type: ignore[arg-type]
    assert registry.alive("b1", boot=2, seq=90)
    assert not registry.alive("b1", boot=2, seq=91)
    registry.status("b1", will)  # type: ignore[arg-type]
    assert registry.availability("b1") == "online"
    status(registry, new, "offline")
    assert registry.availability("b1") == "offline"


def test_a_sleeping_device_that_pings_is_online_again() -> None:
    registry, board = Registry(), Board("b1")
    assert not status(registry, board, "sleeping")
    assert registry.availability("b1") == "sleeping"
    assert registry.alive("b1", boot=1, seq=5)
    assert registry.availability("b1") == "online"


def test_what_is_removed_is_unknown() -> None:
    registry, board = Registry(), Board("b1")
    assert registry.boot("b1") is None
    status(registry, board, "online")
    registry.info("b1", board.info(NOW_MS, "lamp").message)  # type: ignore[arg-type]
    assert registry.boot("b1") == 1
    assert registry.has_actuator("b1", "lamp") is True
    registry.remove_status("b1")
    registry.remove_info("b1")
    assert registry.availability("b1") == "unknown"
    assert registry.has_actuator("b1", "lamp") is None


def test_a_ping_after_an_old_will_dispatches_what_waits() -> None:
    world, old, board = World(), Board("b1", boot=1), Board("b1", boot=2)
    world.step(old.status("offline", NOW_MS))
    action = action_id()
    world.ask(Ask(action))
    world.step(board.ping(world.now_ms))
    assert world.stages(action) == ["accepted", "dispatched"]


def rule(**changes: Any) -> DesiredReflex:
    content = RULE | changes
    return DesiredReflex(ReflexConfigurePayload.model_validate(content), rule_hash(content))


class Reflexes:
    """Board b1 online, one desired rule, and the configurations it was sent."""

    def __init__(self) -> None:
        self.world = World()
        self.board = Board("b1")
        self.world.step(reflexes(cool=rule()))

    def online(self) -> None:
        self.world.step(self.board.status("online", self.world.now_ms))

    @property
    def sent(self) -> list[Any]:
        return [each.message for each in self.world.sent("reflex_configure")]

    def run(self, ms: int) -> None:
        for _ in range(ms // 50):
            self.world.tick(50)

    def report(self, text: str, number: int = -1, **fields: Any) -> None:
        action = self.sent[number].meta.action_id
        self.world.step(self.board.reflex_report("cool", action, text, self.world.now_ms, **fields))


@pytest.fixture
def desk() -> Reflexes:
    return Reflexes()


def test_a_rule_waits_for_its_board_and_is_sent_until_the_board_has_it(desk: Reflexes) -> None:
    desk.run(5_000)
    assert not desk.sent
    desk.online()
    desk.run(1_950)
    assert not desk.sent
    desk.run(3_100)
    assert len(desk.sent) == 3
    assert len({each.meta.message_id for each in desk.sent}) == 3
    desk.report("applied", hash=rule().hash)
    desk.run(60_000)
    assert len(desk.sent) == 3


def test_a_board_that_reports_the_rule_in_this_boot_is_not_sent_it(desk: Reflexes) -> None:
    desk.online()
    desk.world.step(desk.board.reflex_state("cool", rule().hash, desk.world.now_ms))
    desk.run(10_000)
    assert not desk.sent


def test_a_state_from_before_the_reboot_proves_nothing(desk: Reflexes) -> None:
    desk.world.step(desk.board.reflex_state("cool", rule().hash, desk.world.now_ms))
    desk.board = Board("b1", boot=2)
    desk.online()
    desk.run(2_100)
    assert len(desk.sent) == 1


def test_a_board_that_reports_another_rule_is_sent_ours_again(desk: Reflexes) -> None:
    desk.online()
    desk.run(2_100)
    desk.report("unchanged")
    desk.run(5_000)
    assert len(desk.sent) == 1
    desk.world.step(desk.board.reflex_state("cool", "0" * 16, desk.world.now_ms))
    desk.run(100)
    assert len(desk.sent) == 2


def test_a_refused_rule_waits_for_another_content(desk: Reflexes) -> None:
    desk.online()
    desk.run(2_100)
    desk.report("rejected")
    desk.world.step(desk.board.reflex_state("cool", "0" * 16, desk.world.now_ms))
    desk.run(60_000)
    assert len(desk.sent) == 1
    assert desk.world.reliable.counters["reflex_refused"] == 1
    desk.world.step(reflexes(cool=rule(version=2)))
    desk.run(100)
    assert desk.sent[-1].payload.version == 2


def test_a_rule_the_board_could_not_take_now_is_sent_again(desk: Reflexes) -> None:
    desk.online()
    desk.run(2_100)
    busy = ErrorDetail(code="store_failed", message="flash busy", kind="retriable")
    desk.report("rejected", error=busy)
    desk.run(1_000)
    assert len(desk.sent) == 2


def test_a_report_about_something_else_changes_nothing(desk: Reflexes) -> None:
    desk.online()
    desk.run(2_100)
    for reflex_id in ("cool", "other"):
        desk.world.step(
            desk.board.reflex_report(reflex_id, action_id(), "applied", desk.world.now_ms)
        )
    desk.world.step(desk.board.reflex_state("other", "0" * 16, desk.world.now_ms))
    desk.run(1_000)
    assert len(desk.sent) == 2


def test_a_rule_that_is_no_longer_desired_is_no_longer_sent(desk: Reflexes) -> None:
    desk.online()
    desk.run(2_100)
    desk.world.step(reflexes())
    desk.run(60_000)
    assert len(desk.sent) == 1
    desk.world.step(reflexes(cool=rule()))
    desk.world.step(reflexes(cool=rule()))
    desk.run(100)
    assert len(desk.sent) == 2
    assert desk.sent[-1].meta.action_id != desk.sent[0].meta.action_id


class Removals(Reflexes):
    """The same board with its folder, from which the rule has gone."""

    def without(self, *spared: str, governed: bool = True) -> None:
        self.world.step(
            Desired({}, frozenset({"b1"} if governed else ()), frozenset(("b1", x) for x in spared))
        )

    def state(self, reflex_id: str = "cool") -> None:
        self.world.step(self.board.reflex_state(reflex_id, "0" * 16, self.world.now_ms))

    def state_gone(self, reflex_id: str = "cool") -> None:
        self.world.step(Removed(topics.reflex_state("b1", reflex_id), "spinal"))

    @property
    def removals(self) -> list[str]:
        return [each.payload.reflex_id for each in self.sent if each.payload.removed]


@pytest.fixture
def removals() -> Removals:
    return Removals()


def test_a_rule_whose_file_is_gone_is_removed_from_its_board(removals: Removals) -> None:
    removals.online()
    removals.run(2_100)
    removals.report("applied", hash=rule().hash)
    removals.without()
    removals.run(1_900)
    assert not removals.removals
    removals.run(1_200)
    assert removals.removals == ["cool", "cool"]
    assert removals.sent[-1].payload.version == rule().payload.version
    removals.report("removed")
    removals.run(60_000)
    assert len(removals.removals) == 2


@pytest.mark.parametrize("spared", [True, False])
def test_a_removal_that_is_called_off_in_time_is_not_sent(removals: Removals, spared: bool) -> None:  # noqa: FBT001 - a case
    removals.online()
    removals.run(2_100)
    removals.report("applied", hash=rule().hash)
    removals.without()
    removals.run(1_000)
    if spared:
        removals.without("cool")
    else:
        removals.world.step(Desired({("b1", "cool"): rule()}, frozenset({"b1"})))
    removals.run(10_000)
    assert not removals.removals


def test_a_rule_that_nobody_here_knows_goes_at_its_boards_birth(removals: Removals) -> None:
    removals.without()
    removals.state("stray")
    removals.run(5_000)
    assert not removals.removals
    removals.online()
    removals.run(2_100)
    assert sorted(removals.removals) == ["cool", "stray"]
    removals.state_gone("stray")
    removals.state_gone("cool")
    removals.run(20_000)
    assert len(removals.removals) == 2


def test_rules_of_a_board_without_a_folder_and_spared_ones_stay(removals: Removals) -> None:
    removals.online()
    removals.without(governed=False)
    removals.state("stray")
    removals.run(10_000)
    removals.without("stray", "cool")
    removals.state("stray")
    removals.run(10_000)
    assert not removals.removals


def test_a_board_that_keeps_a_higher_version_is_asked_again_with_that(removals: Removals) -> None:
    removals.online()
    removals.without()
    removals.run(2_100)
    conflict = ErrorDetail(code="version_conflict", message="2 is kept", kind="terminal")
    removals.report("rejected", error=conflict)
    removals.run(20_000)
    assert len(removals.removals) == 1
    removals.state()
    removals.run(2_100)
    assert len(removals.removals) == 2


def test_a_desired_rule_that_a_board_lost_is_sent_again(removals: Removals) -> None:
    removals.online()
    removals.run(2_100)
    removals.report("applied", hash=rule().hash)
    removals.run(2_000)
    removals.state_gone()
    removals.run(100)
    assert len(removals.sent) == 2
    assert not removals.removals


def test_a_board_cannot_fill_the_memory_with_rules_of_its_own(removals: Removals) -> None:
    removals.without()
    for number in range(OTHERS_LIMIT + 20):
        removals.state(f"stray{number}")
    removals.online()
    removals.run(2_100)
    assert len(set(removals.removals)) == OTHERS_LIMIT


def test_another_boards_birth_does_not_send_it(desk: Reflexes) -> None:
    desk.world.step(Board("b2").status("online", desk.world.now_ms))
    desk.run(5_000)
    assert not desk.sent


def write(folder: Path, text: str, name: str = "b1/cool.json") -> ReflexFolder:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return load_reflexes(folder)


def test_rule_files_are_loaded_and_a_wrong_one_harms_no_other(tmp_path: Path) -> None:
    assert load_reflexes(tmp_path / "none") == ReflexFolder({}, ())
    write(tmp_path, json.dumps(RULE))
    found = write(tmp_path, "{", "b1/wrong.json")
    assert list(found.reflexes) == [("b1", "cool")]
    assert (found.governed, found.spared) == ({"b1"}, {("b1", "wrong")})
    assert [error.where for error in found.errors] == [str(tmp_path / "b1/wrong.json")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[1 2]", "not strict JSON"),
        (json.dumps(RULE | {"mode": "maybe"}), "mode: "),
        (json.dumps(RULE | {"priority": None}), "null is never a value"),
        (json.dumps(RULE | {"reflex_id": "heat"}), "reflex_id: is 'heat'"),
        (json.dumps(RULE).replace("reflex_id", "x"), "reflex_id: Field required"),
        (json.dumps({"reflex_id": "cool", "version": 1}), "the rule: give exactly one"),
        (json.dumps({"reflex_id": "cool", "version": 1, "removed": "x"}), "removed: "),
        ("[]", "the rule: "),
        (" " * 8_193, "8193 bytes"),
    ],
)
def test_a_wrong_rule_file_is_named_with_its_rule(tmp_path: Path, text: str, what: str) -> None:
    (error,) = write(tmp_path, text).errors
    assert error.what.startswith(what)
    assert error.where == str(tmp_path / "b1/cool.json")


def test_a_file_named_like_no_topic_level_or_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    found = write(tmp_path, "{}", "b 1/cool.json")
    assert found.errors[0].what.startswith("not the name")
    assert (found.governed, found.spared) == (set(), set())
    (tmp_path / "b1" / "cool.json").mkdir(parents=True)
    messages = [error.what for error in load_reflexes(tmp_path).errors]
    assert any(each.startswith("cannot be read") for each in messages)


_scalars = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)  # fmt: skip
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), _values, max_size=6))
def test_hub_and_board_give_a_rule_the_same_hash(payload: dict[str, Any]) -> None:
    assert rule_hash(payload) == board_hash(payload)


def test_the_rule_that_is_sent_has_the_hash_of_its_file(desk: Reflexes) -> None:
    desk.online()
    desk.run(2_100)
    payload = desk.sent[0].payload.model_dump(by_alias=True, exclude_none=True)
    assert board_hash(payload) == board_hash(RULE) == rule().hash
    assert desk.world.sent("reflex_configure")[0].address == topics.reflex_configure("b1", "cool")
