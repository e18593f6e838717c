"""Keeping a RelayBundle within its caps: 64 features, and the bytes its topic takes."""

from collections.abc import Callable, Sequence
from typing import Final

from nervus.wire.contracts import Feature
from nervus.wire.effects import Publish

FEATURE_LIMIT: Final = 64


def fit(features: Sequence[Feature], make: Callable[[Sequence[Feature]], Publish]) -> list[Publish]:
    """Make as many messages as it takes to carry all features, halving what is too large.

    One feature always fits: its texts are bounded by the contract.
    """
    if len(features) <= FEATURE_LIMIT:
        publish = make(features)
        if len(features) == 1:
            return [publish]
        if len(publish.data) <= publish.address.spec.max_bytes:
            return [publish]
    half = (len(features) + 1) // 2
    return fit(features[:half], make) + fit(features[half:], make)
