"""Brainstem as a service: what it tells everybody, on two real brokers with generated rights."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hub.plain_broker import running, within
from nervus.brainstem import service
from nervus.bus import Delivery, Session, subscriptions
from nervus.runtime.services import ServiceContext
from nervus.wire import Guard, Mint, Publish, encode, timestamp, topics, unix_ms
from nervus.wire.contracts import (
    ParameterUpdate,
    ParameterUpdatePayload,
    PatternResponse,
    PatternResponsePayload,
    PatternTrigger,
    PatternTriggerPayload,
)
from support import House

KITCHEN = ("room", "kitchen")
ROLES = {
    "brainstem": "brainstem", "watcher": "observer", "detector": "trigger-source",
    "lamp": "responder", "tuner": "controller", "reflect": "reflect",
}  # fmt: skip


def now() -> int:
    return time.time_ns() // 1_000_000


class Parts:
    """Who talks with brainstem, and what each has heard."""

    def __init__(self, house: House) -> None:
        table = {"alert_half_life_ms": 5_000}
        self.house = house
        self.settings = house.settings.model_copy(update={"brainstem": table})
        self.heard: dict[str, list[Any]] = {name: [] for name in (*ROLES, "b1")}
        self.qos: dict[str, set[int]] = {name: set() for name in self.heard}
        self.sessions = {
            "watcher": self._session("watcher", "core", topics.GLOBAL_ALERT),
            "lamp": self._session("lamp", "core", topics.PATTERN_REQUEST),
            "reflect": self._session("reflect", "core", topics.REJECT),
            "detector": self._session("detector", "core"),
            "tuner": self._session("tuner", "core"),
            "b1": self._session(
                "b1", "spinal", topics.GLOBAL_ALERT, topics.GLOBAL_PARAMETERS,
                scope_level="room", scope="kitchen",
            ),
        }  # fmt: skip

    def context(self, name: str, ready: asyncio.Event) -> ServiceContext:
        return ServiceContext(
            name=name, settings=self.settings, state=self.house.state, seed=time.time_ns(),
            boot=int(time.time()), on_ready=ready.set,
        )  # fmt: skip

    @asynccontextmanager
    async def brainstem(self) -> AsyncIterator[None]:
        """The service, until the block ends."""
        ready = asyncio.Event()
        task = asyncio.create_task(service.run(self.context("brainstem", ready)))
        async with asyncio.timeout(15):
            await ready.wait()
        yield
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError), result

    async def say(self, name: str, publish: Publish) -> None:
        spec = publish.address.spec
        await self.sessions[name].publish(
            publish.address.topic, encode(publish.message), qos=spec.qos, retain=spec.retained
        )

    def _session(self, name: str, broker: Any, *specs: Any, **levels: str) -> Session:
        def hear(delivery: Delivery) -> None:
            verdict = Guard(topics.TOPICS).judge(delivery.packet, now())
            self.heard[name].append(verdict.message)  # type: ignore[union-attr]
            self.qos[name].add(delivery.qos)
            delivery.acknowledge()

        address = self.context("test", asyncio.Event()).session_config(name, broker)
        # As parts subscribe themselves.
        session = Session(name, broker, address, filters=subscriptions(specs, **levels))
        session.attach(hear)
        return session


@pytest.fixture
async def parts(running_house: House) -> AsyncIterator[Parts]:
    for name, role in ROLES.items():
        running_house.authority.issue(name, role)
    running_house.join("b1", "board", "room/kitchen")
    everybody = Parts(running_house)
    async with running(*everybody.sessions.values()):
        yield everybody


def a_trigger(cause: str) -> Publish:
    payload = PatternTriggerPayload(pattern_type="startle", trigger=cause, urgency=1)
    mint = Mint("detector", "consumer", seed=time.time_ns(), boot=1)
    address = topics.pattern_trigger(*KITCHEN, "startle")
    return mint.full(PatternTrigger, address, payload, now(), deadline_ms=5_000)


@pytest.mark.req("S1-5", "S1-6", "S1-12", "S1-32", "S1-69")
async def test_an_alert_reaches_parts_and_boards_and_goes_on_falling_after_a_restart(
    parts: Parts,
) -> None:
    watched, board = parts.heard["watcher"], parts.heard["b1"]
    async with parts.brainstem():
        await parts.say("detector", a_trigger("glass breaks"))
        await within(lambda: watched and board and parts.heard["lamp"], 15)
        assert watched[0].payload == board[0].payload
        assert watched[0].meta.message_id == board[0].meta.message_id
        assert (watched[0].payload.state, watched[0].payload.level) == ("high_alert", 0.9)
        (request,) = parts.heard["lamp"]
        payload = PatternResponsePayload(
            request_id=request.payload.request_id, pattern_type="startle", status="completed"
        )
        mint = Mint("lamp", "consumer", seed=time.time_ns(), boot=1)
        address = topics.pattern_report(*KITCHEN, "startle")
        await parts.say("lamp", mint.full(PatternResponse, address, payload, now()))
        # The same answer again is one too many: brainstem had taken the first.
        await parts.say("lamp", mint.full(PatternResponse, address, payload, now()))
        await within(lambda: parts.heard["reflect"], 15)
        assert parts.heard["reflect"][0].payload.reason_code == "expired"
    last, restarted_ms = watched[-1].payload.level, now()

    def of_the_second() -> list[float]:
        made = [(unix_ms(word.meta.produced_at), word.payload.level) for word in watched]
        return [level for produced_ms, level in made if produced_ms >= restarted_ms]

    async with parts.brainstem():
        await within(of_the_second, 15)
        assert 0 <= max(of_the_second()) < last
    assert (parts.qos["watcher"], parts.qos["b1"]) == ({1}, {1})


@pytest.mark.req("S1-12", "S1-18", "S1-60", "S1-71")
async def test_a_trigger_nobody_declared_and_a_parameter_for_the_boards(parts: Parts) -> None:
    async with parts.brainstem():
        await parts.say("detector", a_trigger("boredom"))
        await within(lambda: parts.heard["reflect"], 15)
        (reject,) = parts.heard["reflect"]
        assert (reject.payload.reason_code, reject.meta.source) == ("unknown_name", "brainstem")
        assert reject.payload.input_ref.contract == "PatternTrigger"
        assert parts.qos["reflect"] == {0}
        payload = ParameterUpdatePayload(name="brightness", value=5, version=1)
        mint = Mint("tuner", "consumer", seed=time.time_ns(), boot=1)
        update = mint.full(
            ParameterUpdate, topics.global_parameters(*KITCHEN), payload, now(),
            expires_at=timestamp(now() + 60_000),
        )  # fmt: skip
        await parts.say("tuner", update)
        await within(lambda: parts.heard["b1"], 15)
        (copy,) = parts.heard["b1"]
        assert copy.payload == payload
        assert copy.meta.message_id == update.message.meta.message_id
    assert parts.heard["lamp"] == []
