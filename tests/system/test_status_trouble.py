"""What a part suffers from is what `nervus status` says, from the first failure to the last."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nervus.runtime.child import Child
from nervus.runtime.services import SERVICES, ensure_identities
from nervus.runtime.status import read_status
from nervus.runtime.supervision import Timing
from nervus.runtime.system import run_system
from support import House, broker_processes

# A service, a command and brokers to start, one after the other.
pytestmark = pytest.mark.timeout(60)

NERVUS = (sys.executable, "-m", "nervus")
PATIENCE_S = 15


@asynccontextmanager
async def supervised(house: House, *children: Child) -> AsyncIterator[None]:
    stop = asyncio.Event()
    system = asyncio.create_task(
        run_system(house.state, [], children, stop, timing=Timing(first_pause_ms=10_000))
    )
    try:
        yield
    finally:
        stop.set()
        await system


async def told(house: House, name: str, word: str) -> dict[str, Any]:
    """Wait until a child's trouble holds a word, or is none; what is told of it then."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = read_status(house.state)
            for child in status["children"] if status else ():
                if child["name"] == name and (
                    word in child["trouble"] if word else not child["trouble"]
                ):
                    return dict(child)
            await asyncio.sleep(0.02)


async def typed(house: House) -> tuple[int, str]:
    """`nervus status` at a terminal: its exit code and what it printed."""
    command = [*NERVUS, "status", "--state", str(house.state.path)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return done.returncode, done.stdout


async def test_a_service_without_its_broker_says_so_until_it_is_there(house: House) -> None:
    service = SERVICES["history"]
    ensure_identities(house.authority, [service])
    command = (*NERVUS, "run", "--state", str(house.state.path), service.name)
    async with supervised(house, Child(service.name, command)):
        child = await told(house, "history", "Connection refused")
        assert child["trouble"].startswith("history at core: ")
        code, text = await typed(house)
        assert (code, "history: history at core: " in text) == (1, True)
        with broker_processes(house):
            assert (await told(house, "history", ""))["restarts"] == 0
        await told(house, "history", "history at core: ")


async def test_a_child_that_ended_says_how_until_it_serves_again(house: House) -> None:
    code = "print('the store is damaged'); raise SystemExit(3)"
    async with supervised(house, Child("broken", (sys.executable, "-c", code))):
        child = await told(house, "broken", "ended")
        assert child["trouble"] == "ended (exit code 3): the store is damaged"
        exit_code, text = await typed(house)
        assert (exit_code, f"broken: {child['trouble']}" in text) == (1, True)
