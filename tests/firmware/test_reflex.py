"""The reflex engine: rules that run on the board alone, compiled once, hard-capped."""

import copy
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import VALID
from nervus.reliable import reflex_files
from nervus.wire.contracts import CONTRACTS
from spinal.clock import Clock
from spinal.reflex import Engine, Firing, rule_hash
from spinal.ticks import MASK, later

ACTUATORS = [
    {"id": "heater", "type": "bool", "boot": False},
    {"id": "lamp", "type": "number", "boot": 0, "min": 0, "max": 1},
]
LIMITS = {"sensors": ["temperature", "motion", "light"], "actuators": ACTUATORS}
ON = [{"actuator": "heater", "set": True}]
OFF = [{"actuator": "heater", "set": False}]
COLD = {"sensor": "temperature", "op": "lt", "value": 18}


def rule(when: Any = COLD, **fields: Any) -> dict[str, Any]:
    return {
        "reflex_id": "cold",
        "version": 1,
        "enabled": True,
        "mode": "active",
        "when": when,
        "then": ON,
        **fields,
    }


def engine(*rules: dict[str, Any], **limits: Any) -> Engine:
    made = Engine({**LIMITS, **limits})
    for each in rules:
        assert made.configure(each, 0) == ("applied", None)
    return made


def causes(
    made: Engine, values: list[Any], step_ms: int = 100, start: int = MASK - 250
) -> list[Any]:
    """What one rule on the temperature does with each value in turn."""
    told = []
    for number, value in enumerate(values):
        fired = made.evaluate({"temperature": value}, later(start, number * step_ms))
        told.append(fired[0].cause if fired else None)
    return told


def one(firings: list[Firing]) -> Firing:
    assert len(firings) == 1
    return firings[0]


class TestConditions:
    @pytest.mark.req("S0-3", "S0-107")
    def test_a_rule_fires_once_when_its_condition_becomes_true(self) -> None:
        assert causes(engine(rule()), [20, 17, 16, 19, 17]) == [None, "then", None, None, "then"]

    def test_the_else_steps_end_what_the_rule_began(self) -> None:
        made = engine(rule(**{"else": OFF}))
        assert causes(made, [20, 17, 16, 19, 20]) == [None, "then", None, "else", None]
        made.evaluate({"temperature": 17}, 0)
        assert one(made.evaluate({"temperature": 19}, 1)).actions == OFF

    @pytest.mark.parametrize(
        ("op", "bounds", "expected"),
        [
            ("gt", {"value": 18}, [0, 0, 0, 1, 1]),
            ("ge", {"value": 18}, [0, 0, 1, 1, 1]),
            ("lt", {"value": 18}, [1, 1, 0, 0, 0]),
            ("le", {"value": 18}, [1, 1, 1, 0, 0]),
            ("eq", {"value": 18}, [0, 0, 1, 0, 0]),
            ("ne", {"value": 18}, [1, 1, 0, 1, 1]),
            ("between", {"values": [17.5, 18.5]}, [0, 0, 1, 0, 0]),
            ("outside", {"values": [17, 19]}, [1, 0, 0, 0, 1]),
        ],
    )
    def test_each_comparison(self, op: str, bounds: dict[str, Any], expected: list[int]) -> None:
        when = {"sensor": "temperature", "op": op, **bounds}
        for value, holds in zip([16, 17, 18, 19, 20], expected, strict=True):
            assert bool(engine(rule(when)).evaluate({"temperature": value}, 0)) == bool(holds)

    @pytest.mark.parametrize(
        ("op", "bounds", "values"),
        [
            ("gt", {"value": 20}, [21, 18.5, 18, 19, 21]),
            ("ge", {"value": 20}, [20, 18, 17.9, 19, 20]),
            ("lt", {"value": 20}, [19, 21.5, 22, 21, 19]),
            ("le", {"value": 20}, [20, 22, 22.1, 21, 20]),
            ("between", {"values": [10, 20]}, [20, 22, 22.1, 21, 10]),
            ("outside", {"values": [10, 20]}, [21, 18.1, 18, 19, 9]),
        ],
    )
    def test_hysteresis_lets_go_only_beyond_the_step_back(
        self, op: str, bounds: dict[str, Any], values: list[float]
    ) -> None:
        when = {"sensor": "temperature", "op": op, "hysteresis": 2, **bounds}
        told = causes(engine(rule(when, **{"else": OFF})), values)
        assert told == ["then", None, "else", None, "then"]

    def test_a_condition_has_to_last(self) -> None:
        made = engine(rule({**COLD, "for_ms": 250}))
        assert causes(made, [17, 17, 19, 17, 17, 17, 17, 17]) == [None] * 6 + ["then", None]

    def test_what_has_lasted_holds_however_long_it_goes_on(self) -> None:
        made = engine(rule({**COLD, "for_ms": 250}, **{"else": OFF}))
        # 400 hours in steps of 10: far past the range in which two ticks can be compared.
        assert causes(made, [17] * 40 + [19], 36_000_000) == [None, "then", *[None] * 38, "else"]

    def test_changed_fires_at_each_change_but_not_at_the_first_value(self) -> None:
        made = engine(rule({"sensor": "temperature", "op": "changed"}))
        assert causes(made, [1, 1, 2, 3, 3, None, 3, 4]) == [
            *(None, None, "then", "then", None, None, None, "then")
        ]

    def test_changed_beside_a_state_fires_again_only_at_a_change(self) -> None:
        made = engine(rule({"any": [COLD, {"sensor": "temperature", "op": "changed"}]}))
        told = causes(made, [17, 17, 16, 16, 20, 20])
        assert told == ["then", None, "then", None, "then", None]

    def test_conditions_are_joined(self) -> None:
        when = {
            "all": [
                {"sensor": "motion", "op": "eq", "value": True},
                {"any": [COLD, {"not": {"sensor": "light", "op": "ge", "value": 50}}]},
            ]
        }
        for motion in (True, False):
            for temperature in (17, 19):
                for light in (10, 60):
                    values = {"motion": motion, "temperature": temperature, "light": light}
                    fired = bool(engine(rule(when)).evaluate(values, 0))
                    assert fired == (motion and (temperature < 18 or light < 50))

    @pytest.mark.parametrize(
        ("when", "expected"),
        [
            ({"not": COLD}, False),
            ({"any": [COLD, {"sensor": "light", "op": "gt", "value": 1}]}, True),
            ({"all": [COLD, {"sensor": "light", "op": "gt", "value": 1}]}, False),
            ({"all": [COLD, {"sensor": "light", "op": "lt", "value": 1}]}, False),
            ({"not": {"all": [COLD, {"sensor": "light", "op": "lt", "value": 1}]}}, True),
        ],
    )
    def test_a_sensor_without_a_value_proves_nothing(self, when: Any, expected: bool) -> None:  # noqa: FBT001 - a case
        for missing in ({}, {"temperature": None}, {"temperature": "broken"}):
            assert bool(engine(rule(when)).evaluate({"light": 5, **missing}, 0)) == expected

    def test_a_sensor_that_fails_neither_fires_nor_ends(self) -> None:
        made = engine(rule(**{"else": OFF}))
        assert causes(made, [17, None, 17, None, 19]) == ["then", None, None, None, "else"]

    @given(st.lists(st.sampled_from([17, 19, None]), max_size=30))
    def test_then_and_else_alternate(self, values: list[int | None]) -> None:
        told = [each for each in causes(engine(rule(**{"else": OFF})), values) if each]
        assert told == ["then", "else"] * (len(told) // 2) + ["then"] * (len(told) % 2)


class TestCaps:
    def test_an_edge_in_the_cooldown_fires_as_soon_as_it_may(self) -> None:
        made = engine(rule(cooldown_ms=450))
        assert causes(made, [17, 19, 17, 17, 17, 17, 17]) == ["then", *[None] * 4, "then", None]

    def test_an_edge_that_is_over_before_the_cooldown_is_dropped(self) -> None:
        made = engine(rule(cooldown_ms=450, **{"else": OFF}))
        assert causes(made, [17, 19, 17, 19, 19, 19]) == ["then", "else", *[None] * 4]

    def test_the_cap_a_minute_slides(self) -> None:
        made = engine(rule(max_fires_per_min=3))
        told = causes(made, [17, 19] * 100, 1000)
        fired = [number for number, cause in enumerate(told) if cause]
        assert fired[:7] == [0, 2, 4, 60, 62, 64, 120]
        for number in fired:
            assert len([each for each in fired if number - 60 < each <= number]) <= 3

    def test_a_cooldown_of_long_ago_does_not_come_back(self) -> None:
        made = engine(rule(cooldown_ms=1000))
        assert causes(made, [17, *[19] * 30, 17], 36_000_000)[-1] == "then"

    def test_rules_are_bounded_in_number_and_bytes(self) -> None:
        made = engine(*[rule(reflex_id=f"r{number}") for number in range(32)], bytes=100_000)
        status, error = made.configure(rule(reflex_id="one more"), 0)
        assert (status, error and error["code"]) == ("rejected", "too_many_rules")
        assert made.configure(rule(reflex_id="r7", version=2), 0) == ("applied", None)
        small = engine(rule(), bytes=200)
        status, error = small.configure(rule(reflex_id="more"), 0)
        assert (status, error and error["code"]) == ("rejected", "too_large")
        assert small.configure(rule(version=2), 0) == ("applied", None)


class TestPriority:
    def rules(self, **more: Any) -> list[dict[str, Any]]:
        return [
            rule(reflex_id="a", priority=1, then=[*OFF, {"actuator": "lamp", "set": 1}]),
            rule(
                {"sensor": "motion", "op": "eq", "value": True},
                **{"reflex_id": "b", "priority": 9, **more},
            ),
        ]

    def test_the_higher_priority_goes_first_and_keeps_the_actuator(self) -> None:
        high, low = engine(*self.rules()).evaluate({"temperature": 17, "motion": True}, 0)
        assert (high.reflex_id, high.actions, high.overridden) == ("b", ON, [])
        assert (low.reflex_id, low.overridden) == ("a", ["heater"])
        assert low.actions == [{"actuator": "lamp", "set": 1}]

    def test_it_is_held_only_while_the_condition_is_true(self) -> None:
        made = engine(*self.rules())
        made.evaluate({"motion": True}, 0)
        made.evaluate({"motion": False}, 1)
        assert one(made.evaluate({"temperature": 17}, 2)).overridden == []

    @pytest.mark.parametrize("more", [{"mode": "dry_run"}, {"priority": 1}, {"enabled": False}])
    def test_what_does_nothing_or_is_no_higher_holds_nothing(self, more: dict[str, Any]) -> None:
        firings = engine(*self.rules(**more)).evaluate({"temperature": 17, "motion": True}, 0)
        assert [each.overridden for each in firings if each.reflex_id == "a"] == [[]]


class TestConfiguration:
    @pytest.mark.req("S0-25")
    def test_the_contract_s_example_is_taken(self) -> None:
        payload = VALID["ReflexConfigure"][1]["payload"]
        made = Engine()
        assert made.configure(payload, 0) == ("applied", None)
        assert made.rules() == [payload]
        assert made.hash(payload["reflex_id"]) == rule_hash(payload)

    def test_the_same_version_and_content_again_is_no_change(self) -> None:
        made = engine(rule())
        made.evaluate({"temperature": 17}, 0)
        assert made.configure(copy.deepcopy(rule()), 0) == ("unchanged", None)
        assert made.evaluate({"temperature": 17}, 1) == []

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_a_version_that_does_not_rise_is_a_conflict(self, version: int) -> None:
        made = engine(rule(version=3))
        status, error = made.configure(rule(version=version, then=OFF), 0)
        assert status == "rejected"
        assert error
        assert (error["code"], error["category"]) == ("version_conflict", "conflict")
        assert one(made.evaluate({"temperature": 17}, 0)).actions == ON

    def test_a_higher_version_takes_over(self) -> None:
        made = engine(rule())
        assert made.configure(rule(version=2, then=OFF), 0) == ("applied", None)
        assert one(made.evaluate({"temperature": 17}, 0)).actions == OFF

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"when": {"sensor": "smell", "op": "gt", "value": 1}}, "unknown_sensor"),
            ({"when": {"sensor": "light", "op": "gt"}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "gt", "value": "x"}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "between", "value": 1}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "between", "values": [2, 1]}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "changed", "value": 1}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "eq"}}, "schema_invalid"),
            (
                {"when": {"sensor": "light", "op": "eq", "value": 1, "hysteresis": 1}},
                "schema_invalid",
            ),
            ({"when": {"sensor": "light", "op": "changed", "for_ms": 9}}, "unsupported"),
            ({"when": {"sensor": "light", "op": "rises", "value": 9}}, "unsupported"),
            ({"when": {"sensor": "light", "op": "near"}}, "schema_invalid"),
            ({"when": {**COLD, "for_ms": 1 << 29}}, "out_of_range"),
            ({"when": {"all": [COLD] * 9}}, "schema_invalid"),
            ({"when": {"all": [{"any": [COLD] * 5}] * 2}}, "schema_invalid"),
            ({"when": {"not": {"not": {"not": {"not": COLD}}}}}, "schema_invalid"),
            ({"when": None}, "schema_invalid"),
            ({"then": []}, "schema_invalid"),
            ({"then": ON * 5}, "schema_invalid"),
            ({"then": [{"actuator": "door", "set": True}]}, "unknown_actuator"),
            ({"else": [{"actuator": "door", "set": True}]}, "unknown_actuator"),
            ({"then": [{"actuator": "lamp", "set": 1.5}]}, "out_of_range"),
            ({"then": [{"actuator": "heater", "set": 1}]}, "out_of_range"),
            ({"then": [{"actuator": "lamp", "pulse_ms": 5}]}, "unsupported"),
            ({"then": [{"actuator": "lamp", "ramp": {"to": 1, "over_ms": 5}}]}, "unsupported"),
            ({"cooldown_ms": 1 << 29}, "out_of_range"),
            ({"version": 0}, "schema_invalid"),
            ({"unheard_of": 1}, "schema_invalid"),
        ],
    )
    def test_a_bad_rule_is_refused_and_the_old_one_stays(
        self, changes: dict[str, Any], code: str
    ) -> None:
        made = engine(rule())
        status, error = made.configure(rule(**{"version": 2, **changes}), 0)
        assert status == "rejected"
        assert error
        assert error["code"] == code
        assert error["category"] == ("not_found" if code.startswith("unknown") else "validation")
        report = copy.deepcopy(VALID["ReflexReport"][1])
        report["payload"] = {"version": 2, "status": status, "error": error}
        assert CONTRACTS["ReflexReport"].model_validate(report)
        assert made.rules() == [rule()]
        state = made.state("cold")
        assert state
        assert state["last_error"] == error
        assert one(made.evaluate({"temperature": 17}, 0)).version == 1

    def test_without_a_list_of_parts_any_name_is_taken(self) -> None:
        made = Engine()
        anything = rule({"sensor": "x", "op": "gt", "value": 1}, then=[{"actuator": "y", "set": 1}])
        assert made.configure(anything, 0) == ("applied", None)

    def test_rules_come_back_after_a_reboot_and_a_broken_one_is_named(self) -> None:
        made = engine(rule(), rule(reflex_id="b", then=OFF))
        stored = made.rules()
        again = Engine(LIMITS)
        refused = again.restore([*stored, {"reflex_id": "c"}, {}])
        assert [(name, error["code"]) for name, error in refused] == [
            *(("c", "schema_invalid"), ("", "schema_invalid"))
        ]
        assert again.rules() == stored
        assert [each.reflex_id for each in again.evaluate({"temperature": 17}, 0)] == ["b", "cold"]

    def test_a_disabled_rule_is_kept_and_does_not_fire(self) -> None:
        made = engine(rule(enabled=False))
        assert made.evaluate({"temperature": 17}, 0) == []
        assert len(made.rules()) == 1

    def test_a_rule_ends_at_its_time(self) -> None:
        made = engine(rule(expires_at="2026-11-20T20:00:00.000Z"), rule(reflex_id="b"))
        assert made.expire(1_795_204_799_999) == []
        assert made.expire(1_795_204_800_000) == ["cold"]
        assert made.expire(1_795_204_800_000) == []
        assert [each.reflex_id for each in made.evaluate({"temperature": 17}, 0)] == ["b"]
        state = made.state("cold")
        assert state
        assert state["enabled"] is False

    @given(st.floats(1e-6, 1e5) | st.just(0.0) | st.floats(-1e5, -1e-6))
    def test_the_hash_is_the_same_on_a_board_with_short_floats(self, limit: float) -> None:

        short = struct.unpack("f", struct.pack("f", float(f"{limit:.6g}")))[0]
        exact = rule({**COLD, "value": float(f"{limit:.6g}")})
        assert rule_hash(exact) == rule_hash(rule({**COLD, "value": short}))

    @pytest.mark.req("S0-2")
    @given(
        st.recursive(
            st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(), part, max_size=4),
        )
    )
    def test_the_hub_names_the_same_content_by_the_same_hash(self, content: object) -> None:
        payload = {"content": content}
        assert reflex_files.rule_hash(payload) == rule_hash(payload)

    def test_the_hash_tells_versions_and_thresholds_apart(self) -> None:
        hashes = {
            rule_hash(each)
            for each in (rule(), rule(version=2), rule({**COLD, "value": 18.5}), rule(then=OFF))
        }
        assert len(hashes) == 4
        assert rule_hash(dict(reversed(rule().items()))) == rule_hash(rule())


class TestReports:
    @pytest.mark.req("S0-27")
    def test_a_fire_says_why_and_what(self) -> None:
        steps = [
            *ON,
            {"actuator": "heater", "pulse_ms": 500},
            {"publish": {"sensor_type": "guest", "value": 1.5, "unit": "1"}},
        ]
        both = {"any": [COLD, {"sensor": "light", "op": "gt", "value": 1}]}
        fired = one(engine(rule(both, then=steps)).evaluate({"temperature": 17.5}, 42))
        assert fired.ticks_ms == 42
        assert fired.actions == steps
        message = copy.deepcopy(VALID["ReflexFire"][1])
        message["payload"] = fired.payload()
        assert CONTRACTS["ReflexFire"].model_validate(message)
        assert fired.payload() == {
            "version": 1,
            "inputs": {"temperature": 17.5},
            "actions": ["heater=true", "heater=pulse 500 ms", "publish guest=1.5"],
            "dry_run": False,
        }

    def test_inputs_fit_the_contract(self) -> None:
        when = {"any": [COLD, {"sensor": "light", "op": "ne", "value": "x"}]}
        fired = one(engine(rule(when)).evaluate({"temperature": {"a": 1}, "light": "y" * 99}, 0))
        assert fired.inputs == {"light": "y" * 64}

    def test_dry_run_only_tells(self) -> None:
        fired = one(engine(rule(mode="dry_run")).evaluate({"temperature": 17}, 0))
        assert fired.dry_run
        assert fired.payload()["dry_run"] is True

    def test_the_state_follows_the_contract(self) -> None:
        clock = Clock()
        clock.now(0)
        made = Engine(LIMITS, clock)
        made.configure(rule(mode="dry_run"), 0)
        before = made.state("cold")
        made.evaluate({"temperature": 17}, 700)
        made.failed("cold", "output_failed", "no voltage")
        after = made.state("cold")
        for payload in (before, after):
            message = copy.deepcopy(VALID["ReflexState"][1])
            message["payload"] = payload
            assert CONTRACTS["ReflexState"].model_validate(message)
        assert before
        assert after
        assert before["fires"] == 0
        assert (after["fires"], after["last_fire"], after["mode"]) == (1, 700, "dry_run")
        assert after["last_error"]["code"] == "output_failed"
        assert made.state("none") is None
        assert made.hash("none") is None


class TestTrigger:
    @pytest.mark.req("S0-26")
    def test_a_rule_is_fired_by_hand_whatever_its_condition_says(self) -> None:
        made = engine(rule())
        made.evaluate({"temperature": 20}, 0)
        fired, error = made.trigger("cold", 10)
        assert error is None
        assert fired
        assert (fired.cause, fired.actions, fired.inputs) == ("trigger", ON, {"temperature": 20})
        fired, _ = made.trigger("cold", 20, {"temperature": 25})
        assert fired
        assert fired.inputs == {"temperature": 25}

    def test_the_cap_a_minute_holds_for_it_too(self) -> None:
        made = engine(rule(max_fires_per_min=2))
        codes = []
        for ticks_ms in (0, 1, 2, 60_000, 60_000):
            _, error = made.trigger("cold", ticks_ms)
            codes.append(error and error["code"])
        assert codes == [None, None, "rate_limited", None, "rate_limited"]

    def test_what_cannot_be_fired_is_named(self) -> None:
        made = engine(rule(enabled=False))
        for name, code in (("cold", "rule_disabled"), ("hot", "unknown_rule")):
            fired, error = made.trigger(name, 0)
            assert fired is None
            assert error
            assert error["code"] == code
