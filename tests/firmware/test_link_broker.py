"""The link over real sockets to a real mosquitto."""

import asyncio
import json
import select
import time
from collections.abc import Callable, Iterator

import aiomqtt
import pytest

from firmware.rigs import Broker, FaultProxy
from spinal import compat
from spinal.link import UP, Link, Settings


class Board:
    """A link with the loop around it that a board has, as a task."""

    def __init__(self, port: int, **changes: int) -> None:
        self.session = 0
        self.ups = 0
        self.downs: list[str] = []
        self.lost: list[object] = []
        self.acked: list[object] = []
        self.messages: list[tuple[bytes, bytes, bool]] = []
        self.oversize: list[bytes] = []
        changes = {"backoff_ms": 50, "backoff_cap_ms": 200, **changes}
        config = Settings("m1", "127.0.0.1", port, **changes)
        self.link = Link(config, self, compat.Dialler(), lambda: True, compat.random_below)

    async def run(self) -> None:
        while True:
            now = compat.ticks()
            self.link.poll(now)
            await asyncio.sleep(0.002 if not self.link.busy else 0)

    async def until(self, reached: Callable[[], bool], timeout_s: float = 10) -> None:
        task = asyncio.create_task(self.run())
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    assert not task.done() or task.result() is None
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()

    def link_will(self) -> tuple[str, bytes]:
        self.session += 1
        return "/status/m1", json.dumps({"status": "offline", "session": self.session}).encode()

    def link_filters(self) -> list[tuple[str, int]]:
        return [("/to/m1/+", 1), ("/" + "long" * 40 + "/#", 0)]

    def link_up(self) -> None:
        self.ups += 1

    def link_down(self, reason: str, tickets: list[object]) -> None:
        self.downs.append(reason)
        self.lost += tickets

    def link_message(self, topic: bytes, payload: bytes, *, retained: bool) -> None:
        self.messages.append((topic, payload, retained))

    def link_oversize(self, topic: bytes, _text: str) -> None:
        self.oversize.append(topic)

    def link_acked(self, ticket: object) -> None:
        self.acked.append(ticket)


@pytest.fixture
def board(broker: Broker) -> Iterator[Board]:
    made = Board(broker.port)
    yield made
    made.link.close()


async def test_publishes_go_on_past_packet_id_65535(board: Board) -> None:
    await board.until(lambda: board.link.state == UP)
    board.link._packet_id = 65_500
    sent = 0
    deadline = time.monotonic() + 10
    while len(board.acked) < 100:
        assert time.monotonic() < deadline
        while sent < 100 and board.link.publish("/from/m1", b"x", 1, ticket=sent):
            sent += 1
        board.link.poll(compat.ticks())
        select.select([board.link.sock], [], [], 0.01)

    assert board.acked == list(range(100))
    assert board.link._packet_id == 65


async def test_link_comes_back_with_its_subscriptions_after_a_broker_restart(
    board: Board, broker: Broker
) -> None:
    await board.until(lambda: board.link.state == UP)
    broker.stop()
    await board.until(lambda: bool(board.downs))
    broker.start()
    await board.until(lambda: board.link.state == UP)
    async with aiomqtt.Client("127.0.0.1", broker.port) as hub:
        await hub.publish("/to/m1/order", b"again", qos=1)
        await hub.publish("/" + "long" * 40 + "/x", b"long", qos=1)
    await board.until(lambda: len(board.messages) == 2)

    assert {payload for _, payload, _ in board.messages} == {b"again", b"long"}
    assert board.ups == 2


async def test_messages_unacknowledged_when_the_broker_dies_are_given_back(
    board: Board, broker: Broker
) -> None:
    await board.until(lambda: board.link.state == UP)
    assert board.link.publish("/from/m1", b"x", 1, ticket="kept")
    broker.stop()
    await board.until(lambda: bool(board.downs))

    assert board.lost == ["kept"]


async def test_last_will_names_the_session_that_ended(board: Board, broker: Broker) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port) as hub:
        await hub.subscribe("/status/m1", qos=1)
        await board.until(lambda: board.link.state == UP)
        assert board.link.sock is not None
        board.link.sock.close()  # no DISCONNECT: as when the power goes
        async with asyncio.timeout(5):
            will = await anext(aiter(hub.messages))

    assert json.loads(will.payload) == {"status": "offline", "session": 1}
    assert will.qos == 1


async def test_black_hole_is_noticed_within_one_and_a_half_keepalives(
    black_hole: FaultProxy,
) -> None:
    board = Board(black_hole.port, keepalive_s=2)
    await board.until(lambda: board.link.state == UP)
    black_hole.open = False
    began = time.monotonic()
    await board.until(lambda: bool(board.downs))
    took = time.monotonic() - began
    black_hole.open = True
    await board.until(lambda: board.link.state == UP)
    board.link.close()

    assert board.downs[0] == "ping_timeout"
    # One and a half keepalives, in real time; to the tick in test_link_state.py.
    assert took <= 3.0


async def test_retained_order_is_told_as_retained(board: Board, broker: Broker) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port) as hub:
        await hub.publish("/to/m1/order", b"ghost", qos=1, retain=True)
    await board.until(lambda: bool(board.messages))

    assert board.messages == [(b"/to/m1/order", b"ghost", True)]


async def test_oversized_message_is_passed_over_and_never_offered_again(
    board: Board, broker: Broker
) -> None:
    await board.until(lambda: board.link.state == UP)
    async with aiomqtt.Client("127.0.0.1", broker.port) as hub:
        await hub.publish("/to/m1/large", b"x" * (1 << 20), qos=1)
        await hub.publish("/to/m1/order", b"next", qos=1)
        await board.until(lambda: bool(board.messages))
        board.link.close()
        await board.until(lambda: board.ups == 2)
        await hub.publish("/to/m1/order", b"last", qos=1)
        await board.until(lambda: len(board.messages) == 2)

    assert board.oversize == [b"/to/m1/large"]
    assert board.downs == ["closed"]
    assert [payload for _, payload, _ in board.messages] == [b"next", b"last"]
