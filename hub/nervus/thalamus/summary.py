"""Merging windows: the statistics of several RelayBundles as if they had been one window."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from nervus.wire import timestamp, unix_ms
from nervus.wire.contracts import Feature, RelayBundlePayload

SOURCE_LIMIT: Final = 64
SPAN_LIMIT_MS: Final = 2_678_400_000
HISTOGRAM_WORDS: Final = 8
_COUNT_LIMIT: Final = 2**53 - 1

Key = tuple[str, str, str]
Number = int | float


@dataclass(frozen=True, slots=True)
class Summary:
    """One or several bundles of a channel as one window.

    The window spans all of them. Counts, changes, histograms and the times of a
    state add up; min and max are those of all; a mean is
    weighted by its count; a rate counts over the whole window; `last` and `moving_average` are the
    newest; salience is the highest; confidence is weighted by the samples behind it. What one side
    does not state, the sum does not state. Merging in order of time is associative, but for
    rounding.
    """

    channel: str
    start_ms: int
    end_ms: int
    features: dict[Key, Feature]
    sources: frozenset[str]
    salience: Number | None
    confidence: Number | None
    samples: int
    correlation_id: str | None

    @classmethod
    def of(cls, payload: RelayBundlePayload) -> Self:
        """The summary of a single bundle."""
        start_ms = unix_ms(payload.window_start)
        features: dict[Key, Feature] = {}
        for feature in payload.summary_features:
            before = features.get(_key(feature))
            length = max(1, payload.window_ms)
            features[_key(feature)] = (
                feature if before is None else _add(before, length, feature, length, length)
            )
        return cls(
            payload.channel,
            start_ms,
            start_ms + payload.window_ms,
            features,
            frozenset(payload.sources or ()),
            payload.salience,
            payload.confidence,
            sum(feature.count for feature in payload.summary_features),
            payload.correlation_id,
        )

    def spans(self, other: "Summary") -> int:
        """How long a window over both would be, in milliseconds."""
        return max(self.end_ms, other.end_ms) - min(self.start_ms, other.start_ms)

    def merged(self, other: "Summary") -> "Summary":
        """Both as one; where they end together, `other` is the newer."""
        older, newer = (self, other) if self.end_ms <= other.end_ms else (other, self)
        length = max(1, self.spans(other))
        features: dict[Key, Feature] = {}
        for key in older.features.keys() | newer.features.keys():
            features[key] = _add_either(
                older.features.get(key), older.length_ms, newer.features.get(key), newer.length_ms,
                length,
            )  # fmt: skip
        return Summary(
            channel=self.channel,
            start_ms=min(self.start_ms, other.start_ms),
            end_ms=newer.end_ms,
            features=features,
            sources=self.sources | other.sources,
            salience=_of_both(max, self.salience, other.salience),
            confidence=_weighted(self.confidence, self.samples, other.confidence, other.samples),
            samples=self.samples + other.samples,
            correlation_id=(
                self.correlation_id if self.correlation_id == other.correlation_id else None
            ),
        )

    def payload(self, features: Sequence[Feature], input_refs: list[str]) -> RelayBundlePayload:
        """The summary's bundle, or the part of it with these features."""
        sources = sorted(self.sources)
        if len(sources) > SOURCE_LIMIT:
            sources = sorted({f.device_id for f in features if f.device_id is not None})
        return RelayBundlePayload(
            channel=self.channel,
            window_start=timestamp(self.start_ms),
            window_ms=self.end_ms - self.start_ms,
            summary_features=list(features),
            sources=sources or None,
            salience=self.salience,
            confidence=self.confidence,
            correlation_id=self.correlation_id,
            input_refs=input_refs,
        )

    @property
    def length_ms(self) -> int:
        """How long the window is for rates: at least a millisecond."""
        return max(1, self.end_ms - self.start_ms)


def _key(feature: Feature) -> Key:
    return feature.device_id or "", feature.sensor_type, feature.unit or ""


def _add_either(
    older: Feature | None, older_ms: int, newer: Feature | None, newer_ms: int, length_ms: int
) -> Feature:
    if older is None or newer is None:
        only, only_ms = (newer, newer_ms) if older is None else (older, older_ms)
        assert only is not None  # noqa: S101  the key came from one of them
        return only.model_copy(update={"rate": _rate(only.rate, only_ms, 0, 1, length_ms)})
    return _add(older, older_ms, newer, newer_ms, length_ms)


def _add(older: Feature, older_ms: int, newer: Feature, newer_ms: int, length_ms: int) -> Feature:
    low = _of_both(min, older.min, newer.min)
    high = _of_both(max, older.max, newer.max)
    mean = _weighted(older.mean, older.count, newer.mean, newer.count)
    if mean is not None and low is not None and high is not None:
        # Rounding may carry a mean past what it is the mean of.
        mean = min(max(mean, low), high)
    changes = None
    if older.changes is not None and newer.changes is not None:
        changes = min(older.changes + newer.changes, _COUNT_LIMIT)
    return Feature(
        sensor_type=newer.sensor_type,
        device_id=newer.device_id,
        unit=newer.unit,
        count=min(older.count + newer.count, _COUNT_LIMIT),
        min=low,
        max=high,
        mean=mean,
        last=older.last if newer.last is None else newer.last,
        moving_average=(
            older.moving_average if newer.moving_average is None else newer.moving_average
        ),
        rate=_rate(older.rate, older_ms, newer.rate, newer_ms, length_ms),
        changes=changes,
        true_ms=_together(older.true_ms, newer.true_ms),
        false_ms=_together(older.false_ms, newer.false_ms),
        histogram=_histogram(older.histogram, newer.histogram),
    )


def _together(first_ms: int | None, second_ms: int | None) -> int | None:
    if first_ms is None or second_ms is None:
        return None
    return min(first_ms + second_ms, SPAN_LIMIT_MS)


def _histogram(
    first: dict[str, int] | None, second: dict[str, int] | None
) -> dict[str, int] | None:
    if first is None or second is None:
        return None
    words = [*first, *(word for word in second if word not in first)][:HISTOGRAM_WORDS]
    counts = {word: first.get(word, 0) + second.get(word, 0) for word in sorted(words)}
    return {word: min(count, _COUNT_LIMIT) for word, count in counts.items()}


def _of_both(
    choose: Callable[[Number, Number], Number], first: Number | None, second: Number | None
) -> Number | None:
    return None if first is None or second is None else choose(first, second)


def _weighted(
    first: Number | None, first_weight: int, second: Number | None, second_weight: int
) -> Number | None:
    if first is None or second is None:
        return None
    # Shares instead of a sum: the sum of two large doubles would overflow.
    share = first_weight / (first_weight + second_weight)
    return first * share + second * (1 - share)


def _rate(
    first: Number | None, first_ms: int, second: Number | None, second_ms: int, length_ms: int
) -> Number | None:
    if first is None or second is None:
        return None
    rate = first * (first_ms / length_ms) + second * (second_ms / length_ms)
    return min(rate, sys.float_info.max)
