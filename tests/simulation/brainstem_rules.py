"""Brainstem's rules: raw never goes up, and what goes up adds up."""

from bisect import bisect
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nervus.wire import Accepted, Hold, Publish, topics, unix_ms
from nervus.wire.contracts import AfferentSignal, RelayBundle
from simulation.checks import Checks, Violation
from simulation.process import Step

_SPANS_KEPT = 64
_COPY_BYTES = 1_024

Key = tuple[str, str, str]
"""scope, device_id and sensor_type."""


@dataclass(slots=True)
class _Span:
    count: int = 0
    low: float = float("inf")
    high: float = float("-inf")

    def take(self, value: Any) -> None:
        self.count += 1
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.low, self.high = min(self.low, value), max(self.high, value)


@dataclass(slots=True)
class _State:
    taken: dict[Key, _Span] = field(default_factory=dict)
    told: Counter[Key] = field(default_factory=Counter)
    windows: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    held: dict[int, list[Key]] = field(default_factory=dict)
    samples: int = 0
    bundles: int = 0


class BrainstemRules:
    """Each accepted sample is told once, in one window, within its bounds; windows do not overlap.

    What is urgent is told at once or held, and let go with the bundle that tells it.

    Args:
        checks: Where rules are held.
    """

    def __init__(self, checks: Checks) -> None:
        self._hold = checks.hold
        self._state = _State()

    def restart(self) -> None:
        """It knows nothing any longer."""
        self._state = _State()

    def __call__(self, step: Step) -> None:
        """Check one step."""
        state, verdict = self._state, step.verdict
        if isinstance(verdict, Accepted) and isinstance(verdict.message, AfferentSignal):
            payload, levels = verdict.message.payload, verdict.address.levels
            if not step.refused and payload.quality != "bad":
                state.samples += 1
                key = (levels["scope"], levels["device_id"], payload.sensor_type)
                span = state.taken.get(key)
                if span is None:
                    span = state.taken[key] = _Span()
                span.take(payload.value)
                self._check_urgent(step, verdict.message, key)
        told: dict[str, Publish] = {}
        for publish in step.sent:
            if publish.address.spec is topics.RELAY_BUNDLE:
                self._check_bundle(publish)
            elif publish.on == "spinal":
                self._check_copy(publish, told)
            else:
                told[publish.address.topic] = publish
        for each in step.held:
            if not isinstance(each, Hold):
                self._check_released(step, state.held.pop(each.number, []))

    def _check_urgent(self, step: Step, message: AfferentSignal, key: Key) -> None:
        urgent = message.meta.priority == "critical"
        holds = [each for each in step.held if isinstance(each, Hold)]
        self._hold("held", urgent or not holds, key, "is not urgent, and held")
        if holds:
            self._state.held.setdefault(holds[0].number, []).append(key)
        elif urgent:
            self._check_released(step, [key])

    def _check_released(self, step: Step, keys: list[Key]) -> None:
        """Each is in a bundle of this step."""
        told = {
            (publish.address.levels["scope"], feature.device_id, feature.sensor_type)
            for publish in step.sent
            if isinstance(publish.message, RelayBundle)
            for feature in publish.message.payload.summary_features
        }
        self._hold("released", told.issuperset(keys), keys, "let go untold")

    def settled(self) -> None:
        """Every window has closed."""
        state = self._state
        self._hold("released", not state.held, state.held, "held for ever")
        for key, span in state.taken.items():
            told = state.told[key]
            self._hold("conserved", told == span.count, key, span.count, "taken,", told, "told")

    def _check_copy(self, publish: Publish, told: dict[str, Publish]) -> None:
        """What goes to boards is a copy of what all were told just before, or by somebody else."""
        self._hold("small", len(publish.data) <= _COPY_BYTES, publish.address.topic)
        self._hold("kept", publish.address.spec.retained, publish.address.topic)
        original = told.get(publish.address.topic)
        if publish.address.spec is not topics.GLOBAL_PARAMETERS:
            same = original and original.message.payload == publish.message.payload
            self._hold("copied", same, publish.message, original)

    def _check_bundle(self, publish: Publish) -> None:
        state, message = self._state, publish.message
        assert isinstance(message, RelayBundle)
        payload, scope = message.payload, publish.address.levels["scope"]
        state.bundles += 1
        self._hold("slower", state.bundles <= state.samples, "more bundles than samples")
        features = payload.summary_features
        self._hold("short", len(features) <= 64, len(features), "features")
        self._hold("sources", set(payload.sources or ()) == {f.device_id for f in features})
        for feature in features:
            key = (scope, feature.device_id or "", feature.sensor_type)
            span = state.taken.get(key)
            state.told[key] += feature.count
            if span is None or state.told[key] > span.count:
                raise Violation(f"{key}: more told than taken")
            if feature.min is not None and feature.max is not None and feature.mean is not None:
                inside = span.low <= feature.min <= feature.mean <= feature.max <= span.high
                self._hold("inside", inside, key, feature, "beyond", span)
        if not message.meta.historical:
            start_ms = unix_ms(payload.window_start)
            key_ = (scope, payload.channel)
            self._check_window(key_, start_ms, start_ms + payload.window_ms)

    def _check_window(self, stream: tuple[str, str], start_ms: int, end_ms: int) -> None:
        windows = self._state.windows.setdefault(stream, [])
        at = bisect(windows, (start_ms, end_ms))
        # What was split because of its size is told as one window in several bundles.
        if at and windows[at - 1] == (start_ms, end_ms):
            return
        before = not at or windows[at - 1][1] <= start_ms
        after = at == len(windows) or end_ms <= windows[at][0]
        self._hold("apart", before and after, stream, start_ms, end_ms, "overlaps", windows)
        windows.insert(at, (start_ms, end_ms))
        if len(windows) > _SPANS_KEPT:
            del windows[0]
