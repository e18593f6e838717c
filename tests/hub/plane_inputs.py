"""Messages for the cores of brainstem and thalamus, each judged by the real guard."""

from itertools import count
from typing import Any

from nervus.wire import Accepted, Address, Guard, Mint, Packet, Publish, encode, timestamp, topics
from nervus.wire.contracts import (
    AfferentSignal,
    AfferentSignalPayload,
    DeviceStatus,
    DeviceStatusPayload,
    Feature,
    GateState,
    GateStatePayload,
    GlobalModeUpdate,
    GlobalModeUpdatePayload,
    ModulatorSignal,
    ModulatorSignalPayload,
    ReflexFire,
    ReflexFirePayload,
    RelayBundle,
    RelayBundlePayload,
)

NOW_MS = 1_790_000_000_000
"""A whole second, so that windows of a second begin here."""

_BOARD = Mint("device:b1", "spinal", seed=1, boot=1)
_BRAINSTEM = Mint("brainstem", "brainstem", seed=2, boot=1)
_GATEKEEPER = Mint("gatekeeper", "thalamus", seed=3, boot=1)
_HYPOTHALAMUS = Mint("hypothalamus", "consumer", seed=4, boot=1)
_SEEDS = count(100)
"""One for each proposal: ids of one source must not repeat."""


def judged(publish: Publish, now_ms: int) -> Accepted:
    """What a receiver's guard makes of a message; fails unless it is accepted."""
    spec = publish.address.spec
    packet = Packet(publish.on, publish.address.topic, encode(publish.message), spec.retained)  # type: ignore[arg-type]
    verdict = Guard([spec]).judge(packet, now_ms)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def afferent(
    value: Any,
    now_ms: int = NOW_MS,
    *,
    device: str = "b1",
    sensor: str = "temperature",
    scope: str = "kitchen",
    unit: str | None = None,
    quality: Any = None,
    **meta: Any,
) -> Accepted:
    """A measurement of a board in a room."""
    mint = Mint(f"device:{device}", "spinal", seed=1, boot=1)
    payload = AfferentSignalPayload(sensor_type=sensor, value=value, unit=unit, quality=quality)
    address = topics.afferent("room", scope, sensor, device)
    return judged(mint.compact(AfferentSignal, address, payload, now_ms, **meta), now_ms)


def status(text: Any, now_ms: int = NOW_MS, device: str = "b1") -> Accepted:
    """A board's status."""
    mint = Mint(f"device:{device}", "spinal", seed=7, boot=1)
    payload = DeviceStatusPayload(status=text, session=mint.id(now_ms))
    return judged(mint.compact(DeviceStatus, topics.device_status(device), payload, now_ms), now_ms)


def reflex_fire(now_ms: int = NOW_MS) -> Accepted:
    """A board's report that a reflex fired."""
    action_id = _BOARD.id(now_ms)
    payload = ReflexFirePayload(version=1, inputs={"motion": True}, actions=["lamp"], dry_run=False)
    address = topics.reflex_fire("b1", "night-light", action_id)
    return judged(_BOARD.compact(ReflexFire, address, payload, now_ms, action_id=action_id), now_ms)


def feature(count: int = 1, *, device: str | None = "b1", **fields: Any) -> Feature:
    """Statistics of a signal."""
    return Feature(**{"sensor_type": "temperature", "device_id": device, "count": count} | fields)


def bundle_payload(*features: Feature, start_ms: int = NOW_MS, **fields: Any) -> RelayBundlePayload:
    """The content of a bundle; a temperature of 21 °C unless features are given."""
    given = features or (feature(3, min=20, max=22, mean=21, last=21, rate=3, changes=2),)
    return RelayBundlePayload(
        **{
            "channel": "somatic",
            "window_start": timestamp(start_ms),
            "window_ms": 1_000,
            "summary_features": list(given),
        }
        | fields
    )


def bundle(
    payload: RelayBundlePayload | None = None,
    now_ms: int = NOW_MS,
    *,
    scope: tuple[str, str] = ("room", "kitchen"),
    ttl_ms: int = 5_000,
    **meta: Any,
) -> Accepted:
    """A driver message as brainstem publishes it."""
    content = payload or bundle_payload()
    address = topics.relay_bundle(*scope, content.channel)
    publish = _BRAINSTEM.full(RelayBundle, address, content, now_ms, ttl_ms=ttl_ms, **meta)
    return judged(publish, now_ms)


def gate_address(
    kind: str = "channel", target: str = "somatic", scope: tuple[str, str] = ("room", "kitchen")
) -> Address:
    """Where a gate's state lies."""
    return topics.gate_state(*scope, kind, target)


def gate(
    inhibition: float,
    now_ms: int = NOW_MS,
    *,
    address: Address | None = None,
    lives_ms: int = 10_000,
    mode: Any = "multi",
    epoch: int = 1,
) -> Accepted:
    """A gate as the gatekeeper publishes it."""
    where = address or gate_address()
    payload = GateStatePayload(
        target_kind=where.levels["target_kind"],  # type: ignore[arg-type]
        target_id=where.levels["target_id"],
        inhibition=inhibition,
        mode=mode,
        set_by="gatekeeper",
        epoch=epoch,
    )
    publish = _GATEKEEPER.full(
        GateState, where, payload, now_ms, expires_at=timestamp(now_ms + lives_ms)
    )
    return judged(publish, now_ms)


def proposal(
    intent: Any,
    amount: float,
    now_ms: int = NOW_MS,
    *,
    source: str = "modulator",
    target: tuple[Any, str] = ("channel", "somatic"),
    scope: tuple[str, str] = ("room", "kitchen"),
    ttl_ms: int = 10_000,
    field: str | None = None,
) -> Accepted:
    """A modulator's proposal; the amount is its inhibition or strength as its intent asks."""
    name = field or ("inhibition" if intent == "set_inhibition" else "strength")
    payload = ModulatorSignalPayload(
        **{"target_kind": target[0], "target_id": target[1], "intent": intent, name: amount}
    )
    mint = Mint(source, "consumer", seed=next(_SEEDS), boot=1)
    address = topics.modulator_signal(*scope, *target)
    return judged(mint.full(ModulatorSignal, address, payload, now_ms, ttl_ms=ttl_ms), now_ms)


def mode(
    name: str,
    now_ms: int = NOW_MS,
    *,
    scope: tuple[str, str] = ("house", "home"),
    lives_ms: int = 60_000,
) -> Accepted:
    """A mode as the hypothalamus publishes it."""
    payload = GlobalModeUpdatePayload(mode=name, reason="a test")
    until = timestamp(now_ms + lives_ms)
    publish = _HYPOTHALAMUS.full(
        GlobalModeUpdate, topics.mode(*scope), payload, now_ms, expires_at=until
    )
    return judged(publish, now_ms)
