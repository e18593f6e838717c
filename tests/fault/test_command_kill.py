"""SIGKILL of the command service at random moments of a stream of commands."""

import asyncio
import random
import sqlite3
import sys
import textwrap
import time

import pytest

from hub.command_inputs import Ask, action_id
from nervus.policy import verify_file
from nervus.wire import topics
from support import DIES_WITH_US, House, reaping
from system.command_clients import (
    BoardClient,
    Client,
    Operator,
    beside,
    command_house,
    now_ms,
    until,
)

pytestmark = pytest.mark.usefixtures("unmeasured")

KILLS = 5

SERVICE = textwrap.dedent("""\
    import asyncio, sys, time
    from pathlib import Path
    from nervus.policy import service
    from nervus.runtime.services import ServiceContext
    from nervus.runtime.settings import Settings
    from nervus.runtime.state import StateFolder

    state = StateFolder.open(Path(sys.argv[1]))
    settings = Settings.load(state.settings_file)
    ready = lambda: print("ready", flush=True)
    boot = int(time.time())
    asyncio.run(service.run(
        ServiceContext("command", settings, state, time.time_ns(), boot, ready)
    ))
""")


class Service:
    """The command service in a process of its own, to be killed."""

    def __init__(self, house: House, lives: list[asyncio.subprocess.Process]) -> None:
        self._path = str(house.state.path)
        self._lives = lives

    async def start(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *DIES_WITH_US, sys.executable, "-c", SERVICE, self._path, stdout=asyncio.subprocess.PIPE
        )
        self._lives.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"ready\n"

    async def kill(self) -> None:
        self._lives[-1].kill()
        await self._lives[-1].wait()


@pytest.mark.req("S0-6", "S4-82")
@pytest.mark.timeout(120)  # six starts of an interpreter, and the waiting between them
async def test_every_accepted_command_has_one_outcome_however_often_the_service_dies(
    running_house: House,
) -> None:
    house = command_house(running_house)
    operator, board = Operator(house), BoardClient(house)
    observer = Client(house, "observer", "core", topics.COMMAND.filter())
    seed = time.time_ns()
    print("moments drawn from", seed)  # noqa: T201 - shown when the test fails
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    actions: list[str] = []

    async def request_again_and_again() -> None:
        """What callers do: a new action now and then, and all that were not answered again."""
        while True:
            if len(actions) < 400:
                actions.append(action_id(now_ms()))
            for action in [each for each in actions if each not in operator.accepted()][-20:]:
                operator.send(Ask(action, deadline_ms=60_000).sent(now_ms(), operator.mint))
            await asyncio.sleep(0.02)

    clients = [client.session.run() for client in (operator, board, observer)]
    async with reaping() as lives, beside(*clients):
        service = Service(house, lives)
        for client in (operator, board, observer):
            await client.session.wait_connected()
        board.online()
        await service.start()
        async with beside(request_again_and_again()):
            for _ in range(KILLS):
                await asyncio.sleep(moments.uniform(0.05, 0.8))
                await service.kill()
                await service.start()
            await asyncio.sleep(0.3)
        accepted = operator.accepted()
        assert len(accepted) > KILLS
        await until(lambda: accepted <= operator.outcomes().keys(), 15)
        await until(lambda: accepted <= commands(observer).keys(), 15)
        await service.kill()
    # What went out first is what every repeat says, and what is stored: see Operator.outcomes.
    assert {each["payload"]["status"] for each in operator.outcomes().values()} == {"succeeded"}
    assert board.done.keys() >= accepted
    database = house.state.data / "command.db"
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT action_id, stage FROM actions").fetchall()
        (allowed,) = connection.execute(
            "SELECT SUM(allowed) FROM audit WHERE kind = 'invocation'"
        ).fetchone()
    connection.close()
    assert accepted <= {action for action, stage in rows if stage == "finished"}
    # Observers were told of each, under one message_id however often.
    assert {len(ids) for ids in commands(observer).values()} == {1}
    # Decision, audit and acceptance were one transaction each time.
    assert allowed == len(rows)
    assert verify_file(database).rows >= len(rows)


def commands(observer: Client) -> dict[str, set[str]]:
    """Message ids of the Commands seen, by action."""
    found: dict[str, set[str]] = {}
    for each in observer.about("Command"):
        meta = each["meta"]
        found.setdefault(meta["action_id"], set()).add(meta["message_id"])
    return found
