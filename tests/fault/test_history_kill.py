"""SIGKILL of history under traffic: what was sent meanwhile is there too, once, in order."""

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
from support import DIES_WITH_US, House, reaping

pytestmark = pytest.mark.usefixtures("unmeasured")

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


async def started(
    house: House, lives: list[asyncio.subprocess.Process]
) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, sys.executable, "-c", SERVICE, str(house.state.path),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    lives.append(process)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ready\n"
    return process


def recorded(path: Path) -> list[tuple[str, int, str]]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(
            "SELECT scope, sequence, message_id FROM messages ORDER BY number"
        ).fetchall()


@pytest.mark.timeout(120)  # three starts of a service, each some seconds on a busy machine
@pytest.mark.req("S4-41")
async def test_a_killed_history_misses_nothing_and_records_nothing_twice(
    running_house: House,
) -> None:
    for name in ("history", "relay"):
        running_house.join(name, name)
    path = running_house.state.data / "history.db"
    context = ServiceContext(
        "test", running_house.settings, running_house.state, 1, 1, lambda: None
    )
    relay = Session("relay", "core", context.session_config("relay", "core"))
    mint = Mint("relay", "thalamus", seed=5, boot=1)

    sent: list[str] = []

    async def publish() -> None:
        address = topics.gated_relay("room", ROOMS[len(sent) % 2], "somatic")
        # Its life is longer than any start on a busy machine: what expires is nobody's any more.
        message = mint.full(
            RelayBundle, address, bundle_payload(), time.time_ns() // 1_000_000,
            priority="critical", ttl_ms=600_000,
        )  # fmt: skip
        await relay.publish(address.topic, encode(message.message), qos=1, deadline_s=15)
        sent.append(message.message.meta.message_id)

    async def traffic() -> None:
        # A busy house, not a flood: what the broker keeps for one who is away has a limit.
        while True:
            await publish()
            await asyncio.sleep(0.01)

    async with reaping() as lives, running(relay):
        service = await started(running_house, lives)
        talking = asyncio.create_task(traffic())
        before: list[tuple[str, int, str]] = []
        for _ in range(KILLS):
            known = len(before)
            await within(lambda known=known: len(recorded(path)) >= known + 20, 15)
            service.kill()
            await service.wait()
            after = recorded(path)
            assert after[: len(before)] == before
            before = after
            # It goes on while nobody records.
            away = len(sent)
            await within(lambda away=away: len(sent) > away + 20, 15)
            service = await started(running_house, lives)
        talking.cancel()
        await asyncio.wait([talking])
        assert talking.cancelled(), talking.exception()
        await publish()
        await within(lambda: sent[-1] in {ident for _, _, ident in recorded(path)}, 15)
        service.terminate()
        await service.wait()
    rows = recorded(path)
    # What was cut off while it was sent may be there, too, and no other.
    assert [ident for _, _, ident in rows if ident in set(sent)] == sent
    assert len({ident for _, _, ident in rows}) == len(rows) <= len(sent) + 1
    for room in ROOMS:
        sequences = [sequence for scope, sequence, _ in rows if scope == room]
        assert sequences == list(range(1, len(sequences) + 1))
        assert len(sequences) > KILLS * 8
