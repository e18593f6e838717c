"""The updates service between real brokers, and a board that says what it likes."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from firmware.update_pack import SIGNER
from hub.update_voice import Voice
from nervus.runtime.files import write_private
from nervus.runtime.services import ServiceContext
from nervus.updates import Order, Orders, Pack, read_record
from nervus.updates import service as updates_service
from nervus.wire import Publish, topics
from nervus.wire.encodings import decode
from support import House
from system.command_clients import Client, beside, now_ms
from system.command_clients import until as until_within

# Two starts of the service, and a broker that is told of a board's rights.
pytestmark = pytest.mark.timeout(60)

FILES = {"spinal/runtime.mpy": bytes(range(256)) * 9, "app.py": b"x" * 64}
PACK = Pack.signed("0.2.0", FILES, SIGNER)
IDS = ("01KAJ6Y9A3Q5W8B1C2D3E4F5G6", "01KAJ6Y9A3Q5W8B1C2D3E4F5G7")


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until a condition holds, also where many others use the machine."""
    return await until_within(condition, 15)


class Board(Client):
    """A board's connection; what it is sent, decoded."""

    def __init__(self, house: House) -> None:
        offered = (topics.UPDATE_OFFER, topics.CHUNK)
        super().__init__(house, "b1", "spinal", *(s.filter(device_id="b1") for s in offered))

    def about(self, contract: str) -> list[dict[str, Any]]:
        messages = [decode(packet.payload) for packet in self.received]
        return [each for each in messages if each["meta"]["contract"] == contract]

    def say(self, said: Any) -> None:
        """Send what a voice says."""
        self.send(Publish(said.address, said.message))


@pytest.fixture
def served(running_house: House) -> House:
    for name, role in (("updater", "updater"), ("reflect", "reflect")):
        running_house.authority.issue(name, role)
    running_house.authority.issue("b2", "board", "room/kitchen")
    running_house.join("b1", "board", "room/kitchen")
    return running_house


@asynccontextmanager
async def serving(house: House) -> AsyncIterator[None]:
    ready = asyncio.Event()
    context = ServiceContext(
        "updates", house.settings, house.state, time.time_ns(), int(time.time()), ready.set
    )
    async with beside(updates_service.run(context)):
        await until(ready.is_set)
        yield


def order(house: House, update_id: str = IDS[0], *devices: str, pack: Pack = PACK) -> Orders:
    orders = Orders.of(house.state.data)
    wanted = Order(
        update_id=update_id, devices=devices or ("b1",), asked_ms=now_ms(), asked_by="ada"
    )
    write_private(orders.pack(update_id), pack.data)
    write_private(orders.order(update_id), wanted.model_dump_json())
    return orders


def states(house: House, update_id: str = IDS[0]) -> dict[str, str]:
    stored = read_record(house.state.data)
    return {each.device_id: each.state for each in stored.boards if each.update_id == update_id}


async def test_a_board_is_served_and_what_it_should_not_ask_is_told_to_reflect(
    served: House,
) -> None:
    board, voice = Board(served), Voice(clock=now_ms)
    reflect = Client(served, "reflect", "core", topics.REJECT.filter())
    async with serving(served), beside(board.session.run(), reflect.session.run()):
        for client in (board, reflect):
            await client.session.wait_connected()
        orders = order(served)
        (offer,) = await until(lambda: board.about("UpdateOffer"))
        assert offer["payload"] == PACK.offer.model_dump(exclude_none=True)
        assert offer["meta"]["source"] == "updater"
        for asked in ({"path": "secret.py"}, {"offset": 1}, {"version": "9.9.9"}):
            board.say(voice.ask(**{"path": "spinal/runtime.mpy", **asked}))
        board.say(voice.ask("spinal/runtime.mpy", 1024))
        (chunk,) = await until(lambda: board.about("Chunk"))
        rejects = await until(lambda: len(reflect.about("RejectEvent")) >= 2 and reflect.received)
        assert chunk["payload"]["offset"] == 1024
        assert rejects
        told = [each["payload"] for each in reflect.about("RejectEvent")]
        assert {each["reason_code"] for each in told} == {"unknown_name", "schema_invalid"}
        assert told[0]["reason"] == "there is no secret.py in 0.2.0"
        assert {each["input_ref"]["source"] for each in told} == {"device:b1"}
        board.say(voice.report("probation", "succeeded"))
        await until(lambda: states(served) == {"b1": "confirmed"})
        # What no board needs any more is not kept.
        await until(lambda: not list(orders.path.iterdir()))


async def test_orders_survive_a_restart_and_a_pack_that_changed_stops_its_own(
    served: House, caplog: pytest.LogCaptureFixture
) -> None:
    board, voice = Board(served), Voice(clock=now_ms)
    async with beside(board.session.run()):
        await board.session.wait_connected()
        async with serving(served):
            orders = order(served, IDS[0], "b1")
            order(served, IDS[1], "b2")
            (orders.path / "WRONG.json").write_text("{}")
            await until(lambda: board.about("UpdateOffer"))
            board.say(voice.ask("app.py"))
            await until(lambda: board.about("Chunk"))
            await until(lambda: states(served) == {"b1": "pulling"})
            await until(lambda: states(served, IDS[1]) == {"b2": "offered"})
        offered = len(board.about("UpdateOffer"))
        write_private(orders.pack(IDS[1]), Pack.signed("0.2.0", {"app.py": b"evil"}, SIGNER).data)
        async with serving(served):
            await until(lambda: len(board.about("UpdateOffer")) > offered)
            assert states(served, IDS[1]) == {"b2": "held"}
            board.say(voice.ask("spinal/runtime.mpy"))
            await until(lambda: len(board.about("Chunk")) == 2)
            write_private(orders.withdrawal(IDS[0]), "grace")
            orders.order(IDS[0]).unlink()
            await until(lambda: states(served) == {"b1": "held"})
            await until(lambda: not list(orders.path.glob(f"{IDS[0]}.*")))
    rollouts = {each.update_id: each for each in read_record(served.state.data).rollouts}
    assert rollouts[IDS[0]].stopped == "withdrawn by grace"
    assert rollouts[IDS[1]].stopped == "its pack is lost"
    assert rollouts[IDS[0]].asked_by == "ada"
    assert "its pack is another one now" in caplog.text
    assert caplog.text.count("WRONG.json") == 2  # once for each start
    with sqlite3.connect(served.state.data / "updates.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
