"""Running services in a process, with real signals and a real notification socket."""

import asyncio
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nervus.runtime.grants import Grants
from nervus.runtime.services import (
    SERVICES,
    ServiceContext,
    UnknownServiceError,
    ensure_identities,
    find_services,
    services_of,
)
from nervus.wire.topics import ROLES
from support import DEADLINE_S, House

if TYPE_CHECKING:
    from nervus.bus import Context

# A stand-in for a plane: what is tested is how the runtime runs one.
PLANE = """
import asyncio
from pydantic import BaseModel, ConfigDict
from nervus.runtime import services
from nervus.runtime.services import Service, run_services
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder
from pathlib import Path

class ReflectSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kept: int = 3

async def run(context):
    ReflectSettings(**context.table("reflect"))
    context.ready()
    BODY

services._entry = lambda service: run
state = StateFolder.open(Path(STATE))
parts = [Service("one", "", ()), Service("two", "", ())]
asyncio.run(run_services(state, Settings.load(state.settings_file), parts))
"""


async def start(house: House, body: str, **environment: str) -> asyncio.subprocess.Process:
    code = PLANE.replace("BODY", textwrap.dedent(body)).replace(
        "STATE", repr(str(house.state.path))
    )
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=os.environ | environment, stderr=asyncio.subprocess.PIPE
    )


async def end(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(DEADLINE_S):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def test_ready_is_told_to_systemd_once_all_services_serve(
    house: House, tmp_path: Path
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(DEADLINE_S)
        process = await start(house, "await asyncio.sleep(60)", NOTIFY_SOCKET=str(address))
        assert await asyncio.to_thread(receiver.recv, 64) == b"READY=1\n"
        process.send_signal(signal.SIGTERM)
        assert await end(process) == (0, "")
        receiver.setblocking(False)  # noqa: FBT003  its only signature
        with pytest.raises(BlockingIOError):
            receiver.recv(64)


async def test_a_service_that_fails_ends_the_process_with_its_reason(house: House) -> None:
    code, errors = await end(await start(house, "raise OSError('the disk is gone')"))
    assert code == 1
    assert "the disk is gone" in errors


async def test_a_failure_in_a_group_of_tasks_is_told_as_itself(house: House) -> None:
    body = "raise ExceptionGroup('g', [ExceptionGroup('h', [OSError('the disk is gone')])])"
    code, errors = await end(await start(house, body))
    assert code == 1
    assert errors.splitlines()[-1] == "OSError: the disk is gone"


async def test_a_service_that_just_returns_is_a_failure(house: House) -> None:
    code, errors = await end(await start(house, "return"))
    assert code == 1
    assert "ended without being told to" in errors


async def test_a_wrong_key_in_a_planes_table_is_told_by_line(house: House) -> None:
    file = house.state.settings_file
    text = file.read_text() + "\n[reflect]\nkeept = 4\n"
    file.write_text(text)
    _, errors = await end(await start(house, "await asyncio.sleep(60)"))
    line = len(text.splitlines())
    assert f"nervus.toml:{line}: reflect.keept: there is no such setting" in errors


def test_every_service_connects_in_a_role_that_exists(house: House) -> None:
    for service in SERVICES.values():
        assert {identity.role for identity in service.identities} <= set(ROLES)
    ensure_identities(house.authority, SERVICES.values())
    names = {identity.name for identity in house.authority.identities()}
    assert {"brainstem", "relay", "policy", "reliable", "reflect"} <= names


def test_an_unknown_service_is_told_the_known_ones() -> None:
    with pytest.raises(
        UnknownServiceError, match=r"brainstem, .*, raw, command, updates, reflect, history, api"
    ):
        find_services(["brainstem", "cortex"], SERVICES)


def test_services_follow_the_settings(house: House) -> None:
    assert list(services_of(house.settings)) == list(SERVICES)
    alone = house.settings.model_copy(update={"thalamus": {"gatekeeper": False}})
    assert "gatekeeper" not in services_of(alone)
    table = {"gates": {"standbys": 1}}
    services = services_of(house.settings.model_copy(update={"thalamus": table}))
    (identity,) = services["gatekeeper-1"].identities
    assert (identity.name, identity.role) == ("gatekeeper-1", "gatekeeper")
    wrong = house.settings.model_copy(update={"thalamus": {"gatekeepr": False}})
    assert list(services_of(wrong)) == list(SERVICES)


def test_a_context_gives_what_planes_ask_for(house: House) -> None:
    house.authority.issue("porch", "board", "room/porch")
    ensure_identities(house.authority, SERVICES.values())
    context: Context = ServiceContext(
        "reflect", house.settings, house.state, 7, 1_800_000_000, lambda: None
    )
    address = context.session_config("reflect", "core")
    assert (address.host, address.port) == ("127.0.0.1", house.settings.brokers.core.port)
    assert context.grants() == {"porch": "room/porch"}
    assert context.table("reflect") == {}
    assert context.data == house.state.path / "data"


def test_grants_show_a_move_within_200_ms_and_read_the_file_only_then(house: House) -> None:
    now = 0.0
    grants = Grants(house.state, clock=lambda: now)
    house.authority.issue("porch", "board", "room/porch")
    assert grants.grants() == {"porch": "room/porch"}
    house.authority.issue("porch", "board", "room/hall")
    assert grants.grants() == {"porch": "room/porch"}
    now = 0.2
    moved = grants.grants()
    assert moved == {"porch": "room/hall"}
    now = 0.5
    assert grants.grants() is moved
