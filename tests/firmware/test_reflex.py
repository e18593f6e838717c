"""The reflex engine: rules that run on the board alone, compiled once, hard-capped."""

import copy
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.vectors import VALID
from firmware.reflex_rules import (
    COLD,
    ENDS,
    ENDS_MS,
    LIMITS,
    OFF,
    ON,
    causes,
    engine,
    one,
    rule,
)
from nervus.reliable import reflex_files
from nervus.wire.contracts import CONTRACTS
from spinal.clock import Clock
from spinal.reflex import Engine
from spinal.rule import rule_hash


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

    @pytest.mark.parametrize(
        ("leaf", "values", "fires"),
        [
            ({"op": "rises"}, [5, 6, 6, 5, 7, None, 8, 8], [1, 4, 6]),
            ({"op": "falls"}, [5, 4, 4, 5, None, 3], [1, 5]),
            ({"op": "rises"}, [True, False, True, True, False], [2]),
            ({"op": "falls"}, [True, False, True, True, False], [1, 4]),
            ({"op": "rises", "value": 20}, [25, 19, 20, 21, 19, 30], [2, 5]),
            ({"op": "rises", "value": 20}, [19, None, 21, None, 22], [2]),
            ({"op": "rises", "value": 20, "hysteresis": 2}, [19, 20, 18, 20, 17, 20], [1, 5]),
            ({"op": "falls", "value": 20}, [15, 21, 20, 19, 21, 3], [2, 5]),
            ({"op": "falls", "value": 20, "hysteresis": 2}, [21, 20, 22, 20, 23, 20], [1, 5]),
            ({"op": "rises", "value": 20}, [19, "broken", 21], [2]),
        ],
    )
    def test_rises_and_falls_are_moments(
        self, leaf: dict[str, Any], values: list[Any], fires: list[int]
    ) -> None:
        told = causes(engine(rule({"sensor": "temperature", **leaf})), values)
        assert [number for number, cause in enumerate(told) if cause] == fires

    def test_stale_is_a_sensor_that_has_long_given_no_value(self) -> None:
        when = {"sensor": "temperature", "op": "stale", "for_ms": 250}
        made = engine(rule(when, **{"else": OFF}))
        assert causes(made, [20, None, None, 20, None, None, None, None, 20]) == [
            *([None] * 7),
            *("then", "else"),
        ]
        at_once = engine(rule({**when, "for_ms": 0}))
        assert causes(at_once, [20, None, None, 20, None]) == [None, "then", None, None, "then"]
        assert bool(engine(rule({"not": when})).evaluate({"temperature": 1}, 0))

    def test_a_sensor_that_never_gave_a_value_is_stale_too(self) -> None:
        made = engine(rule({"sensor": "light", "op": "stale", "for_ms": 250}))
        assert causes(made, [20, 20, 20, 20]) == [None, None, None, "then"]

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


class TestConfiguration:
    @pytest.mark.req("S0-25")
    def test_the_contract_s_example_is_taken(self) -> None:
        payload = VALID["ReflexConfigure"][1]["payload"]
        made = Engine()
        assert made.configure(payload, 0) == ("applied", None)
        assert made.names() == [payload["reflex_id"]]
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
            ({"when": {"sensor": "light", "op": "rises", "for_ms": 9}}, "unsupported"),
            ({"when": {"sensor": "light", "op": "rises", "value": "x"}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "falls", "hysteresis": 1}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "stale", "value": 9}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "stale", "hysteresis": 1}}, "schema_invalid"),
            ({"when": {"sensor": "light", "op": "gt", "values": [1, 2]}}, "schema_invalid"),
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
            ({"then": [{"actuator": "heater", "ramp": {"to": 1, "over_ms": 5}}]}, "unsupported"),
            ({"then": [{"actuator": "lamp", "ramp": {"to": 2, "over_ms": 5}}]}, "out_of_range"),
            (
                {"then": [{"actuator": "lamp", "ramp": {"to": 1, "over_ms": 1 << 29}}]},
                "out_of_range",
            ),
            ({"removed": "and yet here"}, "schema_invalid"),
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
        assert made.hash("cold") == rule_hash(rule())
        state = made.state("cold")
        assert state
        assert state["last_error"] == error
        assert one(made.evaluate({"temperature": 17}, 0)).version == 1

    def test_without_a_list_of_parts_any_name_is_taken(self) -> None:
        made = Engine()
        anything = rule({"sensor": "x", "op": "gt", "value": 1}, then=[{"actuator": "y", "set": 1}])
        assert made.configure(anything, 0) == ("applied", None)

    def test_rules_come_back_after_a_reboot_and_a_broken_one_is_named(self) -> None:
        stored = [rule(reflex_id="b", then=OFF), rule()]
        again = Engine(LIMITS)
        refused = again.restore([*stored, {"reflex_id": "c"}, {}])
        assert [(name, error["code"]) for name, error in refused] == [
            *(("c", "schema_invalid"), ("", "schema_invalid"))
        ]
        assert [again.hash(name) for name in again.names()] == [rule_hash(each) for each in stored]
        assert [each.reflex_id for each in again.evaluate({"temperature": 17}, 0)] == ["b", "cold"]

    def test_a_disabled_rule_is_kept_and_does_not_fire(self) -> None:
        made = engine(rule(enabled=False))
        assert made.evaluate({"temperature": 17}, 0) == []
        assert made.names() == ["cold"]

    def test_a_rule_ends_at_its_time(self) -> None:
        made = engine(rule(expires_at=ENDS, **{"else": OFF}), rule(reflex_id="b"))
        made.evaluate({"temperature": 17}, 0)
        assert made.expire(ENDS_MS - 1) == []
        assert made.expire(ENDS_MS) == ["cold"]
        assert made.expire(ENDS_MS) == []
        assert [(each.reflex_id, each.cause) for each in made.evaluate({"temperature": 17}, 1)] == [
            *(("cold", "else"), ("b", "restored"))
        ]
        assert made.evaluate({"temperature": 17}, 2) == []
        state = made.state("cold")
        assert state
        assert state["enabled"] is False

    def test_a_rule_lives_again_when_the_time_is_set_back(self) -> None:
        made = engine(rule(expires_at=ENDS), rule(reflex_id="off", enabled=False, expires_at=ENDS))
        assert made.expire(ENDS_MS + 10**9) == ["cold"]
        assert made.evaluate({"temperature": 17}, 0) == []
        assert made.expire(ENDS_MS - 5000) == ["cold"]
        assert one(made.evaluate({"temperature": 17}, 1)).reflex_id == "cold"

    def test_a_removed_rule_is_gone_with_its_bytes(self) -> None:
        made = engine(rule(version=3), bytes=200)
        forget = {"reflex_id": "cold", "removed": "no longer wanted"}
        status, error = made.configure({**forget, "version": 2}, 0)
        assert (status, error and error["code"]) == ("rejected", "version_conflict")
        for version in (3, 1):
            assert made.configure({**forget, "version": version}, 0) == ("removed", None)
            assert made.state("cold") is None
            assert made.names() == []
        assert made.evaluate({"temperature": 17}, 0) == []
        assert made.configure(rule(version=1), 0) == ("applied", None)

    @pytest.mark.parametrize("how", ["removed", "disabled", "replaced", "dry"])
    def test_a_rule_that_is_taken_away_ends_what_it_began(self, how: str) -> None:
        made = engine(rule(**{"else": OFF}))
        made.evaluate({"temperature": 17}, 0)
        newer = {
            "removed": {"reflex_id": "cold", "version": 1, "removed": "x"},
            "disabled": rule(version=2, enabled=False),
            "replaced": rule({**COLD, "value": 5}, version=2),
            "dry": rule({**COLD, "value": 5}, version=2, mode="dry_run"),
        }[how]
        made.configure(newer, 0)
        ended = one(made.evaluate({"temperature": 17}, 1))
        assert (ended.cause, ended.version, ended.actions, ended.dry_run) == ("else", 1, OFF, False)
        assert made.evaluate({"temperature": 17}, 2) == []
        made.failed("cold", "output_failed", "it may be gone")

    def test_a_newer_version_that_wants_the_same_makes_no_detour(self) -> None:
        made = engine(rule(**{"else": OFF}))
        made.evaluate({"temperature": 17}, 0)
        made.configure(rule(version=2, **{"else": OFF}), 0)
        ended, fired = made.evaluate({"temperature": 17}, 1)
        assert (ended.version, ended.actions, ended.overridden) == (1, [], ["heater"])
        assert (fired.version, fired.actions) == (2, ON)

    def test_a_prepared_rule_changes_nothing_until_it_is_taken(self) -> None:
        made = engine(rule())
        status, prepared, error = made.prepare(rule(version=2, then=OFF))
        assert (status, error) == ("applied", None)
        assert made.hash("cold") == rule_hash(rule())
        assert prepared
        assert one(made.evaluate({"temperature": 17}, 0)).version == 1
        made.take(prepared)
        assert made.evaluate({"temperature": 17}, 1)[-1].actions == OFF

    @given(st.floats(1e-6, 1e5) | st.just(0.0) | st.floats(-1e5, -1e-6))
    def test_the_hash_is_the_same_on_a_board_with_short_floats(self, limit: float) -> None:

        short = struct.unpack("f", struct.pack("f", float(f"{limit:.6g}")))[0]
        exact = rule({**COLD, "value": float(f"{limit:.6g}")})
        assert rule_hash(exact) == rule_hash(rule({**COLD, "value": short}))

    @pytest.mark.req("S0-2")
    @given(
        st.recursive(
            st.booleans()
            | st.integers(1 - 2**53, 2**53 - 1)
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
            {"actuator": "lamp", "ramp": {"to": 0.5, "over_ms": 300}},
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
            "actions": [
                *("heater=true", "heater=pulse 500 ms", "lamp=ramp to 0.5 in 300 ms"),
                "publish guest=1.5",
            ],
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
