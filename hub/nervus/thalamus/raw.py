"""The core that lets raw rise: the afferents of opened selectors, capped, through the gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nervus.thalamus.relay import Relay
from nervus.thalamus.settings import ThalamusSettings
from nervus.wire import (
    Accepted,
    Address,
    Connected,
    Mint,
    Publish,
    Rejected,
    Removed,
    refuse,
    timestamp,
    topics,
)
from nervus.wire.bucket import TokenBucket
from nervus.wire.contracts import (
    AfferentSignal,
    Feature,
    RelayBundle,
    RelayBundlePayload,
    Scalar,
)
from nervus.wire.raw import RawGrant
from nervus.wire.registries import sensor_channels
from nervus.wire.topic import LEVEL_LIMIT

Effect = Publish | Rejected

_WORTH: Final = {"good": 1.0, "uncertain": 0.5, "bad": 0.0}


class RawSettings(ThalamusSettings):
    """The relay's settings, and what may rise.

    Args:
        grants: The opt-ins in force.
    """

    grants: tuple[RawGrant, ...] = ()

    @classmethod
    def of(cls, settings: ThalamusSettings, grants: Sequence[RawGrant]) -> "RawSettings":
        """Return thalamus's settings with opt-ins; raw is never sent as deltas."""
        return cls(**{**settings.model_dump(), "deltas": (), "grants": tuple(grants)})


@dataclass(slots=True)
class RawCounters:
    """What became of afferents since it was made."""

    taken: int = 0
    over_rate: int = 0
    ungranted: int = 0
    unknown: int = 0


class RawRelay:
    """Makes each granted measurement a driver message of its own, and relays that; pure.

    What goes to the gates is a RelayBundle of one sample: its window begins when it was measured
    and lasts no time, `parent_id` is the afferent's message_id. Its topic, for selectors of kind
    topic_prefix and in the RouteDecision, is the afferent's own. Above the rate of its grant a
    measurement is refused, critical or not; nothing relayed outlives the grant.
    """

    def __init__(self, settings: RawSettings, mint: Mint, house: str) -> None:
        self.counters = RawCounters()
        self._relay = Relay(settings, mint, house)
        self._mint = mint
        self._grants = settings.grants
        self._caps: dict[str, TokenBucket] = {}
        self._channels = sensor_channels()

    @property
    def due_ms(self) -> int:
        """As the relay's."""
        return self._relay.due_ms

    def step(self, event: Accepted | Removed | Connected, now_ms: int) -> Sequence[Effect]:
        """Take an afferent, a gate, or the removal of a gate."""
        if isinstance(event, Accepted) and isinstance(event.message, AfferentSignal):
            return [*self.tick(now_ms), *self._afferent(event, now_ms)]
        return self._relay.step(event, now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """As the relay's."""
        return self._relay.tick(now_ms)

    def _afferent(self, event: Accepted, now_ms: int) -> Sequence[Effect]:
        topic, payload = event.address.topic, event.message.payload
        grant = next((one for one in self._grants if one.covers(topic)), None)
        if grant is None or grant.expires_ms <= now_ms:
            self.counters.ungranted += 1
            reason = "nothing lets it rise" if grant is None else f"opt-in {grant.id} has expired"
            return [refuse(event, "contract_not_allowed", "apply", reason)]
        channel = self._channels.get(payload.sensor_type)
        features = _features(event)
        if channel is None or features is None:
            self.counters.unknown += 1
            reason = f"{payload.sensor_type!r:.80}: no channel, or a value without a name"
            return [refuse(event, "unknown_channel", "apply", reason)]
        cap = self._caps.get(grant.id)
        if cap is None:
            cap = self._caps[grant.id] = TokenBucket(grant.rate, grant.rate, now_ms)
        if not cap.take(now_ms):
            self.counters.over_rate += 1
            reason = f"opt-in {grant.id}: above {grant.rate} a second"
            return [refuse(event, "queue_full", "queue", reason)]
        self.counters.taken += 1
        return self._relay.step(self._driver(event, channel, features, grant, now_ms), now_ms)

    def _driver(
        self, event: Accepted, channel: str, features: list[Feature], grant: RawGrant, now_ms: int
    ) -> Accepted:
        assert event.left_ms is not None  # noqa: S101  the contract requires an end
        levels, meta = event.address.levels, event.message.meta
        left_ms = min(event.left_ms, grant.expires_ms - event.received_ms)
        measured_ms = now_ms if meta.clk == "none" else min(meta.t_ms, now_ms)
        payload = RelayBundlePayload(
            channel=channel,
            window_start=timestamp(measured_ms),
            window_ms=0,
            summary_features=features,
            sources=[levels["device_id"]],
            confidence=_WORTH[event.message.payload.quality or "good"],
        )
        address = topics.relay_bundle(levels["scope_level"], levels["scope"], channel)
        said = self._mint.full(
            RelayBundle, address, payload, now_ms,
            message_id=meta.message_id, priority=meta.priority or "normal", principal=meta.source,
            ttl_ms=left_ms, historical=meta.historical,
        )  # fmt: skip
        made = said.message
        # What a RouteDecision refers to is what came.
        head = made.meta.model_copy(update={"source": meta.source, "contract": meta.contract})
        at = Address(event.address.spec, event.address.topic, levels | {"channel": channel})
        message = made.model_copy(update={"meta": head})
        return event._replace(address=at, message=message, left_ms=left_ms, data=said.data)


def _features(event: Accepted) -> list[Feature] | None:
    """The values of a sample: one, or each of a typed object; None if one is nameless."""
    payload, device_id = event.message.payload, event.address.levels["device_id"]
    if not isinstance(payload.value, dict):
        return [_feature(payload.sensor_type, device_id, payload.unit, payload.value)]
    names = {f"{payload.sensor_type}:{member}": value for member, value in payload.value.items()}
    if not names or not all(len(name) <= LEVEL_LIMIT and name.isprintable() for name in names):
        return None
    return [_feature(name, device_id, payload.unit, value) for name, value in names.items()]


def _feature(name: str, device_id: str, unit: str | None, value: Scalar) -> Feature:
    feature = Feature(sensor_type=name, device_id=device_id, unit=unit, count=1, last=value)
    if isinstance(value, bool | str):
        return feature
    return feature.model_copy(update={"min": value, "max": value, "mean": value})
