"""The command service between real brokers: a request becomes an act, an audit row, an outcome."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from hub.command_inputs import POLICY, Ask, World, action_id
from nervus.policy import announcements, service, verify_file
from nervus.policy.record import Announce
from nervus.runtime.files import write_private
from nervus.runtime.services import ServiceContext
from nervus.wire import topics
from support import House
from system.command_clients import (
    BoardClient,
    Client,
    Operator,
    beside,
    command_house,
    now_ms,
    until,
)

RULE = {
    "reflex_id": "cool",
    "version": 1,
    "enabled": True,
    "mode": "active",
    "when": {"sensor": "temperature", "op": "gt", "value": 30.5, "hysteresis": 0.5},
    "then": [{"actuator": "fan", "set": True}],
}


@pytest.fixture
async def serving(running_house: House) -> AsyncIterator[House]:
    """The command service runs."""
    house, ready = command_house(running_house), asyncio.Event()
    async with beside(service.run(context(house, ready))):
        await until(ready.is_set)
        yield house


TROUBLES: dict[str, str | None] = {}
"""What `nervus status` would say that the parts suffer from."""


def context(house: House, ready: asyncio.Event) -> ServiceContext:
    TROUBLES.clear()
    return ServiceContext(
        "command", house.settings, house.state, now_ms(), 1, ready.set,
        on_trouble=TROUBLES.__setitem__,
    )  # fmt: skip


@pytest.mark.req("S0-6", "S1-73", "S3-63")
async def test_a_request_over_mqtt_moves_an_actuator_and_is_audited(serving: House) -> None:
    operator, board = Operator(serving), BoardClient(serving)
    observer = Client(serving, "observer", "core", topics.COMMAND.filter())
    async with beside(operator.session.run(), board.session.run(), observer.session.run()):
        for client in (operator, board, observer):
            await client.session.wait_connected()
        await board.begin()
        action, denied = action_id(now_ms()), action_id(now_ms())
        operator.send(Ask(action, claimed="core").sent(now_ms(), operator.mint))
        operator.send(Ask(denied, actuator="door").sent(now_ms(), operator.mint))
        outcomes = await until(lambda: len(operator.outcomes()) == 2 and operator.outcomes())
        commands = await until(lambda: observer.about("Command"))
    assert outcomes[action]["payload"]["status"] == "succeeded"
    assert outcomes[denied]["payload"]["status"] == "rejected"
    assert outcomes[denied]["errors"][0]["category"] == "policy"
    assert list(board.done) == [action]
    assert [each["meta"]["principal"] for each in commands] == ["operator"]
    await until(lambda: not _announced(serving))
    # One row for the rules that were loaded, one for each request.
    assert verify_file(serving.state.data / "command.db").rows == 3


async def test_a_ping_is_answered_and_a_reflex_file_reaches_its_board(serving: House) -> None:
    board = BoardClient(serving)
    async with beside(board.session.run()):
        await board.session.wait_connected()
        board.online()
        board.ping()
        (pong,) = await until(lambda: board.about("Pong"))
        assert (pong["payload"]["scope_level"], pong["payload"]["scope"]) == ("room", "kitchen")
        folder = serving.state.path / "reflexes" / "b1"
        folder.mkdir(parents=True)
        (folder / "broken.json").write_text('{"reflex_id": "broken"}')
        (folder / "cool.json").write_text(json.dumps(RULE))
        (rule, *_) = await until(lambda: board.about("ReflexConfigure"))
        assert rule["payload"] == RULE
        # Its report has been taken: the rule is not sent again, though that was due after a second.
        await board.pinged()
        sent = len(board.about("ReflexConfigure"))
        await asyncio.sleep(1.5)
        assert len(board.about("ReflexConfigure")) == sent


@pytest.mark.req("S4-46")
async def test_a_policy_file_that_goes_wrong_stops_everything_until_it_is_right(
    serving: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    operator, board = Operator(serving), BoardClient(serving)
    async with beside(operator.session.run(), board.session.run()):
        for client in (operator, board):
            await client.session.wait_connected()
        await board.begin()
        write_private(serving.state.policy_file, POLICY.replace("deny", "perhaps"))
        await until(lambda: "nothing is allowed" in caplog.text)
        assert "nothing is allowed until it is right" in (TROUBLES["policy"] or "")
        first, second = action_id(now_ms()), action_id(now_ms())
        operator.send(Ask(first).sent(now_ms(), operator.mint))
        outcome = await until(lambda: operator.outcomes().get(first))
        assert outcome["errors"][0]["code"] == "policy_unavailable"
        assert "policy.toml:22: rule not-the-door: effect" in caplog.text
        caplog.clear()
        write_private(serving.state.policy_file, POLICY)
        await until(lambda: "is in force" in caplog.text)
        assert TROUBLES["policy"] is None
        operator.send(Ask(second).sent(now_ms(), operator.mint))
        outcome = await until(lambda: operator.outcomes().get(second))
        assert outcome["payload"]["status"] == "succeeded"


async def test_a_new_installation_gets_a_policy_that_allows_nothing(running_house: House) -> None:
    house = command_house(running_house)
    house.state.policy_file.unlink()
    ready, operator = asyncio.Event(), Operator(house)
    async with beside(service.run(context(house, ready)), operator.session.run()):
        await until(ready.is_set)
        await operator.session.wait_connected()
        action = action_id(now_ms())
        operator.send(Ask(action).sent(now_ms(), operator.mint))
        outcome = await until(lambda: operator.outcomes().get(action))
    assert outcome["errors"][0]["code"] == "no_rule"
    assert "deny" in house.state.policy_file.read_text()


async def test_a_command_decided_and_not_published_reaches_observers_after_the_restart(
    running_house: House,
) -> None:
    house = command_house(running_house)
    world, database = World(), house.state.data / "command.db"
    world.now_ms = now_ms()
    effects = [*world.ask(Ask(action_id(now_ms()))), *world.ask(Ask(action_id(now_ms())))]
    late, told = [each for each in effects if isinstance(each, Announce)]
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        # Each statement commits: a slow disk would take longer for them than a test may.
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript("".join(service.STORE_SCHEMA) + "PRAGMA user_version = 2;")
        announcements.append(connection, [late, told])
        # The first has been waiting since yesterday.
        connection.execute(
            "UPDATE announcements SET message = replace(message, ?, ?) WHERE number = 1",
            (late.publish.message.meta.produced_at, "2026-01-01T00:00:00.000Z"),
        )
    observer, ready = Client(house, "observer", "core", topics.COMMAND.filter()), asyncio.Event()
    async with beside(observer.session.run()):
        await observer.session.wait_connected()
        async with beside(service.run(context(house, ready))):
            (command,) = await until(lambda: observer.about("Command"))
            await until(lambda: not _announced(house))
    assert command["meta"]["message_id"] == told.publish.message.meta.message_id
    assert len(observer.received) == 1


def _announced(house: House) -> list[str]:
    with closing(sqlite3.connect(house.state.data / "command.db")) as connection:
        return [row[0] for row in connection.execute("SELECT message_id FROM announcements")]
