"""What waits for the link: bounded, by priority, in order, every drop counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinal.outbox import OVERHEAD, PRIORITIES, Item, Outbox

CONTROL, CRITICAL, NORMAL, BACKGROUND = PRIORITIES


def put(outbox: Outbox, seq: int, priority: str = NORMAL, qos: int = 1, **more: Any) -> Item | None:
    topic = more.get("topic", "t")
    return outbox.put(topic, more.get("data", b"x"), qos, more.get("retain", False), priority, seq)


def drain(outbox: Outbox) -> list[int]:
    seqs = []
    while (item := outbox.next()) is not None:
        seqs.append(item.seq)
        outbox.sent(item)
    return seqs


@pytest.mark.req("S2-83")
def test_control_goes_first_and_each_priority_in_order() -> None:
    outbox = Outbox(20)
    for seq, priority in enumerate([NORMAL, BACKGROUND, CONTROL, CRITICAL, NORMAL, CONTROL]):
        put(outbox, seq, priority)
    assert drain(outbox) == [2, 5, 3, 0, 4, 1]


@pytest.mark.req("S2-82")
def test_a_full_outbox_sheds_the_oldest_of_the_lowest_priority() -> None:
    outbox = Outbox(3)
    for seq, priority in enumerate([CRITICAL, BACKGROUND, BACKGROUND]):
        assert put(outbox, seq, priority) is None
    shed = [put(outbox, 3, NORMAL), put(outbox, 4, CONTROL), put(outbox, 5, CONTROL)]
    assert [item.seq for item in shed if item] == [1, 2, 3]
    assert outbox.dropped == 3
    assert drain(outbox) == [4, 5, 0]


def test_nothing_is_shed_for_something_less_important() -> None:
    outbox = Outbox(2)
    put(outbox, 0, CRITICAL)
    put(outbox, 1, CRITICAL)
    shed = put(outbox, 2, BACKGROUND)
    assert shed is not None
    assert shed.seq == 2
    assert drain(outbox) == [0, 1]


def test_bytes_are_bounded_too() -> None:
    outbox = Outbox(100, max_bytes=100 + 3 * OVERHEAD)
    for seq in range(4):
        put(outbox, seq, data=b"x" * 29)
    assert len(outbox) == 3
    shed = put(outbox, 4, CONTROL, data=b"x" * 800)
    assert shed is not None
    assert shed.seq == 4
    assert drain(outbox) == [1, 2, 3]


def test_what_is_in_flight_is_counted_and_never_shed() -> None:
    outbox = Outbox(2)
    put(outbox, 0, BACKGROUND)
    put(outbox, 1, BACKGROUND)
    flying = [outbox.next()]
    assert flying[0]
    outbox.sent(flying[0])
    shed = put(outbox, 2, CONTROL)
    assert shed is not None
    assert shed.seq == 1
    outbox.acked(flying[0])
    assert put(outbox, 3, BACKGROUND) is None


def test_a_lost_link_brings_in_flight_items_back_in_order() -> None:
    outbox = Outbox(20)
    outbox.link_up()
    for seq in range(6):
        put(outbox, seq, CONTROL if seq % 3 == 0 else NORMAL)
    order = [0, 3, 1, 2, 4, 5]
    for _ in range(4):
        item = outbox.next()
        assert item
        outbox.sent(item)
        if item.seq == 3:
            outbox.acked(item)
    outbox.link_lost()
    order.remove(3)
    assert drain(outbox) == order


def test_what_was_in_flight_when_the_link_was_lost_is_marked_as_well() -> None:
    outbox = Outbox(4, mark=lambda data: b"!" + data)
    outbox.link_up()
    put(outbox, 0)
    first = outbox.next()
    assert first
    assert not first.data.startswith(b"!")
    outbox.sent(first)
    outbox.link_lost()
    outbox.link_up()
    again = outbox.next()
    assert again is first
    assert again.data.startswith(b"!")


def test_an_item_that_was_never_acknowledged_is_known_as_a_repeat() -> None:
    outbox = Outbox(2)
    put(outbox, 0)
    item = outbox.next()
    assert item
    assert item.attempts == 0
    outbox.sent(item)
    outbox.link_lost()
    again = outbox.next()
    assert again is item
    assert again.attempts == 1


def test_qos_0_is_done_when_it_is_sent() -> None:
    outbox = Outbox(2)
    outbox.link_up()
    put(outbox, 0, qos=0)
    assert drain(outbox) == [0]
    outbox.link_lost()
    assert len(outbox) == 0
    assert outbox.next() is None


def test_an_acknowledgement_out_of_nowhere_changes_nothing() -> None:
    outbox = Outbox(2)
    put(outbox, 0)
    item = outbox.next()
    assert item
    outbox.acked(item)
    assert len(outbox) == 1
    outbox.sent(item)
    outbox.acked(item)
    outbox.acked(item)
    assert len(outbox) == 0


def test_an_item_shed_between_next_and_sent_is_gone() -> None:
    outbox = Outbox(1)
    put(outbox, 0, BACKGROUND)
    item = outbox.next()
    assert item
    put(outbox, 1, CONTROL)
    outbox.sent(item)
    assert len(outbox) == 1
    assert drain(outbox) == [1]


def test_what_waited_through_an_outage_is_marked_when_it_goes() -> None:
    outbox = Outbox(20, mark=lambda data: data + b" old")
    put(outbox, 0, data=b"a")
    put(outbox, 1, data=b"state", retain=True)
    outbox.link_up()
    put(outbox, 2, data=b"b")
    told = []
    while (item := outbox.next()) is not None:
        assert outbox.next() is item
        told.append(item.data)
        outbox.sent(item)
    assert told == [b"a old", b"state", b"b"]


def test_new_state_takes_the_place_of_the_one_that_still_waits() -> None:
    outbox = Outbox(20)
    for seq, topic in enumerate(["a", "b", "a", "a"]):
        put(outbox, seq, CONTROL, topic=topic, retain=True)
    assert (outbox.superseded, outbox.dropped) == (2, 0)
    assert drain(outbox) == [1, 3]
    assert outbox.take_drops() == [[0, 0], [2, 2]]


def test_a_view_is_copied() -> None:
    outbox = Outbox(2)
    buffer = bytearray(b"abc")
    put(outbox, 0, data=memoryview(buffer))
    buffer[0] = 0
    item = outbox.next()
    assert item
    assert item.data == b"abc"


def test_drops_are_told_as_ranges_once() -> None:
    outbox = Outbox(1)
    for seq in range(5):
        put(outbox, seq, BACKGROUND)
    put(outbox, 9, CONTROL)
    put(outbox, 7, BACKGROUND)
    put(outbox, 6, BACKGROUND)
    assert outbox.take_drops() == [[0, 4], [6, 7]]
    assert outbox.take_drops() == []
    for seq in range(0, 100, 2):
        put(outbox, seq, BACKGROUND)
    assert outbox.take_drops() == [[seq, seq] for seq in range(68, 100, 2)]


def test_an_unknown_priority_is_refused() -> None:
    with pytest.raises(KeyError):
        put(Outbox(1), 0, "urgent")


actions = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "send", "ack", "lost", "up"]),
        st.sampled_from(PRIORITIES),
        st.integers(0, 1),
        st.integers(0, 30),
    ),
    max_size=80,
)


@given(actions, st.integers(1, 6))
def test_every_message_is_delivered_or_counted_as_dropped(
    steps: list[tuple[str, str, int, int]], limit: int
) -> None:
    outbox = Outbox(limit, 120)
    flying: list[Item] = []
    done: list[int] = []
    put_in = 0
    for action, priority, qos, size in steps:
        if action == "put":
            put(outbox, put_in, priority, qos, data=b"x" * size)
            put_in += 1
        elif action == "send" and (item := outbox.next()) is not None:
            outbox.sent(item)
            (flying.append if item.qos else lambda sent: done.append(sent.seq))(item)
        elif action == "ack" and flying:
            done.append(flying[0].seq)
            outbox.acked(flying.pop(0))
        elif action == "lost":
            outbox.link_lost()
            flying = []
        elif action == "up":
            outbox.link_up()
        assert len(outbox) <= limit
    outbox.link_lost()
    left = []
    while (item := outbox.next()) is not None:
        left.append(item.seq)
        outbox.sent(item)
        outbox.acked(item)
    assert len(outbox) == 0
    assert len(done) + len(left) + outbox.dropped == put_in
    assert not set(done) & set(left)


def test_outbox_that_has_to_make_room_sheds_half_and_stays_that_small() -> None:
    outbox = Outbox(100, max_bytes=16_384)
    for seq in range(40):
        put(outbox, seq, CONTROL if seq % 4 == 0 else NORMAL)
    flying = outbox.next()
    assert flying is not None
    outbox.sent(flying)
    outbox.shrink()
    left = len(outbox)
    put(outbox, 40)

    assert left <= 20
    assert len(outbox) == left
    outbox.acked(flying)
    assert [item.seq for item in iter(outbox.next, None) if outbox.sent(item) is None][:9] == [
        *range(4, 40, 4)
    ]
    assert sum(last - first + 1 for first, last in outbox.take_drops()) == 41 - left
