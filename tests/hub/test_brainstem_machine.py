"""Brainstem against whatever comes: the invariants of its design document at every step."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hub.brainstem_inputs import (
    HOUSE,
    brainstem,
    bundles,
    mode_update,
    parameter,
    response,
    trigger,
)
from hub.plane_inputs import NOW_MS, afferent, judged, status
from nervus.wire import Accepted, Hold, Publish, Rejected, Release, encode, topics, unix_ms
from nervus.wire.contracts import PatternRequest, RelayBundle

pytestmark = pytest.mark.usefixtures("unmeasured")

ROOMS = ("kitchen", "attic")
DEVICES = ("b1", "b2", "b3")
SENSORS = ("temperature", "motion", "sound_level", "button")
SETTINGS = {
    "source_rate": 20, "source_burst": 15, "urgent_rate": 2, "urgent_burst": 3,
    "historical_limit": 2, "scope_rate": 60, "scope_burst": 30,
}  # fmt: skip
MAY_SAY = {
    topics.RELAY_BUNDLE, topics.PATTERN_REQUEST, topics.GLOBAL_ALERT, topics.GLOBAL_AROUSAL,
    topics.GLOBAL_ALERT_EVENT, topics.GLOBAL_PARAMETERS,
}  # fmt: skip
VALUES = st.booleans() | st.integers(-9, 99) | st.floats(-1e9, 1e9) | st.sampled_from(["on", "off"])


class House(RuleBasedStateMachine):
    """A house in which anything may be sensed, triggered, set and answered."""

    def __init__(self) -> None:
        super().__init__()
        self.core = brainstem(**SETTINGS)
        self.now_ms = NOW_MS
        self.inputs: list[tuple[Accepted | None, int]] = []
        self.outputs: list[Publish | Rejected | Hold | Release] = []
        self.held: set[int] = set()
        self.checked = 0
        self.taken: Counter[tuple[str, str, str, bool]] = Counter()
        self.told: Counter[tuple[str, str, str, bool]] = Counter()
        self.spans: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        self.bundles: Counter[tuple[str, str]] = Counter()
        self.waiting: list[str] = []
        self.seq = self.version = 0

    def give(self, event: Accepted | None) -> list[Any]:
        self.inputs.append((event, self.now_ms))
        core, now_ms = self.core, self.now_ms
        effects = list(core.tick(now_ms) if event is None else core.step(event, now_ms))
        self.outputs += effects
        return effects

    @rule(
        room=st.sampled_from(ROOMS), device=st.sampled_from(DEVICES),
        sensor=st.sampled_from(SENSORS), value=VALUES,
        age_ms=st.sampled_from([-5_000, 0, 0, 0, 90, 240, 260, 900, 3_000]),
        priority=st.sampled_from(["normal", "normal", "critical"]),
        clk=st.sampled_from(["hub", "hub", "none"]), historical=st.booleans(),
        quality=st.sampled_from([None, "uncertain", "bad"]), times=st.sampled_from([1, 1, 2, 12]),
    )  # fmt: skip
    def sense(  # noqa: PLR0913 - everything a sample may be
        self, *, room: str, device: str, sensor: str, value: Any, age_ms: int, priority: str,
        clk: str, historical: bool, quality: Any, times: int,
    ) -> None:  # fmt: skip
        for _ in range(times):
            self.seq += 1
            event = afferent(
                value, self.now_ms, scope=room, device=device, sensor=sensor, priority=priority,
                clk=clk, t_ms=self.now_ms - age_ms, seq=self.seq, quality=quality,
                historical=historical or None,
            )  # fmt: skip
            effects = self.give(event)
            refused = [e for e in effects if isinstance(e, Rejected)]
            assert len(refused) <= 1
            held = [e for e in effects if isinstance(e, Hold)]
            if priority == "critical" and quality != "bad" and not refused:
                assert held or bundles(effects), "what is urgent is out, or held until it is"
            elif priority == "normal":
                assert not held
            if not refused and quality != "bad":
                self.taken[room, device, sensor, historical] += 1

    @rule(room=st.sampled_from(ROOMS), device=st.sampled_from(DEVICES))
    def panic(self, room: str, device: str) -> None:
        self.sense(
            room=room, device=device, sensor="motion", value=True, age_ms=0, clk="hub",
            priority="critical", historical=False, quality=None, times=12,
        )  # fmt: skip

    @rule(room=st.sampled_from(ROOMS), every_ms=st.sampled_from([300, 700]))
    def measure_steadily(self, room: str, every_ms: int) -> None:
        for _ in range(6):
            self.sense(
                room=room, device="b1", sensor="temperature", value=20, age_ms=0, clk="hub",
                priority="normal", historical=False, quality=None, times=1,
            )  # fmt: skip
            self.wait(every_ms)

    @rule(ms=st.sampled_from([1, 30, 200, 700, 700, 1_300, 5_000, 70_000]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.give(None)

    @rule(cause=st.sampled_from(["glass breaks", "boredom"]), urgency=st.floats(0, 1))
    def pull_trigger(self, cause: str, urgency: float) -> None:
        for effect in self.give(trigger(cause, self.now_ms, urgency=urgency)):
            if isinstance(effect, Publish) and isinstance(effect.message, PatternRequest):
                self.waiting.append(effect.message.payload.request_id)

    @rule(answer=st.sampled_from(["accepted", "completed", "refused"]))
    def answer(self, answer: str) -> None:
        if self.waiting:
            self.give(response(self.waiting[-1], self.now_ms, status=answer))

    @rule(mode=st.sampled_from(["home", "night", "holiday"]), house=st.booleans())
    def set_mode(self, *, mode: str, house: bool) -> None:
        scope = HOUSE if house else ("room", "kitchen")
        self.give(mode_update(mode, self.now_ms, scope=scope, lives_ms=3_000))

    @rule(window_ms=st.sampled_from([100, 300, 2_000, 5_000, 5]), newer=st.sampled_from([1, 1, 0]))
    def set_parameter(self, window_ms: int, newer: int) -> None:
        self.version += newer
        self.give(parameter(window_ms, max(1, self.version), self.now_ms, lives_ms=4_000))

    @rule(device=st.sampled_from(DEVICES))
    def lose(self, device: str) -> None:
        self.give(status("offline", self.now_ms, device=device))

    @invariant()
    def what_it_says_is_its_to_say_small_typed_and_expires(self) -> None:
        for effect in self.outputs[self.checked :]:
            if isinstance(effect, Hold):
                self.held.add(effect.number)
            elif isinstance(effect, Release):
                self.held.remove(effect.number)
            if not isinstance(effect, Publish):
                continue
            assert effect.address.spec in MAY_SAY
            said_ms = effect.message.meta.t_ms or unix_ms(effect.message.meta.produced_at)
            accepted = judged(effect, said_ms)
            assert accepted.left_ms is not None
            assert len(encode(effect.message)) <= effect.address.spec.max_bytes
            if effect.on == "spinal":
                assert effect.address.spec.retained
                assert len(encode(effect.message)) <= 1_024
            if isinstance(effect.message, RelayBundle):
                self._note(effect.message)
        self.checked = len(self.outputs)

    def _note(self, bundle: RelayBundle) -> None:
        room, payload, old = bundle.meta.scope, bundle.payload, bool(bundle.meta.historical)
        assert len(payload.summary_features) <= 64
        for feature in payload.summary_features:
            assert feature.count >= 1
            self.told[room, feature.device_id or "", feature.sensor_type, old] += feature.count
        if not old:
            self.bundles[room, payload.channel] += 1
            start_ms = unix_ms(payload.window_start)
            self.spans[room, payload.channel].append((start_ms, start_ms + payload.window_ms))

    @invariant()
    def live_windows_do_not_overlap(self) -> None:
        for spans in self.spans.values():
            assert all(first[1] <= second[0] for first, second in pairwise(sorted(spans)))

    @invariant()
    def a_stream_is_slower_than_its_windows_and_what_may_be_urgent(self) -> None:
        elapsed_s = (self.now_ms - NOW_MS) / 1_000
        urgent = len(DEVICES) * (3 + 2 * elapsed_s)
        # The shortest window that a parameter sets is 100 ms.
        assert all(n <= 10 * elapsed_s + 1 + urgent for n in self.bundles.values())

    def teardown(self) -> None:
        self.now_ms += 120_000
        self.give(None)
        self.what_it_says_is_its_to_say_small_typed_and_expires()
        self.live_windows_do_not_overlap()
        assert not self.held, "what was held is released with its window"
        assert self.told == self.taken, "each accepted afferent is in exactly one window"
        again = brainstem(**SETTINGS)
        replayed = [
            effect
            for event, now_ms in self.inputs
            for effect in (again.tick(now_ms) if event is None else again.step(event, now_ms))
        ]
        assert list(map(_log, replayed)) == list(map(_log, self.outputs))


def _log(effect: Publish | Rejected | Hold | Release) -> tuple[str, bytes]:
    if isinstance(effect, Hold | Release):
        return repr(effect), b""
    if isinstance(effect, Rejected):
        return effect.reason_code, effect.reason.encode()
    return f"{effect.on} {effect.address.topic} {effect.expiry_ms}", encode(effect.message)


TestHouse = pytest.mark.req("S1-2", "S1-17", "S1-45", "S1-65", "S1-74")(House.TestCase)
TestHouse.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
