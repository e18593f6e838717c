"""Whatever boards say, in whatever order, wherever the service dies: who gets what, and when."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from firmware.update_pack import SIGNER
from hub.update_voice import Voice
from hub.update_world import World
from nervus.updates import OPEN, Pack, Withdrawn
from nervus.wire import Publish

PACKS = [
    Pack.signed(version, {"app.py": bytes(200)}, SIGNER, chunk_size=64)
    for version in ("0.2.0", "0.3.0")
]
NAMES = ("b1", "b2", "b3")
STEP_MS = 500
FETCHES = ("waiting", "offered", "pulling")

names = st.sampled_from(NAMES)
versions = st.sampled_from([pack.version for pack in PACKS])
reports = st.sampled_from(
    [
        ("offer", "succeeded", ""),
        ("offer", "refused", "not_newer"),
        ("offer", "refused", "on_trial"),
        ("offer", "refused", "taken_back"),
        ("offer", "refused", "bad_signature"),
        ("download", "running", ""),
        ("download", "failed", "no_chunk"),
        ("install", "succeeded", ""),
        ("probation", "running", ""),
        ("probation", "succeeded", ""),
        ("rollback", "succeeded", "taken_back"),
    ]
)


class Watched(World):
    """A world that looks at every message of the hub."""

    def apply(self, effects: Any) -> None:
        before = len(self.published)
        super().apply(effects)
        for _, publish in self.published[before:]:
            self.allowed(publish)

    def allowed(self, publish: Publish) -> None:
        """An offer goes to canaries, or behind canaries that confirmed; a chunk to who fetches."""
        name = publish.address.levels["device_id"]
        version = publish.message.payload.version  # type: ignore[attr-defined]
        stored = self.stored()
        rollouts = {row.update_id: row for row in stored.rollouts}
        (mine,) = (
            row
            for row in stored.boards
            if (row.device_id, rollouts[row.update_id].version) == (name, version)
            and row.state in OPEN
        )
        rollout = rollouts[mine.update_id]
        if publish.address.spec.name == "chunk":
            assert (mine.state, rollout.stopped) == ("pulling", "")
        elif mine.state != "trial":
            assert rollout.stopped == ""
            canaries = {
                row.state
                for row in stored.boards
                if row.update_id == rollout.update_id and row.position < rollout.canary
            }
            # One that confirmed may say that it is on trial once more.
            assert mine.position < rollout.canary or canaries <= {"confirmed", "trial"}


class Updates(RuleBasedStateMachine):
    """Orders, three boards that say anything, and a service that dies at any commit."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.world = Watched(Path(), self.patch, at_once=2)
        self.time_passes(2_000)
        self.voices = {name: Voice(name) for name in NAMES}
        self.orders: list[str] = []

    @rule(
        pack=st.sampled_from(PACKS),
        devices=st.permutations(NAMES),
        count=st.integers(1, 3),
        canary=st.integers(0, 2),
    )
    def order(self, pack: Pack, devices: list[str], count: int, canary: int) -> None:
        self.orders.append(self.world.order(pack, *devices[:count], canary=min(canary, count)))

    @rule(number=st.integers(0, 9))
    def withdraw(self, number: int) -> None:
        if self.orders:
            self.world.step(Withdrawn(self.orders[number % len(self.orders)]))

    @rule(name=names, said=reports, version=versions)
    def report(self, name: str, said: tuple[str, str, str], version: str) -> None:
        passes = said[2] in ("no_chunk", "on_trial")
        event = self.voices[name].report(*said, version=version, passes=passes)
        self.world.step(event)

    @rule(name=names, version=versions, offset=st.sampled_from([0, 64, 192, 256]))
    def ask(self, name: str, version: str, offset: int) -> None:
        self.world.step(self.voices[name].ask(version=version, offset=offset))

    @rule(name=names, runs=st.sampled_from(["0.1.0", "0.2.0", "0.3.0"]))
    def born(self, name: str, runs: str) -> None:
        self.voices[name] = Voice(name, self.voices[name].mint._boot + 1)
        self.world.step(self.voices[name].status())
        self.world.step(self.voices[name].info(runs))

    @rule(name=names)
    def dies(self, name: str) -> None:
        self.world.step(self.voices[name].status("offline"))

    @rule(ms=st.sampled_from([2_000, 16_000, 60_000, 302_000]))
    def time_passes(self, ms: int) -> None:
        for _ in range(ms // STEP_MS):
            self.world.now_ms += STEP_MS
            idle = self.world.core.due_ms > self.world.now_ms
            effects = list(self.world.core.tick(self.world.now_ms))
            assert not (idle and effects)
            self.world.apply(effects)

    @rule(mode=st.sampled_from(["before", "after"]))
    def dies_at_its_next_commit(self, mode: str) -> None:
        modes = iter([mode])
        self.world.crash = lambda: next(modes, "live")

    @invariant()
    def a_board_has_one_open_update(self) -> None:
        taken = [row.device_id for row in self.world.stored().boards if row.state in OPEN]
        assert len(taken) == len(set(taken))

    @invariant()
    def nobody_fetches_in_a_roll_out_that_stopped(self) -> None:
        stored = self.world.stored()
        stopped = {row.update_id for row in stored.rollouts if row.stopped}
        assert not [r for r in stored.boards if r.update_id in stopped and r.state in FETCHES]

    @invariant()
    def memory_and_table_agree(self) -> None:
        stored = {(r.update_id, r.device_id): r.state for r in self.world.stored().boards}
        kept = self.world.core._boards.values()
        assert stored == {(r.update_id, r.device_id): r.state for each in kept for r in each}
        assert set(self.world.core._timings.boards()) == {
            name for (_, name), state in stored.items() if state in ("offered", "pulling", "trial")
        }

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()


Updates.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class TestUpdates(Updates.TestCase):  # type: ignore[misc,name-defined]
    """As a test case."""
