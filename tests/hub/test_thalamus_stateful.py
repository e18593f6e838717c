"""Whatever happens in whatever order: the invariants of S2, step by step, on both cores."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hub.plane_inputs import (
    NOW_MS,
    bundle,
    bundle_payload,
    feature,
    gate,
    gate_address,
    mode,
    proposal,
)
from hub.test_thalamus_gatekeeper import Keeper, LeaseTable
from nervus.thalamus import Relay, ThalamusSettings
from nervus.wire import Connected, Mint, Rejected, Removed, topics, unix_ms
from nervus.wire.contracts import RelayBundle, RouteDecision

pytestmark = pytest.mark.usefixtures("unmeasured")

ROOMS = st.sampled_from(["kitchen", "attic"])
SCOPES = st.sampled_from([("room", "kitchen"), ("house", "home")])
CHANNELS = st.sampled_from(["somatic", "auditory"])
PRIORITIES = st.sampled_from(["background", "normal", "critical", "control"])
MODES = st.sampled_from(["multi", "multi", "winner_take_all", "passthrough"])
INHIBITIONS = st.sampled_from([0, 0.2, 0.5, 0.9, 1])
LIVES = st.integers(200, 8_000)
LONG_MS = 60_000


class RelayMachine(RuleBasedStateMachine):
    """Drivers, gates and time against the relay; a model of the gates beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW_MS
        self.core = Relay(ThalamusSettings(), Mint("relay", "thalamus", seed=1, boot=1), "home")
        self.gates: dict[Any, tuple[float, str, int]] = {}
        self.epochs: dict[Any, int] = {}
        self.sent: dict[str, int] = {}
        self.decided: dict[str, Any] = {}
        self.relayed = 0
        self.shut: set[str] = set()

    @rule(room=ROOMS, channel=CHANNELS, priority=PRIORITIES, count=st.integers(1, 5))
    def drive(self, room: str, channel: str, priority: str, count: int) -> None:
        payload = bundle_payload(feature(count), channel=channel, salience=count / 5)
        driver = bundle(
            payload, self.now_ms, scope=("room", room), ttl_ms=LONG_MS, priority=priority
        )
        message_id = driver.message.meta.message_id
        self.sent[message_id] = count
        living = self.living(room, channel)
        urgent = priority in ("critical", "control")
        if not urgent and any(i >= 1 and m != "passthrough" for i, m in living):
            self.shut.add(message_id)
        effects = self.take(self.core.step(driver, self.now_ms))
        if urgent:
            # S2-71: critical passes, whatever the gates say, and at once
            assert [e for e in effects if e.message.meta.parent_id == message_id]
            assert self.decided[message_id].reason_codes == ["critical_bypass"]

    @rule(
        scope=SCOPES,
        channel=CHANNELS,
        inhibition=INHIBITIONS,
        how=MODES,
        lives_ms=LIVES,
        epoch=st.integers(1, 3),
    )
    def decide(
        self, scope: Any, channel: str, inhibition: float, how: str, lives_ms: int, epoch: int
    ) -> None:
        address = gate_address(target=channel, scope=scope)
        event = gate(
            inhibition, self.now_ms, address=address, lives_ms=lives_ms, mode=how, epoch=epoch
        )
        effects = self.core.step(event, self.now_ms)
        refused = [e for e in effects if isinstance(e, Rejected)]
        self.take([e for e in effects if not isinstance(e, Rejected)])
        assert bool(refused) == (epoch < self.epochs.get(scope, 0))
        if refused:
            return
        if epoch > self.epochs.get(scope, 0):
            self.gates = {key: one for key, one in self.gates.items() if key[0] != scope}
        self.epochs[scope] = epoch
        self.gates[scope, channel] = (inhibition, how, self.now_ms + lives_ms)

    @rule(scope=SCOPES, channel=CHANNELS)
    def remove(self, scope: Any, channel: str) -> None:
        self.gates.pop((scope, channel), None)
        event = Removed(gate_address(target=channel, scope=scope), "core")
        self.take(self.core.step(event, self.now_ms))

    @rule()
    def reconnect(self) -> None:
        self.take(self.core.step(Connected("core"), self.now_ms))

    @rule(wait_ms=st.sampled_from([1, 50, 300, 1_000, 3_000]))
    def wait(self, wait_ms: int) -> None:
        self.now_ms += wait_ms
        self.take(self.core.tick(self.now_ms))

    @invariant()
    def never_more_comes_out_than_went_in(self) -> None:
        assert self.relayed <= sum(self.sent.values())
        assert set(self.decided) <= set(self.sent)

    def teardown(self) -> None:
        """S2-72: once every gate has expired, what waits goes out and nothing is stuck."""
        # The second one for what won a contest that ended with the first, and waits to be merged.
        for wait_ms in (10_000, ThalamusSettings().aggregate_ms):
            self.wait(wait_ms)
        assert len(self.core._gates) == 0
        assert set(self.decided) == set(self.sent)
        allowed = sum(self.sent[key] for key, one in self.decided.items() if one.allowed)
        assert self.relayed == allowed
        last = bundle(bundle_payload(feature(1)), self.now_ms)
        effects = [*self.core.step(last, self.now_ms), *self.core.tick(self.now_ms + 1_000)]
        assert self.take(effects)

    def living(self, room: str, channel: str) -> list[tuple[float, str]]:
        """The gates a driver meets, by the model."""
        keys = ((("room", room), channel), (("house", "home"), channel))
        met = [self.gates[key] for key in keys if key in self.gates]
        return [(inhibition, how) for inhibition, how, end in met if end > self.now_ms]

    def take(self, effects: Any) -> list[Any]:
        """Look at what the core does; returns what it relays."""
        relayed = []
        for effect in effects:
            message = effect.message
            if isinstance(message, RouteDecision):
                decision = message.payload
                key = decision.input_ref.message_id
                assert key not in self.decided  # one decision for each driver
                assert bool(decision.routed_to) == decision.allowed
                assert (key in self.shut) == ("inhibited" in decision.reason_codes)
                if key in self.shut:
                    assert (decision.decision, decision.allowed) == ("drop", False)
                if key in self.sent:
                    self.decided[key] = decision
                continue
            assert isinstance(message, RelayBundle)
            assert effect.address.spec is topics.GATED_RELAY
            assert effect.expiry_ms > 0
            assert message.meta.parent_id not in self.shut
            self.relayed += sum(f.count for f in message.payload.summary_features)
            relayed.append(effect)
        return relayed


class GatekeeperMachine(RuleBasedStateMachine):
    """Proposals, modes, deaths and time against two gatekeepers and their leases."""

    @initialize()
    def start(self) -> None:
        self.now_ms = NOW_MS
        self.table = LeaseTable()
        self.starts = 0
        self.ends: dict[Any, int] = {}
        self.epochs: dict[str, int] = {}
        self.keepers: list[Keeper | None] = [self.new(0), self.new(1)]

    def new(self, number: int) -> Keeper:
        self.starts += 1
        name = "gatekeeper" if number == 0 else "gatekeeper-1"
        return Keeper(self.table, name=name, seed=self.starts, lease_ms=2_000, gate_ms=2_000)

    @rule(
        intent=st.sampled_from(["boost", "suppress", "set_inhibition"]), amount=st.floats(0, 1),
        room=ROOMS, ttl_ms=LIVES, source=st.sampled_from("ab"),
    )  # fmt: skip
    def propose(self, intent: str, amount: float, room: str, ttl_ms: int, source: str) -> None:
        scope = ("room", room)
        self.ends[scope] = max(self.ends.get(scope, 0), self.now_ms + ttl_ms)
        event = proposal(intent, amount, self.now_ms, scope=scope, ttl_ms=ttl_ms, source=source)
        self.each(lambda keeper: keeper.step(event, self.now_ms))

    @rule(name=st.sampled_from(["home", "night", "holiday"]), lives_ms=LIVES, room=ROOMS)
    def set_mode(self, name: str, lives_ms: int, room: str) -> None:
        scope = ("room", room)
        self.ends[scope] = max(self.ends.get(scope, 0), self.now_ms + lives_ms)
        event = mode(name, self.now_ms, scope=scope, lives_ms=lives_ms)
        self.each(lambda keeper: keeper.step(event, self.now_ms))

    @rule(wait_ms=st.sampled_from([50, 400, 2_500]))
    def wait(self, wait_ms: int) -> None:
        for _ in range(0, wait_ms, 50):
            self.now_ms += 50
            self.each(lambda keeper: keeper.tick(self.now_ms))

    @rule(number=st.integers(0, 1))
    def die_or_start(self, number: int) -> None:
        self.keepers[number] = None if self.keepers[number] else self.new(number)

    @rule()
    def reconnect(self) -> None:
        self.each(lambda keeper: keeper.step(Connected("core"), self.now_ms))

    @invariant()
    def nobody_shares_a_scope(self) -> None:
        for scope in (("room", "kitchen"), ("room", "attic"), ("house", "home")):
            holders = [k for k in self.keepers if k and k.core.epoch(scope, self.now_ms)]
            assert len(holders) <= 1

    def each(self, act: Any) -> None:
        for keeper in self.keepers:
            for publish in act(keeper) if keeper else ():
                self.look(publish)

    def look(self, publish: Any) -> None:
        levels, message = publish.address.levels, publish.message
        assert publish.address.spec is topics.GATE_STATE
        assert 0 <= message.payload.inhibition <= 1
        assert message.payload.set_by == message.meta.source
        # what was published before carried no higher epoch
        assert self.epochs.get(levels["scope"], 0) <= message.payload.epoch
        self.epochs[levels["scope"]] = message.payload.epoch
        until_ms = unix_ms(message.meta.expires_at)
        assert self.now_ms < until_ms <= self.now_ms + 2_000
        if levels["scope"] != "home":
            assert until_ms <= self.ends[levels["scope_level"], levels["scope"]]


RelayMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
GatekeeperMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20)


@pytest.mark.req("S2-3", "S2-71", "S2-72", "S2-87", "S2-88")
class TestRelay(RelayMachine.TestCase):  # type: ignore[name-defined,misc]
    """Pass what may, and only that; lose nothing unsaid; never get stuck."""


def test_what_wins_together_goes_out_one_after_the_other() -> None:
    machine = RelayMachine()
    machine.decide(("room", "kitchen"), "somatic", 0.9, "winner_take_all", 200, 1)
    for _ in range(2):
        machine.drive("kitchen", "somatic", "background", 1)
    machine.teardown()  # which asks for both
    assert len(machine.decided) == 2


@pytest.mark.req("S2-10", "S2-20", "S2-52", "S2-72", "S2-86")
class TestGatekeeper(GatekeeperMachine.TestCase):  # type: ignore[name-defined,misc]
    """One gatekeeper for each scope; no gate outlives its reasons."""
