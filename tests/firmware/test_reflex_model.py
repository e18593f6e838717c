"""The reflex engine against its reference model, through long random lives of a board."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from firmware.reflex_model import ModelRule
from spinal.actuators import Actuators
from spinal.reflex import Engine, Firing
from spinal.ticks import HALF, MASK, later

pytestmark = pytest.mark.usefixtures("unmeasured")

ACTUATORS = [
    {"id": "heater", "type": "bool", "boot": False},
    {"id": "lamp", "type": "number", "boot": 0, "min": 0, "max": 9},
]
SENSORS = ["heat", "light"]
IDS = ["a", "b", "c"]
EXPIRES, EXPIRES_MS = "2026-11-20T20:00:00.000Z", 1_795_204_800_000

small = st.integers(0, 3)
lasting = {"hysteresis": st.integers(0, 2), "for_ms": st.sampled_from([0, 150, 400])}
sensor = st.sampled_from(SENSORS)
leaf = st.one_of(
    st.fixed_dictionaries(
        {"sensor": sensor, "op": st.sampled_from(["gt", "ge", "lt", "le"]), "value": small},
        optional=lasting,
    ),
    st.fixed_dictionaries(
        {"sensor": sensor, "op": st.sampled_from(["eq", "ne"]), "value": small},
        optional={"for_ms": lasting["for_ms"]},
    ),
    st.fixed_dictionaries(
        {
            "sensor": sensor,
            "op": st.sampled_from(["between", "outside"]),
            "values": st.tuples(small, small).map(sorted),
        },
        optional=lasting,
    ),
    st.fixed_dictionaries(
        {"sensor": sensor, "op": st.just("stale")}, optional={"for_ms": lasting["for_ms"]}
    ),
    st.fixed_dictionaries({"sensor": sensor, "op": st.sampled_from(["changed", "rises", "falls"])}),
    st.fixed_dictionaries(
        {"sensor": sensor, "op": st.sampled_from(["rises", "falls"]), "value": small},
        optional={"hysteresis": st.integers(0, 2)},
    ),
)

readings = st.fixed_dictionaries({}, optional={name: st.none() | small for name in SENSORS})
pauses = st.sampled_from([0, 10, 150, 250, 300, 20_000, 60_000, 70_000])


def joined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.lists(inner, min_size=1, max_size=2)
    return st.one_of(
        inner,
        inner,
        st.fixed_dictionaries({"all": parts}),
        st.fixed_dictionaries({"any": parts}),
        st.fixed_dictionaries({"not": inner}),
    )


step = st.one_of(
    st.fixed_dictionaries({"actuator": st.just("heater"), "set": st.booleans()}),
    st.fixed_dictionaries({"actuator": st.just("lamp"), "set": small}),
    st.fixed_dictionaries({"actuator": st.just("heater"), "pulse_ms": st.just(50)}),
)
steps = st.lists(step, min_size=1, max_size=2)
fields: dict[str, st.SearchStrategy[Any]] = {
    "priority": st.integers(0, 2),
    "cooldown_ms": st.sampled_from([0, 300]),
    "max_fires_per_min": st.sampled_from([1, 2, 60]),
    "expires_at": st.just(EXPIRES),
    "else": steps,
}
whole = st.fixed_dictionaries(
    {
        "enabled": st.sampled_from([True, True, True, False]),
        "mode": st.sampled_from(["active", "active", "active", "dry_run"]),
        "when": joined(joined(leaf)),
        "then": steps,
    },
    optional=fields,
)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """A whole rule but for its name and version; a function, since its parts have a long repr."""
    return draw(whole)


def by_rank(model: ModelRule) -> tuple[int, str]:
    return -model.payload.get("priority", 0), model.payload["reflex_id"]


class Life(RuleBasedStateMachine):
    """One board: rules come and go, values change, time passes, somebody pulls a trigger."""

    @initialize(
        start=st.sampled_from([0, HALF - 500, MASK - 500]) | st.integers(0, MASK),
        first=st.lists(rules(), min_size=len(IDS), max_size=len(IDS)),
    )
    def begin(self, start: int, first: list[dict[str, Any]]) -> None:
        self.start = start
        self.now = 0
        self.unix_ms = EXPIRES_MS - 1000
        self.version = 0
        self.fires = 0
        self.outputs = Actuators(ACTUATORS)
        self.engine = Engine({"sensors": SENSORS, "actuators": self.outputs})
        self.model: dict[str, ModelRule] = {}
        self.ending: list[tuple[str, int]] = []
        self.values: dict[str, Any] = {}
        self.payloads: dict[int, dict[str, Any]] = {}
        # Actuators of which the claims do not tell the value, until the top one drives them again.
        self.disturbed: set[str] = set()
        for reflex_id, payload in zip(IDS, first, strict=True):
            self.configure(reflex_id, payload)

    @property
    def tick(self) -> int:
        return later(self.start, self.now)

    @rule(reflex_id=st.sampled_from(IDS), payload=rules())
    def configure(self, reflex_id: str, payload: dict[str, Any]) -> None:
        self.version += 1
        payload = {**payload, "reflex_id": reflex_id, "version": self.version}
        self.payloads[self.version] = payload
        assert self.engine.configure(payload, self.tick) == ("applied", None)
        self._take_away(payload["reflex_id"])
        self.model[payload["reflex_id"]] = ModelRule(payload)
        self._expire()

    @rule(reflex_id=st.sampled_from(IDS))
    def remove(self, reflex_id: str) -> None:
        payload = {"reflex_id": reflex_id, "version": self.version + 1, "removed": "test"}
        assert self.engine.configure(payload, self.tick) == ("removed", None)
        self._take_away(reflex_id)

    @rule(jump=st.sampled_from([-2000, 900, 2000]))
    def time_is_set(self, jump: int) -> None:
        self.unix_ms += jump
        self._expire()

    @rule(steps=st.lists(st.tuples(readings, pauses), min_size=1, max_size=6))
    def live(self, steps: list[tuple[dict[str, Any], int]]) -> None:
        for values, step_ms in steps:
            self._evaluate(values, step_ms)

    def _evaluate(self, values: dict[str, Any], step_ms: int) -> None:
        self.now += step_ms
        self.values = {**self.values, **values}
        expected = self.ending
        self.ending = []
        for model in sorted(self.model.values(), key=by_rank):
            cause = model.judge(self.values, self.now) if model.live else None
            if cause == "then":
                self.fires += 1
                model.order = self.fires
            if cause == "then" or (cause == "else" and "else" in model.payload):
                expected.append((cause, model.payload["version"]))
        firings = self.engine.evaluate(self.values, self.tick)
        told = [(each.cause, each.version) for each in firings if each.cause != "restored"]
        assert sorted(told) == sorted(expected)
        self._drive(firings)
        self._the_top_claim_decides()

    @precondition(lambda self: self.model)
    @rule(reflex_id=st.sampled_from(IDS))
    def trigger(self, reflex_id: str) -> None:
        firing, error = self.engine.trigger(reflex_id, self.tick, self.values)
        model = self.model.get(reflex_id)
        may = model is not None and model.live and model.within_cap(self.now)
        assert (error is None) == may
        if firing is not None and model is not None:
            model.fires.append(self.now)
            self._drive([firing])

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "model"):
            kept = set(self.engine.names())
            assert kept == set(self.model)
            for name, model in self.model.items():
                state = self.engine.state(name)
                assert state is not None
                assert (state["fires"], state["enabled"]) == (len(model.fires), model.live)

    def _the_top_claim_decides(self) -> None:
        for each in ACTUATORS:
            actuator = str(each["id"])
            top = self._top(actuator)
            if top is not None and actuator not in self.disturbed and not top.moments:
                last = [x for x in top.payload["then"] if x["actuator"] == actuator][-1]
                # A pulse is not repeated, so it says nothing of what comes after it.
                assert "pulse_ms" in last or self.outputs.value(actuator) == last["set"]

    def _drive(self, firings: list[Firing]) -> None:
        """Do what the engine says; in one evaluation an actuator is moved by one rule only."""
        moved: dict[str, int] = {}
        for firing in firings:
            payload = self.payloads[firing.version]
            held = [each["actuator"] for each in payload["then"]]
            for action in () if firing.dry_run else firing.actions:
                actuator = action["actuator"]
                assert moved.setdefault(actuator, firing.version) == firing.version
                self.outputs.act(action, self.tick, "reflex")
                top = self._top(actuator)
                by_hand = firing.cause == "trigger" or ModelRule(payload).moments
                if by_hand or "pulse_ms" in action or actuator not in held:
                    self.disturbed.add(actuator)
                elif top is not None and top.payload is payload:
                    self.disturbed.discard(actuator)

    def _top(self, actuator: str) -> ModelRule | None:
        claims = [model for model in self.model.values() if model.claims(actuator)]
        return max(
            claims, key=lambda each: (each.payload.get("priority", 0), each.order), default=None
        )

    def _take_away(self, reflex_id: str) -> None:
        model = self.model.pop(reflex_id, None)
        if model is not None:
            self._end_later(model)

    def _end_later(self, model: ModelRule) -> None:
        if model.end() and "else" in model.payload:
            self.ending.append(("else", model.payload["version"]))

    def _expire(self) -> None:
        changed = set(self.engine.expire(self.unix_ms))
        for name, model in self.model.items():
            live = model.payload["enabled"] and (
                "expires_at" not in model.payload or self.unix_ms < EXPIRES_MS
            )
            assert (live != model.live) == (name in changed)
            model.live = live
            if name in changed:
                self._end_later(model)


@pytest.mark.hypothesis
def test_the_engine_does_what_its_model_says() -> None:
    run_state_machine_as_test(
        Life, settings=settings(max_examples=25, stateful_step_count=15, deadline=None)
    )
