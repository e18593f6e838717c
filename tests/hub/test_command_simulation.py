"""Every interleaving hypothesis can think of: exactly one outcome for each accepted action.

Both cores run over their real tables. A step may die before its commit or between its commit and
its messages; the next start has only what is stored.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from hub.command_inputs import GRANTS, Ask, Board, World, action_id
from nervus.policy.audit import verify_chain
from nervus.reliable import Grants
from nervus.wire import encode

GRACE_MS = 5_000

slots = st.integers(0, 5)
modes = st.sampled_from(["live"] * 6 + ["before", "after"])
devices = st.sampled_from(["b1", "b2"])
statuses = st.sampled_from(["acknowledged", "succeeded", "failed", "rejected", "expired"])


class Commands(RuleBasedStateMachine):
    """Callers, two boards, a broker that confirms when it likes, and a service that dies."""

    @initialize()
    def begin(self) -> None:
        self.world = World(open_limit=4)
        self.boots = {"b1": 1, "b2": 1}
        self.boards = {name: Board(name) for name in self.boots}
        self.asks: dict[int, Ask] = {}

    @rule(
        slot=slots,
        device=devices,
        offline=st.sampled_from(["wait", "refuse", None]),
        deadline_ms=st.sampled_from([0, 900, 4_000, 20_000]),
        identity=st.sampled_from(["operator", "operator", "guest"]),
        mode=modes,
    )
    def request(
        self, slot: int, device: str, offline: Any, deadline_ms: int, identity: str, mode: str
    ) -> None:
        self.asks[slot] = Ask(
            action_id(self.world.now_ms),
            device=device,
            offline=offline,
            deadline_ms=deadline_ms,
            identity=identity,
        )
        self.world.ask(self.asks[slot], mode)

    @precondition(lambda self: self.asks)
    @rule(slot=slots, mode=modes)
    def repeat(self, slot: int, mode: str) -> None:
        if slot in self.asks:
            self.world.ask(self.asks[slot], mode)

    @precondition(lambda self: self.asks)
    @rule(slot=slots)
    def conflict(self, slot: int) -> None:
        if slot in self.asks and self.asks[slot].action in self.world.stored():
            ask = self.asks[slot]
            before = len(self.world.sent("efferent_command"))
            self.world.ask(Ask(ask.action, actuator="fan", identity="operator-2"))
            assert len(self.world.sent("efferent_command")) == before

    @rule(slot=slots, status=statuses, device=devices, mode=modes)
    def report(self, slot: int, status: Any, device: str, mode: str) -> None:
        if slot in self.asks:
            event = self.boards[device].report(self.asks[slot].action, status, self.world.now_ms)
            self.world.step(event, mode)

    @rule(device=devices, mode=modes)
    def born(self, device: str, mode: str) -> None:
        self.boots[device] += 1
        self.boards[device] = Board(device, self.boots[device])
        self.world.step(self.boards[device].status("online", self.world.now_ms), mode)

    @rule(device=devices)
    def dies(self, device: str) -> None:
        self.world.step(self.boards[device].status("offline", self.world.now_ms))

    @rule(device=devices)
    def pings(self, device: str) -> None:
        self.world.step(self.boards[device].ping(self.world.now_ms))

    @rule()
    def broker_confirms(self) -> None:
        outcomes = [each.message for each in self.world.sent("outcome")]
        self.world.confirm(outcomes)  # type: ignore[arg-type]

    @rule(ms=st.sampled_from([1, 50, 999, 2_500, 10_000]), mode=modes)
    def time_passes(self, ms: int, mode: str) -> None:
        self.world.tick(ms, mode)

    @rule()
    def restart(self) -> None:
        self.world.start()

    @rule()
    def grants_come_and_go(self) -> None:
        self.world.step(Grants({"b1": GRANTS["b1"]}))
        self.world.step(Grants(GRANTS))

    @invariant()
    def before_it_is_due_a_tick_does_nothing(self) -> None:
        if self.world.reliable.due_ms > self.world.now_ms:
            assert self.world.reliable.tick(self.world.now_ms) == []

    @invariant()
    def one_outcome_for_each_action(self) -> None:
        seen: dict[str, bytes] = {}
        for publish in self.world.sent("outcome"):
            action, data = publish.address.levels["action_id"], encode(publish.message)
            assert seen.setdefault(action, data) == data
        for action_id_, action in self.world.stored().items():
            if action.outcome is not None:
                assert seen.get(action_id_, encode(action.outcome)) == encode(action.outcome)

    @invariant()
    def nothing_is_sent_after_the_outcome_nor_to_the_wrong_board(self) -> None:
        ended: set[str] = set()
        for _, publish in self.world.published:
            action = publish.address.levels.get("action_id", "")
            if publish.address.spec.name == "outcome":
                ended.add(action)
            elif publish.address.spec.name == "efferent_command":
                assert action not in ended
                assert publish.expiry_ms is not None
                assert publish.expiry_ms > 0

    @invariant()
    def what_was_answered_is_stored(self) -> None:
        for name in ("action_progress", "outcome", "efferent_command"):
            for publish in self.world.sent(name):
                action = publish.address.levels["action_id"]
                assert action in self.world.stored()

    @invariant()
    def memory_and_table_agree(self) -> None:
        stored = self.world.stored()
        assert self.world.reliable._actions == stored

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        latest = max([each.deadline_at_ms for each in self.world.stored().values()], default=0)
        self.world.now_ms = max(self.world.now_ms, latest + GRACE_MS)
        self.world.tick()
        assert not [each for each in self.world.stored().values() if each.open]
        self.one_outcome_for_each_action()
        verify_chain(self.world.database)


Commands.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.req("S0-6", "S2-76", "S4-82")
class TestCommands(Commands.TestCase):  # type: ignore[misc,name-defined]
    """As a test case."""


@pytest.mark.req("S4-82")
@pytest.mark.parametrize("crash", ["before", "after"])
@pytest.mark.parametrize("number", range(6))
def test_a_crash_at_any_commit_loses_nothing_that_was_accepted(crash: str, number: int) -> None:
    """One command from request to confirmation; the service dies at its commit `number`."""
    world = World()
    board, ask, commits = Board("b1"), Ask(action_id()), iter(range(100))

    def mode() -> str:
        return crash if next(commits) == number else "live"

    for _ in range(3):
        world.ask(ask, mode())
        world.step(board.status("online", world.now_ms), mode())
        for publish in world.sent("efferent_command", ask.action)[-1:]:
            assert publish.message.meta.action_id == ask.action
            world.step(board.report(ask.action, "acknowledged", world.now_ms), mode())
            world.step(board.report(ask.action, "succeeded", world.now_ms), mode())
        board = Board("b1", boot=board.mint._boot + 1)
        world.tick(1_000, mode())
    assert world.outcome(ask.action).payload.status == "succeeded"
    world.confirm(world.outcomes(ask.action))
    assert world.stored()[ask.action].published
    assert [row["allowed"] for row in world.audit() if row["kind"] == "invocation"] == [1]
