"""Commands at the board: each acts once, across reboots, within deadline and range."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import VALID
from nervus.wire.contracts import CONTRACTS
from spinal.actuators import StepError
from spinal.efferent import Decision, Ledger
from spinal.ticks import LONGEST_MS, MASK, later

NOW = 1_790_000_000_000
START = MASK - 400
HEATER = {"id": "heater", "type": "bool", "boot": False, "max_on_ms": 5000}
LAMP = {"id": "lamp", "type": "number", "boot": 0.25, "min": 0, "max": 1}
BELL = {"id": "bell", "type": "bool", "boot": False, "on_loss": {"off_after_ms": 700}}
ACTUATORS = [HEATER, LAMP, BELL]


def meta(action_id: str = "A1", **fields: Any) -> dict[str, Any]:
    return {"action_id": action_id, "t_ms": NOW, "clk": "hub", "deadline_ms": 1000, **fields}


def order(actuator: str = "heater", **step: Any) -> dict[str, Any]:
    return {"actuator": actuator, **(step or {"set": True})}


def ask(
    ledger: Ledger,
    payload: dict[str, Any] | None = None,
    *,
    action_id: str = "A1",
    retained: bool = False,
    synced: bool = True,
    now_ms: int | None = NOW,
    **fields: Any,
) -> Decision:
    decision = ledger.command(
        meta(action_id, **fields), payload or order(), retained, synced, now_ms, START
    )
    valid_report(decision.report)
    return decision


def valid_report(payload: dict[str, Any]) -> None:
    message = copy.deepcopy(VALID["EfferentReport"][1])
    message["payload"] = payload
    CONTRACTS["EfferentReport"].model_validate(message)


def rebooted(ledger: Ledger, **more: Any) -> Ledger:
    return Ledger(ACTUATORS, json.loads(json.dumps(ledger.stored())), **more)


def outputs(effects: list[Any]) -> list[tuple[Any, ...]]:
    return [effect[1:] for effect in effects if effect[0] == "output"]


def reports(effects: list[Any]) -> list[tuple[str, str, str]]:
    found = []
    for effect in effects:
        if effect[0] == "report":
            valid_report(effect[3])
            found.append((effect[1], effect[2], effect[3]["status"]))
    return found


class TestOnce:
    @pytest.mark.req("S0-24")
    def test_a_command_is_stored_then_acknowledged_then_done(self) -> None:
        ledger = Ledger(ACTUATORS)
        decision = ask(ledger)
        assert (decision.kind, decision.persist, decision.actuator) == ("act", True, "heater")
        assert decision.report == {"status": "acknowledged", "acted_at": NOW}
        assert ledger.value("heater") is False
        effects = ledger.start("A1", START)
        assert outputs(effects) == [("heater", True, "command")]
        assert effects[1][3] == {"status": "succeeded", "result": True, "acted_at": NOW}
        assert ledger.value("heater") is True

    @pytest.mark.req("S2-76")
    def test_a_repeat_is_answered_with_the_first_report_and_never_acts(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger)
        during = ask(ledger)
        assert (during.kind, during.report["status"]) == ("repeat", "acknowledged")
        ledger.start("A1", START)
        for each in (ledger, rebooted(ledger)):
            for again in (ask(each), ask(each, synced=False), ask(each, now_ms=NOW + 10**6)):
                assert (again.kind, again.persist) == ("repeat", False)
                assert again.report == {"status": "succeeded", "result": True, "acted_at": NOW}

    def test_a_command_that_a_reboot_caught_is_reported_and_not_repeated(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger)
        again = rebooted(ledger)
        told = again.interrupted()
        assert reports(told) == [("A1", "heater", "failed")]
        assert told[0][3]["error"]["code"] == "interrupted"
        assert again.interrupted() == []
        assert ask(again).kind == "repeat"
        assert rebooted(again).interrupted() == []

    def test_an_output_that_fails_is_reported_as_failed(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger)
        ledger.start("A1", START)
        told = ledger.fail("A1", "output_failed", "x" * 400)
        assert reports(told) == [("A1", "heater", "failed")]
        assert ask(ledger).report["status"] == "failed"
        ask(ledger, order("bell", pulse_ms=100), action_id="A2")
        ledger.start("A2", START)
        assert reports(ledger.fail("A2", "output_failed", "stuck")) == [("A2", "bell", "failed")]
        assert reports(ledger.tick(later(START, 100))) == []

    def test_what_was_not_decided_cannot_be_started(self) -> None:
        ledger = Ledger(ACTUATORS)
        with pytest.raises(KeyError):
            ledger.start("A9", START)
        with pytest.raises(KeyError):
            ledger.fail("A9", "output_failed", "")

    def test_the_ledger_forgets_what_is_past_its_deadline_first(self) -> None:
        ledger = Ledger(ACTUATORS, limit=3)
        for number, deadline_ms in enumerate([9000, 100, 9000]):
            ask(ledger, action_id=f"A{number}", deadline_ms=deadline_ms)
            ledger.start(f"A{number}", START)
        ask(ledger, action_id="A3", now_ms=NOW + 200)
        kinds = [ask(ledger, action_id=f"A{n}", now_ms=NOW + 200).kind for n in (0, 2, 3)]
        assert kinds == ["repeat"] * 3

    def test_then_the_oldest_finished_one(self) -> None:
        ledger = Ledger(ACTUATORS, limit=3)
        for number in range(3):
            ask(ledger, action_id=f"A{number}")
            if number:
                ledger.start(f"A{number}", START)
        ask(ledger, action_id="A3")
        assert [entry[0] for entry in ledger.stored()] == ["A0", "A2", "A3"]

    def test_a_ledger_full_of_running_commands_asks_to_come_back(self) -> None:
        ledger = Ledger(ACTUATORS, limit=2)
        ask(ledger, action_id="A0")
        ask(ledger, action_id="A1")
        decision = ask(ledger, action_id="A2")
        assert (decision.kind, decision.code, decision.persist) == ("reject", "busy", False)
        assert decision.report["error"]["kind"] == "retriable"
        ledger.start("A0", START)
        assert ask(ledger, action_id="A2").kind == "act"

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 5),
                st.sampled_from(["ask", "ask", "reboot", "retained", "unsynced", "tick"]),
                st.sampled_from([{"set": True}, {"set": False}, {"pulse_ms": 300}, {"set": 7}]),
            ),
            max_size=50,
        )
    )
    def test_no_action_ever_acts_twice(self, steps: list[tuple[int, str, dict[str, Any]]]) -> None:
        ledger = Ledger(ACTUATORS)
        acted: list[str] = []
        refused: set[str] = set()
        for number, (action, what, step) in enumerate(steps):
            action_id = f"A{action}"
            if what == "reboot":
                ledger = rebooted(ledger)
                reports(ledger.interrupted())
            elif what == "tick":
                reports(ledger.tick(later(START, number * 100)))
            else:
                decision = ask(
                    ledger,
                    order("bell", **step),
                    action_id=action_id,
                    retained=what == "retained",
                    synced=what != "unsynced",
                )
                if decision.kind == "act":
                    acted.append(action_id)
                    if number % 3:
                        reports(ledger.start(action_id, later(START, number * 100)))
                elif decision.kind == "reject" and decision.report["error"]["kind"] == "terminal":
                    refused.add(action_id)
        assert len(acted) == len(set(acted))
        assert not refused & set(acted)


class TestRefusals:
    @pytest.mark.req("S0-18")
    def test_a_retained_command_is_never_acted_on(self) -> None:
        ledger = Ledger(ACTUATORS)
        decision = ask(ledger, retained=True)
        assert (decision.kind, decision.code) == ("reject", "retained_command")
        assert decision.report["status"] == "rejected"
        # The hub has been told so: the same action may not act later, whatever comes.
        assert decision.persist
        assert ask(rebooted(ledger)).kind == "repeat"

    @pytest.mark.parametrize(("synced", "now_ms"), [(False, NOW), (True, None)])
    def test_before_the_time_is_known_nothing_acts_and_a_retry_may(
        self,
        synced: bool,  # noqa: FBT001 - a case
        now_ms: int | None,
    ) -> None:
        ledger = Ledger(ACTUATORS)
        decision = ask(ledger, synced=synced, now_ms=now_ms)
        assert (decision.kind, decision.code) == ("reject", "clock_unsynced")
        assert decision.report["error"]["kind"] == "retriable"
        assert ask(ledger).kind == "act"

    @pytest.mark.req("S0-57")
    @pytest.mark.parametrize(("age_ms", "kind"), [(0, "act"), (999, "act"), (1000, "reject")])
    def test_the_deadline_counts_from_production(self, age_ms: int, kind: str) -> None:
        decision = ask(Ledger(ACTUATORS), now_ms=NOW + age_ms)
        assert decision.kind == kind
        if kind == "reject":
            assert (decision.code, decision.report["status"]) == ("expired", "expired")

    def test_a_deadline_without_a_clock_is_none(self) -> None:
        assert ask(Ledger(ACTUATORS), clk="none", t_ms=5).code == "expired"

    @pytest.mark.parametrize(
        ("payload", "code", "category"),
        [
            (order("door"), "unknown_actuator", "not_found"),
            (order("heater", set=1), "out_of_range", "validation"),
            (order("heater", set="on"), "out_of_range", "validation"),
            (order("lamp", set=True), "out_of_range", "validation"),
            (order("lamp", set=1.01), "out_of_range", "validation"),
            (order("lamp", set=-0.01), "out_of_range", "validation"),
            (order("lamp", pulse_ms=5), "unsupported", "validation"),
            (order("lamp", ramp={"to": 1, "over_ms": 9}), "unsupported", "validation"),
            (order("heater", pulse_ms=LONGEST_MS + 1), "out_of_range", "validation"),
            (order("heater", pulse_ms=0), "out_of_range", "validation"),
            (order("heater", set=True, max_on_ms=0), "out_of_range", "validation"),
        ],
    )
    def test_what_the_actuator_cannot_do_is_refused_with_its_reason(
        self, payload: dict[str, Any], code: str, category: str
    ) -> None:
        ledger = Ledger(ACTUATORS)
        decision = ask(ledger, payload)
        assert (decision.kind, decision.code) == ("reject", code)
        error = decision.report["error"]
        assert (error["code"], error["category"], error["kind"]) == (code, category, "terminal")
        assert ask(ledger, payload).kind == "repeat"


class TestTimers:
    def test_a_pulse_ends_and_is_reported_then(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger, order("bell", pulse_ms=300))
        effects = ledger.start("A1", START)
        assert (outputs(effects), reports(effects)) == ([("bell", True, "command")], [])
        assert ledger.tick(later(START, 299)) == []
        effects = ledger.tick(later(START, 300))
        assert outputs(effects) == [("bell", False, "pulse_end")]
        assert reports(effects) == [("A1", "bell", "succeeded")]
        assert ledger.tick(later(START, 400)) == []

    @pytest.mark.parametrize("newer", ["command", "reflex"])
    def test_a_pulse_that_is_cut_short_says_so(self, newer: str) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger, order("bell", pulse_ms=300))
        ledger.start("A1", START)
        if newer == "command":
            ask(ledger, order("bell", set=True), action_id="A2")
            effects = ledger.start("A2", START)
        else:
            effects = ledger.act(order("bell", set=True), START)
        assert reports(effects)[0] == ("A1", "bell", "failed")
        assert effects[0][3]["error"]["code"] == "superseded"
        assert outputs(effects) == [("bell", True, newer)]
        assert ledger.tick(later(START, 300)) == []

    def test_a_pulse_goes_on_while_other_outputs_end(self) -> None:
        ledger = Ledger(ACTUATORS)
        ledger.act(order("heater", pulse_ms=100), START)
        ask(ledger, order("bell", pulse_ms=300))
        ledger.start("A1", START)
        effects = ledger.tick(later(START, 100))
        assert (outputs(effects), reports(effects)) == ([("heater", False, "pulse_end")], [])
        assert reports(ledger.tick(later(START, 300))) == [("A1", "bell", "succeeded")]

    def test_a_pulse_longer_than_the_maximum_on_time_fails(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger, order("heater", pulse_ms=9000))
        ledger.start("A1", START)
        effects = ledger.tick(later(START, 5000))
        assert outputs(effects) == [("heater", False, "max_on")]
        assert reports(effects) == [("A1", "heater", "failed")]

    def test_the_maximum_on_time_cannot_be_extended_by_repeating(self) -> None:
        ledger = Ledger(ACTUATORS)
        for number in range(10):
            assert ledger.tick(later(START, number * 500)) == []
            ledger.act(order("heater", set=True), later(START, number * 500))
        assert outputs(ledger.tick(later(START, 5000))) == [("heater", False, "max_on")]
        ledger.act(order("heater", set=True), later(START, 6000))
        assert ledger.tick(later(START, 10_999)) == []
        assert outputs(ledger.tick(later(START, 11_000))) == [("heater", False, "max_on")]

    def test_a_step_may_shorten_the_on_time_and_not_lengthen_it(self) -> None:
        ledger = Ledger(ACTUATORS)
        ledger.act(order("heater", set=True, max_on_ms=1000), START)
        assert outputs(ledger.tick(later(START, 1000))) == [("heater", False, "max_on")]
        ledger.act(order("heater", set=True, max_on_ms=9000), START)
        assert outputs(ledger.tick(later(START, 5000))) == [("heater", False, "max_on")]
        ledger.act(order("lamp", set=1, max_on_ms=200), START)
        assert outputs(ledger.tick(later(START, 200))) == [("lamp", 0, "max_on")]

    def test_switching_off_ends_every_timer(self) -> None:
        ledger = Ledger(ACTUATORS)
        ledger.act(order("heater", pulse_ms=100), START)
        ledger.act(order("heater", set=False), START)
        assert ledger.tick(later(START, 6000)) == []


class TestLink:
    def on_loss(self, policy: Any, **more: Any) -> Ledger:
        ledger = Ledger([{"id": "lamp", "type": "number", "boot": 0, "on_loss": policy, **more}])
        ledger.act(order("lamp", set=1), START)
        return ledger

    @pytest.mark.parametrize("policy", ["hold", None])
    def test_hold_keeps_the_output(self, policy: str | None) -> None:
        ledger = self.on_loss(policy)
        ledger.link_lost(START)
        assert ledger.tick(later(START, LONGEST_MS)) == []

    @pytest.mark.parametrize(
        ("policy", "after_ms", "value"),
        [
            ({"off_after_ms": 500}, 500, 0),
            ({"value": 0.25}, 0, 0.25),
            ({"value": 0.25, "after_ms": 200}, 200, 0.25),
        ],
    )
    def test_a_policy_is_carried_out_once_in_its_time(
        self, policy: Any, after_ms: int, value: float
    ) -> None:
        ledger = self.on_loss(policy)
        assert ledger.tick(later(START, 100_000)) == []
        ledger.link_lost(START)
        ledger.link_lost(later(START, 50))
        if after_ms:
            assert ledger.tick(later(START, after_ms - 1)) == []
        assert outputs(ledger.tick(later(START, after_ms))) == [("lamp", value, "link_lost")]
        assert ledger.tick(later(START, after_ms + 1)) == []

    def test_an_output_that_is_as_it_should_be_is_not_driven(self) -> None:
        ledger = self.on_loss({"off_after_ms": 500})
        ledger.act(order("lamp", set=0), START)
        ledger.link_lost(START)
        assert ledger.tick(later(START, 600)) == []

    def test_a_link_that_comes_back_in_time_changes_nothing(self) -> None:
        ledger = self.on_loss({"off_after_ms": 500})
        ledger.link_lost(START)
        ledger.link_up()
        assert ledger.tick(later(START, 1000)) == []

    @pytest.mark.req("S0-107")
    def test_a_reflex_that_acts_without_a_link_is_not_undone(self) -> None:
        ledger = self.on_loss({"off_after_ms": 500})
        ledger.link_lost(START)
        ledger.act(order("lamp", set=0.5), later(START, 100))
        assert ledger.tick(later(START, 1000)) == []
        assert ledger.value("lamp") == 0.5

    def test_a_pulse_that_the_lost_link_ends_is_reported(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger, order("bell", pulse_ms=5000))
        ledger.start("A1", START)
        ledger.link_lost(START)
        effects = ledger.tick(later(START, 700))
        assert outputs(effects) == [("bell", False, "link_lost")]
        assert reports(effects) == [("A1", "bell", "failed")]


class TestDeclarations:
    def test_outputs_begin_in_their_boot_state(self) -> None:
        assert outputs(Ledger(ACTUATORS).boot_outputs()) == [
            *(("bell", False, "boot"), ("heater", False, "boot"), ("lamp", 0.25, "boot"))
        ]

    @pytest.mark.parametrize(
        ("bounds", "off"), [({}, 0), ({"min": 5}, 5), ({"max": -5}, -5), ({"min": -1}, 0)]
    )
    def test_off_is_what_lies_nearest_to_zero(self, bounds: dict[str, Any], off: float) -> None:
        boot = bounds.get("max", 7)
        ledger = Ledger([{"id": "x", "type": "number", "boot": boot, "max_on_ms": 10, **bounds}])
        ledger.act(order("x", set=boot - 1 if boot < 0 else boot), START)
        assert outputs(ledger.tick(later(START, 10))) == [("x", off, "max_on")]

    @pytest.mark.parametrize(
        "changes",
        [
            {"type": "text"},
            {"boot": 1},
            {"boot": "off"},
            {"max_on_ms": -1},
            {"max_on_ms": 1 << 29},
            {"max_on_ms": 0.5},
            {"on_loss": {"value": 7}},
            {"on_loss": {"off_after_ms": "soon"}},
            {"on_loss": {"later": 1}},
            {"on_loss": "drop"},
        ],
    )
    def test_a_wrong_declaration_names_the_actuator(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="heater"):
            Ledger([{**HEATER, **changes}])

    def test_an_actuator_is_declared_once(self) -> None:
        with pytest.raises(ValueError, match="'heater' is declared twice"):
            Ledger([HEATER, HEATER])

    def test_an_unknown_actuator_is_an_error_with_the_known_ones(self) -> None:
        ledger = Ledger(ACTUATORS)
        with pytest.raises(StepError, match="bell, heater, lamp"):
            ledger.value("door")
        with pytest.raises(StepError, match="bell, heater, lamp") as caught:
            ledger.act(order("door"), START)
        assert caught.value.code == "unknown_actuator"
