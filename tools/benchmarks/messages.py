"""The messages that are sent again and again: minted as boards and parts mint them."""

from __future__ import annotations

from typing import Any, Final

from nervus.wire import Mint, Packet, Publish, encode, timestamp, topics
from nervus.wire.contracts import (
    ActionProgress,
    ActionProgressPayload,
    AfferentSignal,
    AfferentSignalPayload,
    CommandRequest,
    CommandRequestPayload,
    Feature,
    RelayBundle,
    RelayBundlePayload,
    Target,
)

NOW_MS: Final = 1_790_000_000_000
ROOMS: Final = 8
FEATURES: Final = 3


def packet(publish: Publish) -> Packet:
    """A message as it comes from its broker."""
    where: Any = publish.on
    retain = publish.address.spec.retained
    return Packet(where, publish.address.topic, encode(publish.message), retain)


def afferents(
    count: int, boards: int = 50, every_ms: float = 0.05, rooms: int = ROOMS
) -> list[tuple[Publish, int]]:
    """Measurements of many boards in turn, each with the time it was made."""
    mints = [Mint(f"device:b{n}", "spinal", seed=n, boot=1) for n in range(boards)]
    made = []
    for number in range(count):
        board, now_ms = number % boards, NOW_MS + int(number * every_ms)
        payload = AfferentSignalPayload(
            sensor_type="temperature", value=20 + number % 70 / 10, unit="Cel"
        )
        address = topics.afferent("room", f"r{board % rooms}", "temperature", f"b{board}")
        made.append((mints[board].compact(AfferentSignal, address, payload, now_ms), now_ms))
    return made


def bundle_payload(number: int, features: int = FEATURES) -> RelayBundlePayload:
    """A window's summary of so many sensors."""
    summary = [
        Feature(
            sensor_type="temperature",
            device_id=f"b{n}",
            unit="Cel",
            count=20,
            min=19.5,
            max=22.5,
            mean=21.25,
            last=20 + number % 10 / 10,
            moving_average=21.1,
            rate=20.0,
            changes=7,
        )
        for n in range(features)
    ]
    return RelayBundlePayload(
        channel="somatic",
        window_start=timestamp(NOW_MS),
        window_ms=1_000,
        summary_features=summary,
    )


def bundle(mint: Mint, number: int) -> Publish:
    """A bundle as brainstem publishes it."""
    address = topics.relay_bundle("room", f"r{number % ROOMS}", "somatic")
    return mint.full(RelayBundle, address, bundle_payload(number), NOW_MS)


def request(mint: Mint, now_ms: int, value: Any, actuator: str = "lamp") -> Publish:
    """A consumer asks a board to set an actuator."""
    action_id = mint.id(now_ms)
    payload = CommandRequestPayload(
        capability="actuator.set",
        target=Target(device_id="b0", actuator=actuator),
        arguments={"value": value},
    )
    address = topics.command_request("room", "r0", mint.source, action_id)
    return mint.full(
        CommandRequest, address, payload, now_ms, action_id=action_id, deadline_ms=10_000
    )


def progress(mint: Mint, now_ms: int) -> Publish:
    """What reliable says of an action that it took on."""
    action_id = mint.id(now_ms)
    payload = ActionProgressPayload(stage="accepted")
    address = topics.action_progress("room", "r0", action_id)
    return mint.full(ActionProgress, address, payload, now_ms, action_id=action_id)
