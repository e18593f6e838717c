"""The reliable core over its real table: one outcome for each action, whatever happens."""

import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from hub.command_inputs import NOW_MS, Ask, Board, World, action_id
from nervus.reliable import Grants, InsertAction, UpdateAction, schema
from nervus.wire import Connected, Removed, encode, topics
from nervus.wire.contracts import ErrorDetail


@pytest.fixture
def board() -> Board:
    return Board("b1")


@pytest.fixture
def world(board: Board) -> World:
    """Board b1 is online with a lamp; b2 was never heard of."""
    world = World()
    world.step(board.info(NOW_MS, "lamp"))
    world.step(board.status("online", NOW_MS))
    return world


@pytest.mark.req("S0-6", "S3-40", "S3-41")
def test_a_command_goes_to_its_board_and_ends_as_the_board_reports(
    world: World, board: Board
) -> None:
    action = action_id()
    world.ask(Ask(action, claimed="somebody-else"))
    (efferent,) = world.sent("efferent_command", action)
    assert efferent.address.topic.endswith(f"/room/kitchen/act/lamp/device/b1/cmd/{action}")
    assert efferent.message.payload.set_ == 1
    world.now_ms += 5
    world.step(board.report(action, "acknowledged", world.now_ms))
    world.now_ms += 5
    world.step(board.report(action, "succeeded", world.now_ms, result=1))
    assert world.stages(action) == ["accepted", "dispatched", "acknowledged"]
    outcome = world.outcome(action)
    assert (outcome.payload.status, outcome.payload.result) == ("succeeded", 1)
    assert outcome.payload.timings.model_dump() == {
        "requested_ms": NOW_MS,
        "accepted_ms": NOW_MS,
        "dispatched_ms": NOW_MS,
        "acknowledged_ms": NOW_MS + 5,
        "finished_ms": NOW_MS + 10,
    }
    (command,) = world.sent("command", action)
    assert [each.meta.principal for each in (command.message, outcome)] == ["operator"] * 2
    assert [each.meta.source for each in (command.message, outcome)] == ["policy", "reliable"]
    assert command.message.meta.trace_id == outcome.meta.trace_id


@pytest.mark.req("S2-76")
def test_an_efferent_lives_exactly_as_long_as_its_action(world: World) -> None:
    action = action_id()
    world.ask(Ask(action, deadline_ms=3_000))
    world.tick(1_000)
    first, second = world.sent("efferent_command", action)
    assert (first.expiry_ms, second.expiry_ms) == (3_000, 2_000)
    for each, left_ms in ((first, 3_000), (second, 2_000)):
        assert each.message.meta.deadline_ms == left_ms
        assert each.message.meta.t_ms + left_ms == NOW_MS + 3_000
        assert each.message.meta.action_id == action
    assert first.message.meta.message_id != second.message.meta.message_id


def test_an_unanswered_command_is_sent_again_in_growing_pauses_until_its_deadline(
    world: World,
) -> None:
    action = action_id()
    world.ask(Ask(action, deadline_ms=20_000))
    while world.now_ms < NOW_MS + 30_000:
        world.tick(50)
    times = [
        at - NOW_MS for at, each in world.published if each.address.spec.name == "efferent_command"
    ]
    assert times == [0, 1_000, 3_000, 7_000, 15_000]
    outcome = world.outcome(action)
    assert outcome.payload.status == "expired"
    assert outcome.payload.timings.finished_ms == NOW_MS + 22_000
    assert outcome.errors[0].code == "deadline_passed"
    assert outcome.errors[0].category == "dependency"


@pytest.mark.req("S3-55", "S3-56", "S3-58")
@pytest.mark.parametrize(
    ("ask", "status", "code", "kind", "category"),
    [
        ({"device": "nobody"}, "rejected", "device_unknown", "terminal", "not_found"),
        ({"actuator": "horn"}, "rejected", "actuator_unknown", "terminal", "not_found"),
        ({"actuator": "temperature"}, "rejected", "actuator_unknown", "terminal", "not_found"),
        ({"arguments": ()}, "rejected", "limit_exceeded", "terminal", "policy"),
        (
            {"capability": "actuator.pulse", "arguments": (("pulse_ms", 0),)},
            "rejected",
            "arguments_invalid",
            "terminal",
            "validation",
        ),
        (
            {"capability": "actuator.melt"},
            "rejected",
            "capability_unknown",
            "terminal",
            "not_found",
        ),
    ],
)
def test_what_cannot_be_done_is_rejected_with_a_typed_error(
    world: World, ask: Any, status: str, code: str, kind: str, category: str
) -> None:
    action = action_id()
    world.ask(Ask(action, **ask))
    outcome = world.outcome(action)
    assert outcome.payload.status == status
    (error,) = outcome.errors
    assert (error.code, error.kind, error.category) == (code, kind, category)
    assert not world.sent("efferent_command", action)


def test_a_request_that_does_not_wait_fails_when_its_device_is_offline(
    world: World, board: Board
) -> None:
    world.step(board.status("offline", NOW_MS))
    action = action_id()
    world.ask(Ask(action, offline="refuse"))
    outcome = world.outcome(action)
    assert outcome.payload.status == "failed"
    (error,) = outcome.errors
    assert (error.code, error.kind, error.category) == ("device_offline", "retriable", "dependency")


def test_after_a_start_no_news_of_a_device_is_not_bad_news_yet(world: World) -> None:
    action, late = action_id(), action_id()
    world.ask(Ask(action, device="b2", offline="refuse"))
    world.ask(Ask(late, device="b2", offline="refuse"))
    world.tick(1_900)
    assert not world.outcomes(action)
    world.step(Board("b2").status("online", world.now_ms))
    assert world.stages(action) == ["accepted", "dispatched"]
    world.step(Board("b2", boot=2).status("offline", world.now_ms))
    other = action_id()
    world.ask(Ask(other, device="b2", offline="refuse"))
    assert world.outcome(other).errors[0].code == "device_offline"


def test_a_device_never_heard_of_is_offline_once_the_start_has_settled() -> None:
    world = World()
    action = action_id()
    world.ask(Ask(action, offline="refuse"))
    world.tick(1_999)
    assert not world.outcomes(action)
    world.tick(1)
    assert world.outcome(action).payload.status == "failed"


@pytest.mark.parametrize("offline", ["wait", None])
def test_a_waiting_request_is_dispatched_when_its_device_comes_online(
    world: World, board: Board, offline: Any
) -> None:
    world.step(board.status("offline", NOW_MS))
    action = action_id()
    world.ask(Ask(action, offline=offline))
    world.tick(3_000)
    assert world.stages(action) == ["accepted"]
    world.step(Board("b1", boot=2).status("online", world.now_ms))
    assert world.stages(action) == ["accepted", "dispatched"]
    assert world.sent("efferent_command", action)[0].message.meta.deadline_ms == 7_000


def test_a_request_nobody_comes_online_for_expires_at_its_deadline(
    world: World, board: Board
) -> None:
    world.step(board.status("sleeping", NOW_MS))
    action = action_id()
    world.ask(Ask(action, deadline_ms=4_000))
    world.tick(3_999)
    assert not world.outcomes(action)
    world.tick(1)
    outcome = world.outcome(action)
    assert outcome.payload.status == "expired"
    assert outcome.payload.timings.dispatched_ms is None


def test_a_request_whose_deadline_has_passed_when_it_comes_is_never_sent(world: World) -> None:
    action = action_id()
    world.ask(Ask(action, deadline_ms=0))
    assert world.outcome(action).payload.status == "expired"
    assert not world.sent("efferent_command", action)


def test_a_board_that_reconnects_is_sent_the_command_again_at_once(
    world: World, board: Board
) -> None:
    action = action_id()
    world.ask(Ask(action))
    world.step(board.status("offline", world.now_ms))
    world.tick(2_000)
    assert len(world.sent("efferent_command", action)) == 1
    world.step(Board("b1", boot=2).status("online", world.now_ms))
    assert len(world.sent("efferent_command", action)) == 2


def test_a_board_that_waits_for_the_time_is_asked_again_and_its_reason_is_kept(
    world: World, board: Board
) -> None:
    action = action_id()
    world.ask(Ask(action, deadline_ms=2_000))
    unsynced = ErrorDetail(code="clock_unsynced", message="no time yet", kind="retriable")
    world.step(board.report(action, "rejected", world.now_ms, error=unsynced))
    assert not world.outcomes(action)
    world.tick(1_000)
    assert len(world.sent("efferent_command", action)) == 2
    world.tick(3_000)
    outcome = world.outcome(action)
    assert (outcome.payload.status, outcome.errors) == ("expired", [unsynced])


@pytest.mark.parametrize("status", ["succeeded", "failed", "rejected", "expired"])
def test_every_final_report_ends_the_action_with_its_own_error(
    world: World, board: Board, status: Any
) -> None:
    action = action_id()
    world.ask(Ask(action))
    error = ErrorDetail(code="jammed", message="the relay sticks", kind="terminal")
    fields = {} if status == "succeeded" else {"error": error}
    world.step(board.report(action, status, world.now_ms, **fields))
    outcome = world.outcome(action)
    assert outcome.payload.status == status
    assert outcome.errors == (None if status == "succeeded" else [error])


def test_a_second_acknowledgement_says_nothing_new(world: World, board: Board) -> None:
    action = action_id()
    world.ask(Ask(action))
    for _ in range(2):
        world.step(board.report(action, "acknowledged", world.now_ms))
    assert world.stages(action) == ["accepted", "dispatched", "acknowledged"]
    world.tick(1_000)
    assert len(world.sent("efferent_command", action)) == 2


def test_a_late_report_is_recorded_and_never_a_second_outcome(world: World, board: Board) -> None:
    action = action_id()
    world.ask(Ask(action, deadline_ms=1_000))
    world.tick(3_000)
    assert world.outcome(action).payload.status == "expired"
    for status in ("acknowledged", "expired", "succeeded", "failed"):
        world.step(board.report(action, status, world.now_ms))
    assert world.outcome(action).payload.status == "expired"
    (error,) = world.sent("error_event", action)
    assert error.message.payload.error.code == "late_report"
    stored = world.stored()[action]
    assert (stored.late_status, stored.late_ms) == ("succeeded", world.now_ms)


def test_a_board_cannot_end_the_action_of_another(world: World) -> None:
    action = action_id()
    world.ask(Ask(action))
    world.step(Board("b2").report(action, "succeeded", world.now_ms))
    assert not world.outcomes(action)
    (rejected,) = world.rejected
    assert (rejected.reason_code, rejected.source) == ("identity_mismatch", "device:b2")


def test_a_report_about_a_refused_or_unknown_action_changes_nothing(
    world: World, board: Board
) -> None:
    denied = action_id()
    world.ask(Ask(denied, identity="guest"))
    world.step(board.report(denied, "succeeded", world.now_ms))
    assert world.outcome(denied).payload.status == "rejected"
    world.step(board.report(action_id(), "succeeded", world.now_ms))
    assert world.reliable.counters["unknown_report"] == 1
    assert world.reliable.counters["foreign_report"] == 1


def test_a_device_without_a_grant_is_refused(world: World) -> None:
    world.step(Board("stranger").ping(world.now_ms))
    (rejected,) = world.rejected
    assert rejected.reason_code == "unknown_device"
    assert not world.sent("pong")


def test_a_repeat_is_answered_with_the_stage_and_then_with_the_same_outcome(
    world: World, board: Board
) -> None:
    action = action_id()
    world.ask(Ask(action))
    world.now_ms += 10
    world.ask(Ask(action))
    assert world.stages(action) == ["accepted", "dispatched", "dispatched"]
    assert len(world.sent("efferent_command", action)) == 1
    world.step(board.report(action, "succeeded", world.now_ms))
    world.now_ms += 10
    world.ask(Ask(action))
    first, second = world.outcomes(action)
    assert encode(first) == encode(second)
    assert len(world.sent("command", action)) == 1


def test_a_repeat_before_the_first_is_durable_gets_one_answer() -> None:
    world = World()
    ask = Ask(action_id())
    world.hold()
    world.ask(ask)
    world.ask(ask)
    assert world.release()[1] == []
    assert world.stages(ask.action) == ["accepted"]


@pytest.mark.parametrize(
    "change", [{"identity": "operator-2"}, {"actuator": "fan"}, {"scope": "hall"}]
)
def test_another_request_under_the_same_action_id_is_a_conflict(world: World, change: Any) -> None:
    action = action_id()
    world.ask(Ask(action))
    world.ask(Ask(action, **change))
    (error,) = world.sent("error_event", action)
    assert error.message.payload.error.code == "action_id_conflict"
    assert error.message.payload.error.category == "conflict"
    assert len(world.sent("efferent_command", action)) == 1
    assert [row["allowed"] for row in world.audit()[1:]] == [1, 0]


def test_beyond_the_limit_of_open_actions_a_request_is_refused_as_retriable() -> None:
    world = World(open_limit=2)
    actions = [action_id() for _ in range(3)]
    for action in actions:
        world.ask(Ask(action))
    (error,) = world.sent("error_event")
    detail = error.message.payload.error
    assert (detail.code, detail.kind) == ("overloaded", "retriable")
    assert actions[2] not in world.stored()
    world.tick(10_000)
    world.confirm(world.outcomes(actions[0]))
    world.ask(Ask(actions[2]))
    assert world.stages(actions[2]) == ["accepted"]


@pytest.mark.req("S4-82")
def test_nothing_is_published_of_an_action_before_it_is_durable(world: World) -> None:
    ask = Ask(action_id())
    world.hold()
    world.ask(ask)
    world.step(Board("b1", boot=2).status("online", world.now_ms))
    world.tick(60_000)
    assert not world.published
    accepting, *others = world.release()
    assert [type(each) for each in accepting[1:3]] == [InsertAction, UpdateAction]
    assert others == [[], []]
    assert world.stages(ask.action) == ["accepted", "dispatched"]
    world.tick()
    assert world.outcome(ask.action).payload.status == "expired"


def test_an_outcome_is_published_again_until_the_broker_has_it(world: World) -> None:
    action = action_id()
    world.ask(Ask(action, identity="guest"))
    world.tick(999)
    assert len(world.outcomes(action)) == 1
    world.tick(1)
    assert len(world.outcomes(action)) == 2
    world.confirm(world.outcomes(action)[:1])
    world.confirm(world.outcomes(action)[:1])
    world.tick(60_000)
    assert len(world.outcomes(action)) == 2
    assert world.stored()[action].published


@pytest.mark.req("S4-82")
def test_after_a_restart_unpublished_outcomes_go_out_and_open_actions_go_on(
    world: World, board: Board
) -> None:
    ended, told, open_ = action_id(), action_id(), action_id()
    for action in (ended, told, open_):
        world.ask(Ask(action))
    for action in (ended, told):
        world.step(board.report(action, "succeeded", world.now_ms))
    world.confirm(world.outcomes(told))
    before = encode(world.outcome(ended))
    world.published.clear()
    world.start()
    assert encode(world.outcome(ended)) == before
    assert not world.outcomes(told)
    world.step(board.status("online", world.now_ms))
    assert len(world.sent("efferent_command", open_)) == 1
    world.ask(Ask(told))
    assert world.outcome(told).payload.status == "succeeded"
    world.step(board.report(open_, "succeeded", world.now_ms))
    assert world.outcome(open_).payload.status == "succeeded"


def test_finished_actions_are_forgotten_by_age_and_number() -> None:
    world = World(kept_limit=2, kept_ms=60_000)
    actions = [action_id() for _ in range(3)]
    for action in actions:
        world.ask(Ask(action, identity="guest"))
        world.tick(1)
    world.tick(1)
    assert len(world.stored()) == 3
    for action in actions:
        world.confirm(world.outcomes(action))
    assert world.reliable.due_ms == 0
    world.tick(1)
    assert list(world.stored()) == actions[1:]
    world.tick(world.reliable.due_ms - world.now_ms)
    assert list(world.stored()) == actions[2:]
    world.tick(60_000)
    assert not world.stored()


def test_an_outcome_that_outlived_its_life_is_dropped_and_counted() -> None:
    world = World(kept_ms=2 * 86_400_000)
    ask = Ask(action_id(), identity="guest")
    world.ask(ask)
    world.tick(86_400_000)
    assert world.reliable.counters["outcome_outlived"] == 1
    assert world.stored()[ask.action].published
    world.published.clear()
    world.ask(ask)
    assert not world.published


def test_a_grant_that_goes_stops_sending_and_the_action_still_ends(world: World) -> None:
    action, later = action_id(), action_id()
    world.ask(Ask(action, deadline_ms=5_000))
    world.step(Grants({}))
    world.tick(4_000)
    assert len(world.sent("efferent_command", action)) == 1
    world.ask(Ask(later))
    assert world.outcome(later).errors[0].code == "device_unknown"
    world.tick(3_000)
    assert world.outcome(action).payload.status == "expired"


def test_a_critical_request_makes_critical_messages(world: World) -> None:
    action = action_id()
    world.ask(Ask(action, priority="critical"))
    assert world.sent("efferent_command", action)[0].message.meta.priority == "critical"
    assert world.sent("action_progress", action)[0].message.meta.priority == "critical"


def test_a_ping_is_answered_with_the_time_and_the_granted_scope(world: World, board: Board) -> None:
    world.now_ms += 77
    world.step(board.ping(world.now_ms, nonce=4_000_000_000))
    (pong,) = world.sent("pong")
    assert pong.message.payload.model_dump() == {
        "nonce": 4_000_000_000,
        "t0": 123,
        "unix_ms": NOW_MS + 77,
        "scope_level": "room",
        "scope": "kitchen",
    }


def test_removed_states_are_forgotten_and_a_reconnection_changes_nothing(world: World) -> None:
    for address in (
        topics.device_status("b1"),
        topics.device_info("b1"),
        topics.reflex_state("b1", "r"),
    ):
        assert world.step(Removed(address, "spinal")) == []
    assert world.step(Connected("spinal")) == []
    action = action_id()
    world.ask(Ask(action, actuator="horn"))
    assert world.stages(action) == ["accepted"]


def test_a_reflex_that_fired_is_counted_and_causes_nothing(world: World, board: Board) -> None:
    assert world.step(board.reflex_fire("night-light", world.now_ms)) == []
    assert world.reliable.counters["reflex_fire"] == 1


def test_a_birth_concerns_the_boards_own_actions_only(world: World) -> None:
    action = action_id()
    world.ask(Ask(action))
    world.step(Board("b2").status("online", world.now_ms))
    assert len(world.sent("efferent_command", action)) == 1


def test_the_table_refuses_a_second_outcome_and_an_action_it_does_not_have(world: World) -> None:
    action = action_id()
    world.ask(Ask(action, identity="guest"))
    stored = world.stored()[action]
    other = stored.outcome.model_copy(
        update={"payload": stored.outcome.payload.model_copy(update={"status": "succeeded"})}
    )
    with pytest.raises(schema.LostActionError, match="ended otherwise"):
        schema.write(world.database, [UpdateAction(replace(stored, outcome=other))])
    with pytest.raises(schema.LostActionError, match="not stored"):
        schema.write(world.database, [UpdateAction(replace(stored, action_id="X"))])
    with pytest.raises(sqlite3.IntegrityError):
        schema.write(world.database, [InsertAction(stored)])
