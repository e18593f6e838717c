"""Commands at the board: each acts once, across reboots, within deadline and range."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.commands import ACTUATORS, HEATER, NOW, START, ask, order, outputs, rebooted, reports
from spinal.actuators import StepError
from spinal.efferent import Ledger
from spinal.ticks import LONGEST_MS, later


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
            (order("heater", ramp={"to": 1, "over_ms": 9}), "unsupported", "validation"),
            (order("lamp", ramp={"to": 1.5, "over_ms": 9}), "out_of_range", "validation"),
            (
                order("lamp", ramp={"to": 1, "over_ms": LONGEST_MS + 1}),
                "out_of_range",
                "validation",
            ),
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


class TestDeclarations:
    def test_outputs_begin_in_their_boot_state(self) -> None:
        assert outputs(Ledger(ACTUATORS).boot_outputs(START)) == [
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
