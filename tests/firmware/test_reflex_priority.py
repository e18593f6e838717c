"""Rules that want too much, or the same actuator."""

from typing import Any

import pytest

from firmware.reflex_rules import OFF, ON, causes, engine, one, rule


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

    def test_the_actuator_is_given_back_when_the_holder_ends(self) -> None:
        made = engine(*self.rules(**{"else": OFF}))
        both, cold, none = {"motion": True}, {"motion": False}, {"motion": False}
        assert len(made.evaluate({**both, "temperature": 17}, 0)) == 2
        ended, restored = made.evaluate({**cold, "temperature": 17}, 1)
        assert (ended.reflex_id, ended.actions, ended.overridden) == ("b", [], ["heater"])
        assert (restored.reflex_id, restored.cause, restored.actions) == ("a", "restored", OFF)
        assert restored.payload()["actions"] == ["heater=false"]
        state = made.state("a")
        assert state
        assert state["fires"] == 1
        assert made.evaluate({**none, "temperature": 20}, 2) == []

    def test_of_equals_the_one_that_fired_later_holds_and_gives_back(self) -> None:
        made = engine(
            rule(reflex_id="x", **{"else": OFF}),
            rule({"sensor": "light", "op": "gt", "value": 5}, reflex_id="a", then=OFF),
        )
        told = []
        for number, (temperature, light) in enumerate(
            [(17, 0), (17, 9), (17, 0), (17, 9), (20, 9), (17, 9), (17, 0), (20, 0)]
        ):
            fired = made.evaluate({"temperature": temperature, "light": light}, number)
            told.append([(each.reflex_id, each.cause, each.actions) for each in fired])
        assert told == [
            [("x", "then", ON)],
            [("a", "then", OFF)],
            [("x", "restored", ON)],
            [("a", "then", OFF)],
            [("x", "else", [])],
            [("x", "then", ON)],
            [],
            [("x", "else", OFF)],
        ]

    def test_a_pulse_is_not_repeated_and_a_moment_gives_nothing_back(self) -> None:
        pulse = [{"actuator": "heater", "pulse_ms": 9}]
        hot = {"sensor": "motion", "op": "eq", "value": True}
        made = engine(
            rule(reflex_id="low", priority=1, then=pulse),
            rule(hot, reflex_id="high", priority=9, then=OFF, **{"else": ON}),
        )
        made.evaluate({"temperature": 17, "motion": True}, 0)
        assert one(made.evaluate({"temperature": 17, "motion": False}, 1)).actions == ON
        moment = {"sensor": "motion", "op": "rises"}
        made = engine(
            rule(reflex_id="low", priority=1),
            rule(moment, reflex_id="high", priority=9, then=OFF),
        )
        made.evaluate({"motion": False}, 0)
        high, low = made.evaluate({"temperature": 17, "motion": True}, 1)
        assert (high.actions, low.actions, low.overridden) == (OFF, [], ["heater"])
        assert made.evaluate({"temperature": 17, "motion": True}, 2) == []

    def test_two_that_end_at_once_leave_what_the_higher_says(self) -> None:
        light = {"sensor": "light", "op": "gt", "value": 5}
        made = engine(
            rule(reflex_id="low", priority=1, **{"else": OFF}),
            rule(reflex_id="high", priority=9, then=OFF, **{"else": ON}),
        )
        made.evaluate({"temperature": 17}, 0)
        ends = made.evaluate({"temperature": 20}, 1)
        assert [(each.reflex_id, each.actions) for each in ends] == [("high", ON), ("low", [])]
        assert made.configure(rule(light, reflex_id="third", priority=0), 0) == ("applied", None)
        made.evaluate({"temperature": 17, "light": 9}, 2)
        ends = made.evaluate({"temperature": 20, "light": 9}, 3)
        assert [(each.reflex_id, each.actions) for each in ends] == [
            *(("high", []), ("third", ON), ("low", []))
        ]

    def test_of_equals_that_fire_at_once_only_the_later_name_moves_the_actuator(self) -> None:
        made = engine(*self.rules(priority=1))
        first, second = made.evaluate({"temperature": 17, "motion": True}, 0)
        assert (first.reflex_id, first.overridden) == ("a", ["heater"])
        assert (second.reflex_id, second.actions) == ("b", ON)
        by_hand, _ = made.trigger("a", 1)
        assert by_hand
        assert by_hand.overridden == []

    @pytest.mark.parametrize("more", [{"mode": "dry_run"}, {"enabled": False}])
    def test_what_does_nothing_holds_nothing(self, more: dict[str, Any]) -> None:
        firings = engine(*self.rules(**more)).evaluate({"temperature": 17, "motion": True}, 0)
        assert [each.overridden for each in firings if each.reflex_id == "a"] == [[]]
