"""Timers of the outputs: pulses, ramps, maximum on-time, link loss."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.commands import ACTUATORS, HEATER, LAMP, START, ask, order, outputs, reports
from spinal.actuators import NEVER_MS
from spinal.efferent import Ledger
from spinal.ticks import HALF, LONGEST_MS, MASK, later


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

    def test_a_ramp_walks_to_its_value_and_is_reported_at_its_end(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger, order("lamp", ramp={"to": 1, "over_ms": 300}))
        assert ledger.start("A1", START) == []
        seen, now = [], START
        while not seen or seen[-1][2] != "ramp_end":
            now = later(now, ledger.wait_ms(now))
            effects = ledger.tick(now)
            seen.extend(outputs(effects))
        assert reports(effects) == [("A1", "lamp", "succeeded")]
        assert effects[-1][3]["result"] == 1
        assert (later(now, 0), len(seen)) == (later(START, 300), 16)
        for number, (_, value, _) in enumerate(seen):
            assert value == pytest.approx(0.25 + 0.75 * number * 20 / 300)
        assert ledger.tick(later(START, 400)) == []
        assert ledger.wait_ms(now) == NEVER_MS

    def test_a_ramp_of_no_time_is_a_set(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger, order("lamp", ramp={"to": 1, "over_ms": 0}))
        effects = ledger.start("A1", START)
        assert outputs(effects) == [("lamp", 1, "command")]
        assert reports(effects) == [("A1", "lamp", "succeeded")]

    def test_something_newer_takes_over_from_a_ramp_where_it_is(self) -> None:
        ledger = Ledger(ACTUATORS)
        ask(ledger, order("lamp", ramp={"to": 1, "over_ms": 200}))
        ledger.start("A1", START)
        assert outputs(ledger.tick(later(START, 100))) == [("lamp", 0.625, "ramp")]
        ask(ledger, order("lamp", ramp={"to": 0, "over_ms": 100}), action_id="A2")
        assert reports(ledger.start("A2", later(START, 100))) == [("A1", "lamp", "failed")]
        assert outputs(ledger.tick(later(START, 150))) == [("lamp", 0.3125, "ramp")]
        ledger.act(order("lamp", set=0.5), later(START, 160))
        assert ledger.tick(later(START, 500)) == []
        assert ledger.value("lamp") == 0.5

    def test_the_maximum_on_time_of_a_ramp_counts_from_its_start(self) -> None:
        ledger = Ledger([{**LAMP, "boot": 0, "max_on_ms": 1000}])
        ledger.act(order("lamp", ramp={"to": 1, "over_ms": 5000}), START)
        ledger.tick(later(START, 500))
        assert outputs(ledger.tick(later(START, 1000))) == [("lamp", 0, "max_on")]
        assert ledger.tick(later(START, 1020)) == []
        ledger.act(order("lamp", ramp={"to": 1, "over_ms": 100}, max_on_ms=400), START)
        ledger.tick(later(START, 100))
        assert outputs(ledger.tick(later(START, 400))) == [("lamp", 0, "max_on")]

    def test_a_ramp_to_off_ends_the_on_time(self) -> None:
        ledger = Ledger([{**LAMP, "boot": 0, "max_on_ms": 1000}])
        ledger.act(order("lamp", set=1), START)
        ledger.act(order("lamp", ramp={"to": 0, "over_ms": 100}), START)
        assert outputs(ledger.tick(later(START, 100))) == [("lamp", 0, "ramp_end")]
        assert ledger.tick(later(START, 1000)) == []

    def test_an_output_that_is_on_from_boot_has_its_maximum_on_time_too(self) -> None:
        ledger = Ledger([{**HEATER, "boot": True}])
        ledger.boot_outputs(START)
        assert ledger.wait_ms(later(START, 1000)) == 4000
        assert outputs(ledger.tick(later(START, 5000))) == [("heater", False, "max_on")]

    def test_the_wait_is_that_of_the_first_timer(self) -> None:
        ledger = Ledger(ACTUATORS)
        assert ledger.wait_ms(START) == NEVER_MS
        ledger.act(order("bell", set=True), START)
        ledger.link_lost(START)
        assert ledger.wait_ms(later(START, 100)) == 600
        ledger.act(order("heater", pulse_ms=50), START)
        assert ledger.wait_ms(later(START, 20)) == 30
        assert ledger.wait_ms(later(START, 80)) == 0

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


steps = st.one_of(
    st.builds(lambda value: order("heater", set=value), st.booleans()),
    st.builds(lambda ms: order("bell", pulse_ms=ms), st.integers(1, 5000)),
    st.builds(lambda value: order("lamp", set=value), st.sampled_from([0, 0.5, 1])),
    st.builds(
        lambda to, ms: order("lamp", ramp={"to": to, "over_ms": ms}),
        st.sampled_from([0, 0.5, 1]),
        st.integers(0, 3000),
    ),
)
doings = st.one_of(steps, st.sampled_from(["lost", "up"]), st.integers(0, 4000))


@given(st.lists(doings, max_size=40), st.sampled_from([HALF, MASK]), st.integers(0, 9000))
def test_it_does_not_matter_where_the_ticks_begin(
    done: list[Any], edge: int, before_ms: int
) -> None:
    told: list[list[Any]] = []
    for start in (0, later(edge, -before_ms)):
        ledger, now = Ledger(ACTUATORS), start
        told.append([ledger.boot_outputs(now)])
        for each in done:
            if isinstance(each, int):
                now = later(now, each)
                told[-1].append((ledger.wait_ms(now), ledger.tick(now)))
            elif each == "lost":
                ledger.link_lost(now)
            elif each == "up":
                ledger.link_up()
            else:
                told[-1].append(ledger.act(each, now))
    assert told[0] == told[1]


@given(st.lists(steps | st.integers(0, 2000), max_size=40))
def test_nothing_stays_on_beyond_its_maximum_however_it_is_driven(done: list[Any]) -> None:
    ledger, now, on_since = Ledger(ACTUATORS), START, None
    passed = 0
    for each in done:
        if isinstance(each, int):
            for _ in range(each // 10):
                now, passed = later(now, 10), passed + 10
                ledger.tick(now)
                if ledger.value("heater"):
                    assert on_since is None or passed - on_since < 5000
                    on_since = passed if on_since is None else on_since
                else:
                    on_since = None
        else:
            ledger.act(each, now)
            if not ledger.value("heater"):
                on_since = None
