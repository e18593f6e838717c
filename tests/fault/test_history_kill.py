"""SIGKILL of history while it records: what it acknowledged is there, once, without a gap."""

import asyncio
import sqlite3
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from hub.plain_broker import running, within
from hub.plane_inputs import bundle_payload
from nervus.bus import Session
from nervus.runtime.services import ServiceContext
from nervus.wire import Mint, encode, topics
from nervus.wire.contracts import RelayBundle
from support import House

KILLS = 2
ROOMS = ("kitchen", "hall")

SERVICE = textwrap.dedent("""\
    import asyncio, sys, time
    from pathlib import Path
    from nervus.history import service
    from nervus.runtime.services import ServiceContext
    from nervus.runtime.settings import Settings
    from nervus.runtime.state import StateFolder

    state = StateFolder.open(Path(sys.argv[1]))
    settings = Settings.load(state.settings_file)
    ready = lambda: print("ready", flush=True)
    asyncio.run(service.run(
        ServiceContext("history", settings, state, time.time_ns(), int(time.time()), ready)
    ))
""")


async def started(house: House) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, str(house.state.path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(15):
        assert await process.stdout.readline() == b"ready\n"
    return process


def recorded(path: Path) -> list[tuple[str, int, str]]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(
            "SELECT scope, sequence, message_id FROM messages ORDER BY number"
        ).fetchall()


@pytest.mark.timeout(60)  # three starts of a service, each some seconds on a busy machine
@pytest.mark.req("S4-41")
async def test_a_killed_history_leaves_no_gap_and_no_double(running_house: House) -> None:
    for name in ("history", "relay"):
        running_house.join(name, name)
    path = running_house.state.data / "history.db"
    context = ServiceContext(
        "test", running_house.settings, running_house.state, 1, 1, lambda: None
    )
    relay = Session("relay", "core", context.session_config("relay", "core"))
    mint = Mint("relay", "thalamus", seed=5, boot=1)

    async def publish(number: int) -> str:
        address = topics.gated_relay("room", ROOMS[number % 2], "somatic")
        now_ms = time.time_ns() // 1_000_000
        message = mint.full(RelayBundle, address, bundle_payload(), now_ms, priority="critical")
        await relay.publish(address.topic, encode(message.message), qos=1)
        return str(message.message.meta.message_id)

    async with running(relay):
        before: list[tuple[str, int, str]] = []
        for _ in range(KILLS):
            service = await started(running_house)
            known = len(before)
            sent = 0
            while len(recorded(path)) < known + 20:
                await publish(sent)
                sent += 1
                assert sent < 5_000
            service.kill()
            await service.wait()
            after = recorded(path)
            assert after[: len(before)] == before
            before = after
        service = await started(running_house)
        last = [await publish(number) for number in range(10)]
        await within(lambda: set(last) <= {ident for _, _, ident in recorded(path)}, 15)
        service.terminate()
        await service.wait()
    rows = recorded(path)
    assert len({ident for _, _, ident in rows}) == len(rows)
    for room in ROOMS:
        sequences = [sequence for scope, sequence, _ in rows if scope == room]
        assert sequences == list(range(1, len(sequences) + 1))
        assert len(sequences) > KILLS * 8
