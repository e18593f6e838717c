"""Merging bundles: as if it had been one window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.plane_inputs import NOW_MS, bundle_payload, feature
from nervus.thalamus import Summary
from nervus.wire.contracts import RelayBundlePayload

TOLERANCE = 1e-9


@st.composite
def bundles_in_order(draw: st.DrawFn, size: int = 3) -> list[RelayBundlePayload]:
    payloads, start_ms = [], NOW_MS
    for _ in range(size):
        start_ms += draw(st.integers(0, 2_000))
        window_ms = draw(st.integers(0, 1_000))
        keys = draw(
            st.lists(st.sampled_from(["b1", "b2", "b3"]), min_size=1, max_size=3, unique=True)
        )
        features = []
        for device in keys:
            values = draw(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
            features.append(
                feature(
                    len(values),
                    device=device,
                    min=min(values),
                    max=max(values),
                    mean=sum(values) / len(values),
                    last=values[-1],
                    moving_average=values[0],
                    rate=len(values) * 1000 / max(1, window_ms),
                    changes=draw(st.integers(0, 5)),
                )
            )
        salience = draw(st.none() | st.floats(0, 1))
        confidence = draw(st.none() | st.floats(0, 1))
        payloads.append(
            bundle_payload(
                *features,
                start_ms=start_ms,
                window_ms=window_ms,
                sources=keys,
                salience=salience,
                confidence=confidence,
            )
        )
        start_ms += window_ms
    return payloads


@given(bundles_in_order())
def test_merging_is_associative(payloads: list[RelayBundlePayload]) -> None:
    a, b, c = map(Summary.of, payloads)
    left, right = a.merged(b).merged(c), a.merged(b.merged(c))
    assert left.features.keys() == right.features.keys()
    for key, one in left.features.items():
        other = right.features[key]
        assert (one.count, one.min, one.max, one.last, one.changes, one.moving_average) == (
            other.count, other.min, other.max, other.last, other.changes, other.moving_average,
        )  # fmt: skip
        assert one.mean == pytest.approx(other.mean, rel=TOLERANCE, abs=1e-6)
        assert one.rate == pytest.approx(other.rate, rel=TOLERANCE)
    assert (left.start_ms, left.end_ms, left.samples, left.sources, left.salience) == (
        right.start_ms, right.end_ms, right.samples, right.sources, right.salience,
    )  # fmt: skip
    assert left.confidence == pytest.approx(right.confidence)


@pytest.mark.req("S2-4")
@given(bundles_in_order(size=4))
def test_merging_conserves_samples_and_extremes(payloads: list[RelayBundlePayload]) -> None:
    merged = Summary.of(payloads[0])
    for payload in payloads[1:]:
        merged = merged.merged(Summary.of(payload))
    features = [f for payload in payloads for f in payload.summary_features]
    assert sum(f.count for f in merged.features.values()) == sum(f.count for f in features)
    assert sum(f.changes or 0 for f in merged.features.values()) == sum(
        f.changes or 0 for f in features
    )
    assert min(f.min for f in merged.features.values()) == min(f.min for f in features)
    assert max(f.max for f in merged.features.values()) == max(f.max for f in features)
    for one in merged.features.values():
        assert one.min <= one.mean <= one.max


def test_a_mean_is_weighted_and_a_rate_counts_over_the_whole_window() -> None:
    first = bundle_payload(feature(1, min=10, max=10, mean=10, rate=1), window_ms=1_000)
    second = bundle_payload(
        feature(3, min=20, max=20, mean=20, rate=3), start_ms=NOW_MS + 3_000, window_ms=1_000
    )
    merged = Summary.of(first).merged(Summary.of(second))
    (one,) = merged.features.values()
    assert (one.mean, one.rate, one.count) == (17.5, 1, 4)
    assert merged.payload([one], []).window_ms == 4_000


def test_the_newest_counts_whichever_way_round_they_are_merged() -> None:
    older = Summary.of(bundle_payload(feature(1, last=1, moving_average=1)))
    newer = Summary.of(
        bundle_payload(feature(1, last=2, moving_average=2), start_ms=NOW_MS + 1_000)
    )
    for merged in (older.merged(newer), newer.merged(older)):
        (one,) = merged.features.values()
        assert (one.last, one.moving_average) == (2, 2)


def test_what_one_side_does_not_state_the_sum_does_not_state() -> None:
    stated = Summary.of(
        bundle_payload(feature(1, min=1, max=1, mean=1, rate=1, changes=0), confidence=1)
    )
    silent = Summary.of(bundle_payload(feature(1, last="on")))
    (one,) = stated.merged(silent).features.values()
    assert (one.count, one.last) == (2, "on")
    assert one.min is one.max is one.mean is one.rate is one.changes is None
    assert stated.merged(silent).confidence is None


def test_units_and_devices_are_not_mixed() -> None:
    first = bundle_payload(feature(unit="Cel", mean=21), feature(device=None, mean=21))
    second = bundle_payload(feature(unit="K", mean=294))
    merged = Summary.of(first).merged(Summary.of(second))
    assert len(merged.features) == 3


def test_the_same_signal_twice_in_a_bundle_is_one() -> None:
    twice = bundle_payload(feature(1, mean=10, rate=1), feature(1, mean=20, rate=1))
    (one,) = Summary.of(twice).features.values()
    assert (one.count, one.mean, one.rate) == (2, 15, 2)


def test_a_correlation_survives_only_if_all_share_it() -> None:
    one, other = "01J00000000000000000000001", "01J00000000000000000000002"
    assert _correlated(one, one) == one
    assert _correlated(one, other) is None


def _correlated(first: str, second: str) -> str | None:
    return (
        Summary.of(bundle_payload(correlation_id=first))
        .merged(Summary.of(bundle_payload(correlation_id=second)))
        .correlation_id
    )


def test_more_sources_than_a_bundle_names_are_those_of_its_features() -> None:
    many = [
        Summary.of(bundle_payload(feature(device=f"d{n}"), sources=[f"d{n}"])) for n in range(65)
    ]
    merged = many[0]
    for summary in many[1:]:
        merged = merged.merged(summary)
    part = [merged.features[key] for key in sorted(merged.features)][:2]
    assert merged.payload(part, []).sources == ["d0", "d1"]


def test_the_largest_numbers_do_not_overflow() -> None:
    huge = feature(
        2**53 - 1, min=1.7e308, max=1.7e308, mean=1.7e308, rate=1.7e308, changes=2**53 - 1
    )
    payload = bundle_payload(huge)
    (one,) = Summary.of(payload).merged(Summary.of(payload)).features.values()
    assert (one.count, one.mean) == (2**53 - 1, 1.7e308)


def test_the_times_of_a_state_and_the_counts_of_words_add_up() -> None:
    first = feature(2, true_ms=400, false_ms=600, histogram={"a": 1, "b": 1})
    second = feature(3, true_ms=1_000, false_ms=0, histogram={"b": 2, "c": 1})
    merged = Summary.of(bundle_payload(first)).merged(
        Summary.of(bundle_payload(second, start_ms=NOW_MS + 1_000))
    )
    (both,) = merged.features.values()
    assert (both.true_ms, both.false_ms) == (1_400, 600)
    assert both.histogram == {"a": 1, "b": 3, "c": 1}


def test_merged_words_are_at_most_eight_those_of_the_older_first() -> None:
    first = feature(6, histogram={f"old{n}": 1 for n in range(6)})
    second = feature(6, histogram={f"new{n}": 1 for n in range(6)})
    merged = Summary.of(bundle_payload(first)).merged(
        Summary.of(bundle_payload(second, start_ms=NOW_MS + 1_000))
    )
    (both,) = merged.features.values()
    assert sorted(both.histogram or {}) == ["new0", "new1", *(f"old{n}" for n in range(6))]
