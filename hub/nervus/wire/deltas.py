"""Delta bundles: what changed since a key frame, and the key frame made whole again.

A RelayBundle with `delta_of` repeats nothing that the bundle with that message_id, its key frame,
said of the same signal. In it

- a feature stands for the key frame's feature of the same sensor type, device and unit: `count` is
  always there, a field that is not there is unchanged; a feature that is not there is unchanged;
- `sources` that are not there are unchanged;
- everything else is as in any bundle.

What this cannot say is sent whole: that a feature or a field is gone. A delta refers to a key
frame, never to another delta, so that one lost message spoils no other.
"""

from collections import OrderedDict
from typing import Final

from nervus.wire.contracts import Feature, RelayBundle, RelayBundlePayload

FRAME_LIMIT: Final = 8
"""Key frames kept of one stream: messages of different QoS may overtake one another."""

STREAM_LIMIT: Final = 4_096

_NAMING: Final = ("sensor_type", "device_id", "unit")
_FIELDS: Final = tuple(name for name in Feature.model_fields if name not in _NAMING)

_Name = tuple[str, str | None, str | None]
_Stream = tuple[str, str, str, str]


def shorten(
    payload: RelayBundlePayload, base: RelayBundlePayload, base_id: str
) -> RelayBundlePayload | None:
    """Return a bundle as a delta of a key frame; None where it has to be, or may as well be, whole.

    Whatever is returned, `restore` makes the same bytes of it.
    """
    before = {_name(feature): feature for feature in base.summary_features}
    changed = [
        short
        for feature in payload.summary_features
        if (short := _shorten_feature(feature, before.get(_name(feature)))) is not None
    ]
    first = payload.summary_features[0]
    delta = payload.model_copy(
        update={
            "delta_of": base_id,
            "summary_features": changed or [_named(first, count=first.count)],
            "sources": None if payload.sources == base.sources else payload.sources,
        }
    )
    whole = payload.model_dump_json(exclude_none=True)
    if len(delta.model_dump_json(exclude_none=True)) >= len(whole):
        return None
    restored = restore(delta, base)
    return delta if restored.model_dump_json(exclude_none=True) == whole else None


def restore(delta: RelayBundlePayload, base: RelayBundlePayload) -> RelayBundlePayload:
    """Return the whole bundle that a delta of a key frame stands for."""
    features = {_name(feature): feature for feature in base.summary_features}
    for feature in delta.summary_features:
        name = _name(feature)
        before = features.get(name)
        if before is None:
            features[name] = feature
            continue
        stated = {key: getattr(feature, key) for key in _FIELDS}
        features[name] = before.model_copy(
            update={key: value for key, value in stated.items() if value is not None}
        )
    return delta.model_copy(
        update={
            "delta_of": None,
            "summary_features": list(features.values()),
            "sources": base.sources if delta.sources is None else delta.sources,
        }
    )


class BundleReader:
    """Makes a stream of gated bundles whole again, for whoever reads `/th/relay`.

    Give it every RelayBundle that passed the guard, in whatever order they come. It keeps the last
    8 key frames of each stream, for 4,096 streams.

        reader = BundleReader()
        whole = reader.take(message)
        if whole is not None:
            ...  # a bundle without delta_of; None: its key frame was lost, the next one comes soon
    """

    def __init__(self) -> None:
        self.restored = 0
        self.missing = 0
        self._frames: OrderedDict[_Stream, dict[str, RelayBundlePayload]] = OrderedDict()

    def take(self, message: RelayBundle) -> RelayBundle | None:
        """Return the whole bundle; None for a delta whose key frame did not come (`missing`)."""
        meta, payload = message.meta, message.payload
        key = (meta.source, meta.scope_level, meta.scope, payload.channel)
        if payload.delta_of is None:
            self._remember(key, meta.message_id, payload)
            return message
        base = self._frames.get(key, {}).get(payload.delta_of)
        if base is None:
            self.missing += 1
            return None
        self.restored += 1
        return message.model_copy(update={"payload": restore(payload, base)})

    def _remember(self, key: _Stream, message_id: str, payload: RelayBundlePayload) -> None:
        frames = self._frames.setdefault(key, {})
        self._frames.move_to_end(key)
        frames[message_id] = payload
        if len(frames) > FRAME_LIMIT:
            del frames[next(iter(frames))]
        if len(self._frames) > STREAM_LIMIT:
            self._frames.popitem(last=False)


def _name(feature: Feature) -> _Name:
    return feature.sensor_type, feature.device_id, feature.unit


def _named(feature: Feature, **fields: object) -> Feature:
    """A feature that names the same signal and states these fields alone."""
    blank = dict.fromkeys(_FIELDS)
    return feature.model_copy(update=blank | fields)


def _shorten_feature(feature: Feature, before: Feature | None) -> Feature | None:
    """What a feature says that its predecessor did not; None if nothing."""
    if before is None:
        return feature
    fields = {
        key: getattr(feature, key)
        for key in _FIELDS
        if not _same(getattr(feature, key), getattr(before, key))
    }
    if not fields:
        return None
    return _named(feature, **{"count": feature.count} | fields)


def _same(one: object, other: object) -> bool:
    # True is 1 and 1 is 1.0, but not on the wire.
    return type(one) is type(other) and one == other
