"""Sessions that are told to end, at the moments when Python 3.11 and aiomqtt would not hear it."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hub.plain_broker import PlainBroker, within
from nervus.bus import Filter, Limits, Session
from nervus.bus.client import Client
from nervus.runtime.rights import session_of
from support import DEADLINE_S

QUICK = Limits(backoff_base_ms=20, backoff_cap_ms=100)


async def ends(running: "asyncio.Task[Any]") -> bool:
    """Whether a session that was told to end does."""
    await asyncio.wait([running], timeout=DEADLINE_S)
    return running.cancelled()


@pytest.mark.parametrize("answer", ["_on_connect", "_on_subscribe"])
async def test_a_session_ends_that_is_told_so_as_the_broker_answers(
    broker: PlainBroker, client_kind: type[Client], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    original = getattr(client_kind, answer)

    def hear(self: Client, *arguments: Any) -> None:
        original(self, *arguments)
        running.cancel()

    monkeypatch.setattr(client_kind, answer, hear)
    session = Session("part", "core", broker.address, filters=[Filter("t/#", 1)], limits=QUICK)
    running = asyncio.create_task(session.run())
    assert await ends(running)
    assert session.counters.connects == 0


async def test_a_session_ends_that_is_told_so_as_its_link_breaks(
    broker: PlainBroker, client_kind: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = client_kind.disconnected

    async def break_off(self: Client) -> None:
        try:
            await original(self)
        finally:
            running.cancel()

    monkeypatch.setattr(client_kind, "disconnected", break_off)
    session = Session("part", "core", broker.address, limits=QUICK)
    running = asyncio.create_task(session.run())
    await within(lambda: session.connected)
    broker.kill()
    assert await ends(running)


async def test_a_link_that_nobody_waits_for_any_more_does_not_take_the_next_ones_place(
    broker: PlainBroker, client_kind: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = client_kind._client_connect
    loop, connecting, go_on, late = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event(), []

    def connect(self: Client) -> None:
        if not late:
            late.append(self)
            loop.call_soon_threadsafe(connecting.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(DEADLINE_S)
        original(self)

    monkeypatch.setattr(client_kind, "_client_connect", connect)
    first = asyncio.create_task(Session("part", "core", broker.address, limits=QUICK).run())
    async with asyncio.timeout(DEADLINE_S):
        await connecting.wait()
    first.cancel()
    assert await ends(first)
    second = Session("part", "core", broker.address, limits=QUICK)
    running = asyncio.create_task(second.run())
    await within(lambda: second.connected)
    go_on.set()
    await within(lambda: late[0]._misc_task is not None and late[0]._client.socket() is None)
    await second.publish("t/x", b"", qos=1)
    assert second.counters.connects == 1
    running.cancel()
    assert await ends(running)


async def test_whoever_uses_a_session_ends_that_is_told_so_as_the_session_does(
    broker: PlainBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Session.run

    async def run(self: Session) -> None:
        try:
            await original(self)
        finally:
            using.cancel()

    async def use() -> None:
        async with session_of(who, core) as session:
            await session.wait_connected()
        await asyncio.Event().wait()

    monkeypatch.setattr(Session, "run", run)
    listener = SimpleNamespace(connect_host=broker.address.host, port=broker.address.port)
    core: Any = SimpleNamespace(name="core", settings=listener)
    who: Any = SimpleNamespace(name="part", ssl_context=lambda: None)
    using = asyncio.create_task(use())
    assert await ends(using)
