"""The gatekeeper role: from proposals and modes to authoritative gates."""

import sqlite3
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.plane_inputs import NOW_MS, afferent, gate_address, judged, mode, proposal
from nervus.thalamus import Claim, Gatekeeper, GatesSettings, Lease, Leases, ThalamusSettings
from nervus.thalamus.lease_store import SCHEMA, claim
from nervus.wire import Connected, Mint, Publish, Rejected, Removed, topics, unix_ms
from nervus.wire.contracts import GateState

KITCHEN = ("room", "kitchen")
SOMATIC = ("room", "kitchen", "channel", "somatic")
VPL = ("house", "home", "nucleus", "VPL")
EVERYTHING = ("house", "home", "topic_prefix", "/bs/relay")


class LeaseTable:
    """The real lease statements on a database in memory."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(SCHEMA)

    def answer(self, wanted: Claim) -> Leases:
        return claim(self.connection, wanted)


class Keeper:
    """A gatekeeper core whose claims are answered at once; remembers what it published."""

    def __init__(
        self,
        table: LeaseTable | None = None,
        *,
        name: str = "gatekeeper",
        seed: int = 1,
        **gates: Any,
    ) -> None:
        self.table = table or LeaseTable()
        settings = GatesSettings(**gates)
        self.core = Gatekeeper(settings, Mint(name, "thalamus", seed=seed, boot=1), "home")
        self.published: list[Publish] = []
        self.rejected: list[Rejected] = []
        self.claims: list[Claim] = []

    def step(self, event: Any, now_ms: int = NOW_MS) -> list[Publish]:
        return self._apply(self.core.step(event, now_ms), now_ms)

    def tick(self, now_ms: int) -> list[Publish]:
        return self._apply(self.core.tick(now_ms), now_ms)

    def run(self, start_ms: int, end_ms: int) -> list[Publish]:
        """Tick every 50 ms."""
        return [each for now_ms in range(start_ms, end_ms, 50) for each in self.tick(now_ms)]

    def gates(self) -> dict[tuple[str, ...], Any]:
        """The newest gate of each selector."""
        return {tuple(p.address.levels.values()): p.message for p in self.published}

    def inhibition(self, selector: tuple[str, ...] = SOMATIC) -> float:
        return float(self.gates()[selector].payload.inhibition)

    def _apply(self, effects: Iterable[Any], now_ms: int) -> list[Publish]:
        made: list[Publish] = []
        for effect in effects:
            match effect:
                case Claim():
                    self.claims.append(effect)
                    made += self.step(self.table.answer(effect), now_ms)
                case Rejected():
                    self.rejected.append(effect)
                case _:
                    made.append(effect)
                    self.published.append(effect)
        return made


@pytest.mark.req("S2-9", "S2-20", "S2-21", "S2-48", "S2-49", "S2-50", "S2-51", "S2-52", "S2-53")
def test_a_gate_stands_before_the_house_and_is_renewed_before_it_expires() -> None:
    keeper = Keeper(gate_ms=2_000, lease_ms=60_000)
    (publish,) = keeper.tick(NOW_MS)
    assert tuple(publish.address.levels.values()) == EVERYTHING
    assert publish.address.spec is topics.GATE_STATE
    payload = publish.message.payload
    assert (payload.inhibition, payload.mode, payload.set_by) == (0, "multi", "gatekeeper")
    assert payload.policy_id == "additive"
    assert (publish.qos, publish.message.meta.priority) == (1, "control")
    assert publish.expiry_ms == 2_000
    assert judged(publish, NOW_MS).left_ms == 2_000
    renewed = keeper.run(NOW_MS, NOW_MS + 10_000)
    assert len(renewed) == 9
    ends = [unix_ms(p.message.meta.expires_at) for p in (publish, *renewed)]
    assert all(ends[n] - 2_000 + 1_000 <= ends[n + 1] - 2_000 < ends[n] for n in range(9))


@pytest.mark.req("S2-8", "S2-19", "S2-20", "S2-42", "S2-43", "S2-44", "S2-45", "S2-69")
def test_proposals_are_summed_and_clamped() -> None:
    keeper = Keeper(publish_ms=50)
    keeper.step(proposal("suppress", 0.5, source="a"))
    assert keeper.inhibition() == 0.5
    keeper.step(proposal("boost", 0.2, source="b"), NOW_MS + 50)
    keeper.run(NOW_MS + 50, NOW_MS + 151)
    assert keeper.inhibition() == pytest.approx(0.3, abs=0.02)
    keeper.step(proposal("suppress", 0.9, source="c"), NOW_MS + 200)
    assert keeper.inhibition() == 1
    keeper.step(proposal("boost", 1, source="d"), NOW_MS + 250)
    keeper.step(proposal("boost", 1, source="e"), NOW_MS + 250)
    keeper.run(NOW_MS + 250, NOW_MS + 400)
    assert keeper.inhibition() == 0


@pytest.mark.req("S2-46", "S2-42")
def test_a_strength_fades_to_nothing_at_its_expiry_and_the_gate_with_it() -> None:
    keeper = Keeper()
    keeper.step(proposal("suppress", 0.8, ttl_ms=4_000))
    gates = keeper.run(NOW_MS, NOW_MS + 4_001)
    told = [p.message.payload.inhibition for p in gates if p.address == gates[0].address]
    assert told == sorted(told, reverse=True)
    assert len(told) > 10
    assert all(unix_ms(p.message.meta.expires_at) <= NOW_MS + 4_000 for p in gates[:-1])
    # linear: half of it at half time
    half = [p for p in gates if unix_ms(p.message.meta.produced_at) == NOW_MS + 2_000]
    assert half[0].message.payload.inhibition == pytest.approx(0.4, abs=0.02)
    assert keeper.run(NOW_MS + 4_001, NOW_MS + 4_900) == []
    assert len(keeper.core) == 1  # the house's own


@pytest.mark.req("S2-44", "S2-45")
def test_the_newest_set_inhibition_overrides_until_it_expires() -> None:
    keeper = Keeper(publish_ms=50)
    keeper.step(proposal("suppress", 0.4, ttl_ms=60_000))
    keeper.step(proposal("set_inhibition", 1, ttl_ms=2_000), NOW_MS + 100)
    assert keeper.inhibition() == 1
    keeper.step(proposal("set_inhibition", 0.1, ttl_ms=1_000, source="b"), NOW_MS + 200)
    assert keeper.inhibition() == 0.1
    keeper.run(NOW_MS + 200, NOW_MS + 1_201)
    # the older one stays overridden: what counts is the sum again
    keeper.run(NOW_MS + 1_201, NOW_MS + 1_400)
    assert keeper.inhibition() == pytest.approx(0.4, abs=0.02)


def test_repeating_a_proposal_replaces_it() -> None:
    keeper = Keeper()
    for n in range(5):
        keeper.step(proposal("suppress", 0.3), NOW_MS + n)
    keeper.run(NOW_MS, NOW_MS + 300)
    assert keeper.inhibition() == pytest.approx(0.3, abs=0.02)


@pytest.mark.req("S2-44", "S2-45", "S2-37")
@pytest.mark.parametrize(
    ("intent", "field", "reason"),
    [
        ("set_inhibition", "strength", "set_inhibition comes with inhibition"),
        ("boost", "inhibition", "boost comes with strength"),
        ("suppress", "inhibition", "suppress comes with strength"),
    ],
)
def test_an_intent_with_the_wrong_number_is_refused(intent: str, field: str, reason: str) -> None:
    keeper = Keeper()
    assert not [
        p for p in keeper.step(proposal(intent, 1, field=field)) if "kitchen" in p.address.topic
    ]
    (rejected,) = keeper.rejected
    assert (rejected.reason_code, rejected.stage) == ("schema_invalid", "apply")
    assert rejected.reason == reason


@pytest.mark.req("S2-31")
def test_a_mode_is_a_modulator_by_data_and_ends_with_the_mode() -> None:
    keeper = Keeper()
    keeper.step(mode("night"))
    assert keeper.inhibition(VPL) == 0.4
    assert keeper.inhibition(("house", "home", "nucleus", "MGN")) == 0
    keeper.run(NOW_MS, NOW_MS + 30_000)
    assert keeper.inhibition(VPL) == 0.4  # a mode does not fade
    keeper.step(mode("home", NOW_MS + 30_000), NOW_MS + 30_000)
    assert keeper.inhibition(VPL) == 0
    assert len(keeper.core) == 1
    keeper.step(mode("holiday", NOW_MS + 31_000), NOW_MS + 31_000)
    assert keeper.inhibition(VPL) == 0.6
    keeper.step(Removed(topics.mode("house", "home"), "core"), NOW_MS + 32_000)
    assert keeper.inhibition(VPL) == 0


def test_a_mode_expires() -> None:
    keeper = Keeper()
    keeper.step(mode("night", lives_ms=3_000))
    gates = keeper.run(NOW_MS, NOW_MS + 3_500)
    assert all(
        unix_ms(p.message.meta.expires_at) <= NOW_MS + 3_000
        for p in gates
        if "VPL" in p.address.topic
    )
    assert len(keeper.core) == 1


def test_modes_are_settings_too_and_may_let_the_winner_take_all() -> None:
    rule = {
        "target_kind": "topic_prefix", "target_id": "/bs/relay", "intent": "set_inhibition",
        "inhibition": 0.5, "gate_mode": "winner_take_all",
    }  # fmt: skip
    keeper = Keeper(modes={"night": [rule]}, publish_ms=50)
    keeper.step(mode("night", scope=KITCHEN))
    selector = (*KITCHEN, "topic_prefix", "/bs/relay")
    assert keeper.gates()[selector].payload.mode == "winner_take_all"
    assert keeper.inhibition(selector) == 0.5
    target = ("topic_prefix", "/bs/relay")
    keeper.step(proposal("boost", 0.2, NOW_MS + 100, target=target), NOW_MS + 100)
    assert keeper.inhibition(selector) == 0.3
    keeper.step(proposal("set_inhibition", 0.9, target=target), NOW_MS + 200)
    assert keeper.inhibition(selector) == 0.9
    assert keeper.gates()[selector].payload.mode == "winner_take_all"


def test_a_gate_that_nothing_speaks_for_opens_within_the_bounds_of_its_rate() -> None:
    keeper = Keeper(publish_ms=500)
    keeper.step(mode("night"))
    keeper.step(mode("home", NOW_MS + 100), NOW_MS + 100)
    keeper.run(NOW_MS + 100, NOW_MS + 500)
    assert keeper.inhibition(VPL) == 0.4
    keeper.run(NOW_MS + 500, NOW_MS + 600)
    assert keeper.inhibition(VPL) == 0


def test_standing_gates_have_their_base_and_mode() -> None:
    standing = {
        "scope": "room/hall", "target_kind": "channel", "target_id": "auditory", "base": 0.4,
        "mode": "winner_take_all",
    }  # fmt: skip
    keeper = Keeper(standing=[standing], base=0.1)
    keeper.tick(NOW_MS)
    hall = ("room", "hall", "channel", "auditory")
    assert (keeper.inhibition(hall), keeper.inhibition(EVERYTHING)) == (0.4, 0.1)
    assert keeper.gates()[hall].payload.mode == "winner_take_all"
    now_ms = NOW_MS + 1_000
    keeper.step(
        proposal("suppress", 0.2, now_ms, scope=("room", "hall"), target=("channel", "auditory")),
        now_ms,
    )
    assert keeper.inhibition(hall) == pytest.approx(0.6)


def test_gates_of_one_selector_are_published_at_a_bounded_rate() -> None:
    keeper = Keeper(publish_ms=200)
    made = []
    for n in range(500):
        made += keeper.step(proposal("set_inhibition", n % 100 / 100), NOW_MS + n * 4)
    assert len([p for p in made if "kitchen" in p.address.topic]) == 10
    keeper.run(NOW_MS + 2_000, NOW_MS + 2_300)
    assert keeper.inhibition() == 0.99


def test_gates_of_all_selectors_are_published_at_a_bounded_rate() -> None:
    keeper = Keeper(publish_rate=10)
    keeper.tick(NOW_MS)
    made = []
    for n in range(50):
        made += keeper.step(proposal("set_inhibition", 1, scope=("room", f"r{n}")), NOW_MS + 1)
    assert len(made) == 9
    assert keeper.core.counters.postponed > 0
    made += keeper.run(NOW_MS + 1, NOW_MS + 5_000)
    assert len({p.address.topic for p in made}) == 50


def test_selectors_and_proposals_are_bounded() -> None:
    keeper = Keeper(selector_limit=2, source_limit=2)
    for source in "abc":
        keeper.step(proposal("suppress", 0.1, source=source))
    keeper.step(proposal("suppress", 0.2, source="a"))
    keeper.step(proposal("suppress", 0.1, scope=("room", "attic")))
    keeper.step(mode("night"))
    assert [r.reason_code for r in keeper.rejected] == ["queue_full"] * 3
    assert keeper.core.counters.refused == 3
    keeper.step(proposal("set_inhibition", 0.5))
    assert len(keeper.rejected) == 3


@pytest.mark.req("S2-21")
def test_a_broker_that_lost_its_states_gets_every_gate_again() -> None:
    keeper = Keeper()
    keeper.step(proposal("set_inhibition", 1))
    again = keeper.step(Connected("core"), NOW_MS + 10)
    assert {p.address.topic for p in again} == {
        gate_address().topic,
        gate_address("topic_prefix", "/bs/relay", ("house", "home")).topic,
    }


@pytest.mark.req("S2-9", "S2-72")
def test_a_standby_takes_over_after_the_lease_with_a_higher_epoch() -> None:
    table = LeaseTable()
    first, second = (
        Keeper(table, lease_ms=3_000),
        Keeper(table, name="gatekeeper-1", lease_ms=3_000),
    )
    for keeper in (first, second):
        keeper.step(proposal("set_inhibition", 1, ttl_ms=60_000))
    assert second.published == []
    for now_ms in range(NOW_MS, NOW_MS + 5_000, 50):
        first.tick(now_ms)
        second.tick(now_ms)
    assert second.published == []  # as long as the first renews its lease
    epoch = first.gates()[SOMATIC].payload.epoch
    second.run(NOW_MS + 5_000, NOW_MS + 9_000)
    assert second.gates()[SOMATIC].payload.epoch > epoch
    assert second.gates()[SOMATIC].payload.set_by == "gatekeeper-1"
    assert second.inhibition() == 1
    # who lost its lease is silent, whatever is asked of it
    before = len(first.published)
    first.step(proposal("set_inhibition", 0, ttl_ms=60_000), NOW_MS + 9_000)
    for now_ms in range(NOW_MS + 9_000, NOW_MS + 15_000, 50):
        second.tick(now_ms)
        first.tick(now_ms)
    assert len(first.published) == before


def test_who_cannot_renew_its_lease_falls_silent_before_it_ends() -> None:
    keeper = Keeper(lease_ms=5_000, publish_ms=50)
    keeper.tick(NOW_MS)
    core = keeper.core
    assert core.epoch(("house", "home"), NOW_MS + 3_999) is not None
    assert core.epoch(("house", "home"), NOW_MS + 4_000) is None
    late = core.step(proposal("set_inhibition", 1, scope=("house", "home")), NOW_MS + 4_000)
    assert [type(effect) for effect in late] == [Claim]
    # the answer comes late; it may speak again
    answers = core.step(keeper.table.answer(late[0]), NOW_MS + 4_100)  # type: ignore[arg-type]
    assert len(answers) == 2


def test_a_restarted_gatekeeper_does_not_wait_for_its_own_lease() -> None:
    table = LeaseTable()
    first = Keeper(table)
    first.tick(NOW_MS)
    second = Keeper(table, seed=2)
    second.tick(NOW_MS + 10)
    epochs = [k.gates()[EVERYTHING].payload.epoch for k in (first, second)]
    assert epochs[1] == epochs[0] + 1


def test_leases_are_let_go_when_nothing_is_gated() -> None:
    keeper = Keeper(lease_ms=3_000)
    keeper.step(proposal("suppress", 1, ttl_ms=1_000))
    assert keeper.claims[0].scopes == (("house", "home"), KITCHEN)
    keeper.run(NOW_MS, NOW_MS + 10_000)
    assert keeper.claims[-1].scopes == (("house", "home"),)
    # an answer that comes after it let go is of no consequence
    keeper.step(Leases((Lease(KITCHEN, 99, NOW_MS + 20_000),)), NOW_MS + 10_000)
    assert keeper.core.epoch(KITCHEN, NOW_MS + 10_000) is None


def test_epochs_rise_even_when_the_store_was_lost() -> None:
    old, new = Keeper(), Keeper()
    old.tick(NOW_MS)
    new.tick(NOW_MS + 2_000)
    assert new.gates()[EVERYTHING].payload.epoch > old.gates()[EVERYTHING].payload.epoch


def test_old_leases_are_forgotten_and_their_epochs_are_not_reused() -> None:
    table = LeaseTable()
    before = table.answer(Claim((KITCHEN,), "a", "1", NOW_MS, NOW_MS + 1_000))
    later_ms = NOW_MS + 86_400_000 + 2_000
    table.answer(Claim((("room", "attic"),), "a", "1", later_ms, later_ms + 1_000))
    rows = table.connection.execute("SELECT scope FROM gate_lease").fetchall()
    assert rows == [("attic",)]
    after = table.answer(Claim((KITCHEN,), "a", "1", later_ms, later_ms + 1_000))
    assert (after.leases[0].epoch or 0) > (before.leases[0].epoch or 0)


@pytest.mark.req("S2-6", "S2-7", "S2-84", "S2-85")
def test_content_is_nothing_to_a_gatekeeper() -> None:
    keeper = Keeper()
    with pytest.raises(TypeError, match="AfferentSignal"):
        keeper.step(afferent(1))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["boost", "suppress", "set_inhibition"]),
            st.floats(0, 1),
            st.sampled_from("abc"),
            st.integers(100, 5_000),
            st.integers(0, 400),
        ),
        max_size=12,
    )
)
@pytest.mark.req("S2-72")
def test_no_gate_outlives_its_reasons(proposals: Any) -> None:
    keeper = Keeper()
    now_ms, last_end = NOW_MS, NOW_MS
    for intent, amount, source, ttl_ms, wait_ms in proposals:
        now_ms += wait_ms
        last_end = max(last_end, now_ms + ttl_ms)
        keeper.step(proposal(intent, amount, now_ms, source=source, ttl_ms=ttl_ms), now_ms)
    keeper.run(now_ms, last_end + 500)
    for publish in keeper.published:
        message = publish.message
        assert isinstance(message, GateState)
        assert 0 <= message.payload.inhibition <= 1
        if message.payload.target_kind == "channel":
            assert unix_ms(message.meta.expires_at) <= last_end
    assert len(keeper.core) == 1


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"intent": "set_inhibition", "strength": 1}, "set_inhibition comes with inhibition"),
        ({"intent": "boost"}, "boost and suppress come with strength"),
        ({"intent": "boost", "strength": 1, "inhibition": 1}, "nothing else does"),
    ],
)
def test_rules_of_modes_that_make_no_sense_are_refused(rule: Any, problem: str) -> None:
    table = {"modes": {"night": [{"target_kind": "channel", "target_id": "somatic"} | rule]}}
    with pytest.raises(ValueError, match=problem):
        ThalamusSettings(gates=table)  # type: ignore[arg-type]


def test_a_mode_that_no_registry_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no such mode: siesta"):
        GatesSettings(modes={"siesta": ()})
