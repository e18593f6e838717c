"""What policy and reliable decided, on real brokers, comes again from their journal to the byte."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hub.command_inputs import POLICY, Ask, action_id
from nervus.bus import JournalRun, JournalSettings
from nervus.bus.journal_file import Happened, Took, Turn
from nervus.cli.app import app
from nervus.policy import service
from nervus.runtime.services import ServiceContext
from nervus.wire import topics
from support import DEADLINE_S, House
from system.command_clients import (
    BoardClient,
    Client,
    Operator,
    beside,
    command_house,
    now_ms,
    until,
)

# Another process, another hash seed: what is written is only what the journal holds.
REPLAY = """
import sys
from pathlib import Path
from nervus.bus import JournalRun
from nervus.runtime.replay import replay_of
agreed = 0
with Path(sys.argv[2]).open("wb") as log:
    for run in JournalRun.all_of(Path(sys.argv[1])):
        replay = replay_of(run.start())
        for one in replay.run(run.records()):
            log.write(one.lines())
            assert one.agrees is not False, one
            agreed += one.agrees is True and bool(one.effects)
        assert replay.exact
print(agreed)
"""
RULE = {
    "reflex_id": "cool", "version": 1, "enabled": True, "mode": "active",
    "when": {"sensor": "temperature", "op": "gt", "value": 30.5, "hysteresis": 0.5},
    "then": [{"actuator": "fan", "set": True}],
}  # fmt: skip
OPT_IN = """
[[raw]]
id = "noise"
topic_prefix = "/sc/aff/event/room/kitchen/sensor/sound_level"
rate = 5
expires = 2100-01-01T00:00:00Z
reason = "it is too long, and refused"
"""


def context(house: House, start: int, ready: asyncio.Event) -> ServiceContext:
    settings = house.settings.model_copy(update={"journal": JournalSettings(enabled=True)})
    boot = int(time.time()) + start
    return ServiceContext("command", settings, house.state, 77 + start, boot, ready.set)


async def live(house: House, operator: Operator, board: BoardClient, start: int) -> None:
    """One start of the service, with requests of all kinds; ended by a cancellation."""
    ready = asyncio.Event()
    async with beside(service.run(context(house, start, ready))):
        await until(ready.is_set)
        await board.begin()
        actions = [action_id(now_ms()) for _ in range(3)]
        allowed, denied, late = actions
        asked = Ask(allowed).sent(now_ms(), operator.mint)
        operator.send(asked)
        operator.send(Ask(denied, actuator="door").sent(now_ms(), operator.mint))
        operator.send(Ask(late, device="b9").sent(now_ms(), operator.mint))
        await until(lambda: set(actions) <= operator.outcomes().keys())
        operator.send(Ask(allowed).sent(now_ms(), operator.mint))  # a repeat
        operator.send(Ask(allowed, actuator="fan").sent(now_ms(), operator.mint))  # a conflict
        await until(lambda: len(operator.about("ErrorEvent")) > start)


@pytest.fixture
async def journal(running_house: House) -> Path:
    house = command_house(running_house)
    operator, board = Operator(house), BoardClient(house)
    observer = Client(house, "observer", "core", topics.COMMAND.filter())
    rules = house.state.path / "reflexes" / "b1"
    rules.mkdir(parents=True)
    async with beside(operator.session.run(), board.session.run(), observer.session.run()):
        for client in (operator, board, observer):
            await client.session.wait_connected()
        (rules / "cool.json").write_text(json.dumps(RULE))
        await live(house, operator, board, 0)
        house.state.policy_file.write_text(POLICY + OPT_IN)
        await live(house, operator, board, 1)
    return house.state.data / "journal" / "command"


async def replayed(journal: Path, log: Path, seed: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REPLAY, str(journal), str(log),
        env=os.environ | {"PYTHONHASHSEED": seed}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(4 * DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return int(output)


@pytest.mark.timeout(120)  # two starts of the service, and two interpreters
@pytest.mark.req("S4-56")
async def test_the_command_service_replays_as_it_was_in_another_process(
    journal: Path, tmp_path: Path
) -> None:
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    agreed = [await replayed(journal, log, str(n)) for n, log in enumerate(logs)]
    assert min(agreed) > 10
    assert logs[0].read_bytes() == logs[1].read_bytes()
    said = logs[0].read_bytes()
    for word in (b"AppendAudit", b"raw_expires_too_late", b"/E/outcome/", b"/C/cmd/", b"/sc/eff/"):
        assert word in said, word
    first, second = JournalRun.all_of(journal)
    records = [*first.records(), *second.records()]
    names = {one.name for one in records if isinstance(one, Happened)}
    assert names >= {"Restored", "RegimeChanged", "Grants", "Desired", "Committed", "Published"}
    assert {one.member for one in records if isinstance(one, Turn)} == {"policy", "reliable"}
    assert any(isinstance(one, Took) for one in records)
    restored = next(o for o in second.records() if isinstance(o, Happened) and o.name == "Restored")
    assert len(restored.data["rows"]) == 3
    shown = _replay(journal, "--json")
    (command,) = json.loads(shown.output)
    assert (command["plane"], command["differed"], command["exact"]) == ("command", 0, True)
    # With other limits the opt-in of 2100 is still too long; one rule of the budget denies.
    other = _replay(journal, "--json", "--set", "command.policy.budget=100")
    assert other.exit_code == 0, other.output
    refused = _replay(journal, "--set", "command.policy.colour=1", catch=True)
    assert "there is no such setting" in str(refused.exception)


def _replay(journal: Path, *arguments: str, catch: bool = False) -> Any:
    state = str(journal.parents[2])
    command = ["replay", "--state", state, "--from", "15m", *arguments]
    return CliRunner().invoke(app, command, catch_exceptions=catch)
