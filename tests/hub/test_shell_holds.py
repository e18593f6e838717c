"""What is urgent is acknowledged once it is out, however long it has to wait for that."""

from typing import Any

from hub.plane_inputs import NOW_MS
from hub.shell_stand import Stand
from nervus.brainstem import BrainstemSettings, build
from nervus.bus import Origin
from nervus.wire import Mint, Packet, encode, topics
from nervus.wire.contracts import AfferentSignal, AfferentSignalPayload

HOME = Origin(seed=7, boot=1, house="home")
OVER_MS = NOW_MS + 1_000 + BrainstemSettings().lateness_ms
"""When the windows that are open at NOW_MS have been told."""

_board = Mint("device:b1", "spinal", seed=1, boot=1)


def brainstem(**settings: Any) -> Stand:
    """One that tells a first urgent sample at once, and lets others wait for their window."""
    made = BrainstemSettings(**{"urgent_rate": 0.001, "urgent_burst": 1} | settings)
    return Stand(build(made, HOME, {"b1": "room/kitchen"}.get), NOW_MS)


def urgent(**fields: Any) -> Packet:
    payload = AfferentSignalPayload(sensor_type="motion", value=True)
    where = topics.afferent("room", "kitchen", "motion", "b1")
    made = _board.compact(AfferentSignal, where, payload, NOW_MS, priority="critical", **fields)
    return Packet("spinal", where.topic, encode(made.message))


async def taken(stand: Stand, *packets: Packet, qos: int = 1) -> list[int]:
    numbers = [stand.deliver(packet, qos) for packet in packets]
    await stand.steps()
    return numbers


async def over(stand: Stand) -> None:
    """Let the windows end, and the brokers take what came of them."""
    stand.now_ms = OVER_MS
    await stand.steps()
    answer(stand)


def answer(stand: Stand) -> None:
    for wire in stand.wires.values():
        wire.answer(1_000)


async def test_what_is_urgent_above_its_rate_is_acknowledged_with_its_window() -> None:
    stand = brainstem()
    first, second, third = await taken(stand, urgent(), urgent(), urgent())
    answer(stand)
    assert stand.acknowledged == [first]
    stand.now_ms = OVER_MS
    await stand.steps()
    assert stand.acknowledged == [first], "its bundle is sent, but nobody has it yet"
    answer(stand)
    assert stand.acknowledged == [first, second, third]
    assert stand.shell.counters.unheld == 0


async def test_what_is_urgent_and_of_long_ago_is_acknowledged_with_its_window() -> None:
    stand = brainstem()
    old = urgent(historical=True, ttl_ms=3_600_000)
    await taken(stand, old)
    answer(stand)
    assert stand.acknowledged == []
    await over(stand)
    assert stand.acknowledged == [1]


async def test_no_more_is_held_than_leaves_the_session_its_way() -> None:
    stand = brainstem(source_burst=100_000)
    most = stand.wires["spinal"].receive_maximum // 2
    first, *numbers = await taken(stand, *(urgent() for _ in range(1 + most + 3)))
    answer(stand)
    assert stand.acknowledged == [*numbers[most:], first]
    assert stand.shell.counters.unheld == 3
    await over(stand)
    assert sorted(stand.acknowledged) == [first, *numbers]
    # What was released makes room again.
    again = await taken(stand, urgent(t_ms=OVER_MS))
    assert not set(again) & set(stand.acknowledged)
    assert stand.shell.counters.unheld == 3


async def test_the_copy_of_a_held_packet_is_acknowledged_in_its_place() -> None:
    stand = brainstem()
    held = urgent()
    await taken(stand, urgent(), held)
    answer(stand)
    # The connection breaks: nothing can be acknowledged by it any longer, all of it comes again.
    copy, *_ = await taken(stand, held)
    assert copy not in stand.acknowledged
    await over(stand)
    assert copy in stand.acknowledged


async def test_the_copy_of_a_packet_whose_bundle_is_on_its_way_waits_for_that() -> None:
    stand = brainstem()
    alarm = urgent()
    await taken(stand, alarm)
    copy, *_ = await taken(stand, alarm)
    assert copy not in stand.acknowledged
    answer(stand)
    assert copy in stand.acknowledged
    # One that comes when nothing waits any longer is done with at once.
    late, *_ = await taken(stand, alarm)
    assert late in stand.acknowledged


async def test_what_comes_at_qos_0_takes_no_place() -> None:
    stand = brainstem(source_burst=100_000)
    await taken(stand, *(urgent() for _ in range(1_200)), qos=0)
    await over(stand)
    assert stand.acknowledged == []
    assert stand.shell.counters.unheld == 0


def test_what_is_urgent_is_told_in_the_turn_it_was_read_in() -> None:
    stand = brainstem()
    number = stand.deliver(urgent(), 1)
    assert not stand.log
    stand.wires["spinal"].read()
    assert [sent.broker for sent in stand.sent][:1] == ["core"]
    answer(stand)
    assert stand.acknowledged == [number]
