"""The API on its real socket: who may ask what, and what comes of it."""

import asyncio
import http.client
import json
import os
import socket
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import given, settings
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from typer.testing import CliRunner
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from nervus.api import ApiClient, ApiError
from nervus.api.service import listening, serve
from nervus.cli.app import app
from nervus.errors import UsageError
from nervus.history import Record
from nervus.history.api import readable
from nervus.history.records import SCHEMA, record
from nervus.runtime.identity import Authority
from nervus.runtime.services import ServiceContext
from nervus.runtime.settings import create_settings
from nervus.runtime.state import StateFolder
from support import DEADLINE_S, eventually

NOW_MS = 1_790_000_000_000
NOBODY = 4_294_967_000
KINDS = (
    ("RelayBundle", "/th/relay/event/room/{}/channel/somatic", "somatic"),
    ("GateState", "/th/gate/state/room/{}/target/channel/somatic", None),
    ("Outcome", "/E/outcome/event/room/{}/action/x", None),
)


def fill(path: Path, messages: int = 30) -> None:
    """Record messages of two rooms in turn, one each second."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
        for n in range(messages):
            contract, topic, channel = KINDS[n % 3]
            room = ("kitchen", "hall")[n % 2]
            message = json.dumps({"meta": {"contract": contract}, "payload": {"n": n}})
            at_ms = NOW_MS + n * 1_000
            record(
                database,
                Record("room", room, at_ms, contract, channel, topic.format(room), "relay",
                       f"id{n}", message),
            )  # fmt: skip
        database.commit()


class Hub:
    """A state folder, and an API on it in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.state = StateFolder.create(path)
        self.settings = create_settings(self.state)
        self.authority = Authority.create(self.state)
        self._numbers = count()

    @contextmanager
    def served(self, owner: int | None = None, **table: Any) -> Iterator[ApiClient]:
        """Serve while the block runs; `owner` is whom the installation belongs to."""
        path = self.state.run / f"{next(self._numbers)}.sock"
        table["socket"] = path
        ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
        settings = self.settings.model_copy(update={"api": table})
        context = ServiceContext("api", settings, self.state, 1, 1, ready.set)

        async def until_stopped() -> None:
            task = asyncio.create_task(serve(context, os.getuid() if owner is None else owner))
            await stop.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()

        thread = threading.Thread(target=lambda: loop.run_until_complete(until_stopped()))
        thread.start()
        try:
            assert ready.wait(DEADLINE_S)
            yield ApiClient(path)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
            loop.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    made = Hub(tmp_path_factory.mktemp("api") / "state")
    fill(made.state.data / "history.db")
    return made


@pytest.fixture(scope="module")
def api(hub: Hub) -> Iterator[ApiClient]:
    with hub.served() as client:
        yield client


def numbers(answer: dict[str, Any]) -> list[int]:
    return [one["message"]["payload"]["n"] for one in answer["payload"]]


def refused(client: ApiClient, route: str = "/v1/history", **query: Any) -> dict[str, Any]:
    """The problem that a request is answered with."""
    with pytest.raises(ApiError) as caught:
        client.get(route, query)
    problem = caught.value.problem
    assert problem["type"] == f"urn:nervus:problem:{problem['code']}"
    return problem


@pytest.mark.req("S4-43", "S3-7", "S3-10")
def test_history_get_gives_a_range_page_by_page(api: ApiClient) -> None:
    assert stat.S_IMODE(api.path.stat().st_mode) == 0o660
    after, found = 0, []
    while True:
        query = {"from_ms": NOW_MS + 5_000, "to_ms": NOW_MS + 25_000, "after": after, "limit": 8}
        answer = api.get("/v1/history", query)
        found.append(numbers(answer))
        after = answer["meta"]["next"]
        if after is None:
            break
    assert [len(page) for page in found] == [8, 8, 4]
    assert [n for page in found for n in page] == list(range(5, 25))
    assert answer["meta"]["principal"] == "operator"


@pytest.mark.req("S4-41", "S4-43")
def test_it_narrows_by_scope_sequence_plane_and_contract(api: ApiClient) -> None:
    hall = {"scope_level": "room", "scope": "hall"}
    answer = api.get("/v1/history", hall | {"from_sequence": 3, "to_sequence": 6})
    assert [one["sequence"] for one in answer["payload"]] == [3, 4, 5]
    assert numbers(answer) == [5, 7, 9]
    assert numbers(api.get("/v1/history", {"plane": "E", "limit": 3})) == [2, 5, 8]
    assert numbers(api.get("/v1/history", {"contract": "GateState", "limit": 2})) == [1, 4]
    assert numbers(api.get("/v1/history", {"channel": "somatic", "limit": 2})) == [0, 3]


@pytest.mark.parametrize(
    ("query", "where", "text"),
    [
        ({"limit": 1_001}, "limit", "1000"),
        ({"colour": "red"}, "colour", "not permitted"),
        ({"from_ms": 9, "to_ms": 9}, "query", "ends before it begins"),
        ({"from_sequence": 2}, "query", "name scope_level and scope"),
        ({"scope_level": "room", "scope": "hall", "from_sequence": 2, "to_sequence": 2}, "query",
         "sequences ends"),
        ({"channel": "smell"}, "query", "no channel 'smell'"),
        ({"scope_level": "town"}, "scope_level", "'room'"),
    ],
)  # fmt: skip
@pytest.mark.req("S3-21", "S3-58")
def test_a_wrong_request_is_a_problem_that_names_the_fault(
    api: ApiClient, query: dict[str, Any], where: str, text: str
) -> None:
    problem = refused(api, **query)
    assert (problem["status"], problem["category"], problem["kind"]) == (
        422, "validation", "terminal",
    )  # fmt: skip
    (fault,) = problem["errors"]
    assert fault["where"] == where
    assert text in fault["detail"]


def test_what_is_not_there_and_what_may_not_be_done_are_problems_too(api: ApiClient) -> None:
    assert refused(api, "/v1/nothing")["code"] == "not_found"
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(api.path))
    with closing(connection):
        connection.request("DELETE", "/v1/history")
        response = connection.getresponse()
        assert (response.status, response.headers["allow"]) == (405, "GET")
        assert response.headers["content-type"] == "application/problem+json"
        assert json.loads(response.read())["code"] == "method_not_allowed"


@pytest.mark.req("S3-59")
def test_a_store_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    other = Hub(tmp_path / "state")
    with other.served(deadline_s=1e-6) as client:
        problem = refused(client)
        assert (problem["status"], problem["kind"]) == (503, "retriable")
        assert problem["category"] == "dependency"
        fill(other.state.data / "history.db", 3_000)
        problem = refused(client, contract="Command")
        assert problem["detail"] == "reading took too long"
        assert "shorter range" in problem["hint"]


@pytest.mark.req("S0-13")
def test_another_user_may_ask_nothing_unless_named(hub: Hub) -> None:
    uid = str(os.getuid())
    hub.authority.issue("anna", "consumer")
    with hub.served(owner=NOBODY) as client:
        problem = refused(client)
        assert (problem["status"], problem["category"]) == (403, "policy")
        assert refused(client, "/openapi.json")["status"] == 403
    with hub.served(owner=NOBODY, principals={uid: "bert"}) as client:
        assert refused(client)["status"] == 403
    with hub.served(owner=NOBODY, principals={uid: "anna"}) as client:
        answer = client.get("/v1/history", {})
        assert answer["meta"]["principal"] == "anna"
        # Gates are not for consumers, neither asked for by name.
        seen = {one["message"]["meta"]["contract"] for one in answer["payload"]}
        assert seen == {"RelayBundle", "Outcome"}
        assert client.get("/v1/history", {"contract": "GateState"})["payload"] == []
        hub.authority.revoke("anna")
        eventually(lambda: _is_refused(client))


def _is_refused(client: ApiClient) -> bool:
    try:
        client.get("/v1/history", {"limit": 1})
    except ApiError as error:
        return bool(error.problem["status"] == 403)
    return False


def test_a_role_that_reads_nothing_of_history_is_told_so(hub: Hub) -> None:
    hub.authority.issue("thermo", "cleaner")
    assert readable("cleaner") == frozenset()
    with hub.served(owner=NOBODY, principals={str(os.getuid()): "thermo"}) as client:
        problem = refused(client)
        assert (problem["status"], problem["code"]) == (403, "not_allowed")
        assert "thermo is cleaner" in problem["detail"]


class _UnixConnection(HTTPConnection):
    path = ""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class _UnixAdapter(HTTPAdapter):
    """Sends what requests makes to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pool = HTTPConnectionPool("localhost")
        self._pool.ConnectionCls = type("Connection", (_UnixConnection,), {"path": str(path)})

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


@pytest.mark.hypothesis
@pytest.mark.timeout(60)  # schemathesis asks some hundred times, and makes up what it asks
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.req("S3-7", "S3-27")
def test_the_api_does_what_its_document_says(api: ApiClient, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_dict(api.get("/openapi.json", {}))
    (operation,) = (result.ok() for result in document.get_all_operations())
    statuses = set()

    with requests.Session() as session:
        session.mount("http://", _UnixAdapter(api.path))

        @settings(max_examples=20)
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: schemathesis.Case) -> None:
            # That a range begins before it ends is beyond what OpenAPI can say.
            answer = case.call_and_validate(
                base_url="http://localhost",
                session=session,
                excluded_checks=[positive_data_acceptance],
                timeout=DEADLINE_S,
            )
            statuses.add(answer.status_code)

        run()
    # That what breaks the document is refused is among the checks, which know that a list where a
    # text belongs is a text once it stands in a query.
    assert 422 in statuses
    assert 200 in statuses or mode is GenerationMode.NEGATIVE


def test_nervus_history_asks_the_hub_where_it_runs(api: ApiClient, tmp_path: Path) -> None:
    # This folder has nothing recorded: what is shown comes through the socket.
    state = StateFolder.create(tmp_path / "other")
    create_settings(state)
    file = state.settings_file
    file.write_text(file.read_text() + f'\n[api]\nsocket = "{api.path}"\n')
    arguments = ["history", "--state", str(state.path), "--from", "2026-01-01T00:00", "--to"]
    arguments += ["2027-01-01T00:00", "--plane", "E", "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    shown = [json.loads(line) for line in result.output.splitlines()]
    assert [one["message"]["payload"]["n"] for one in shown] == list(range(2, 30, 3))
    file.write_text(file.read_text() + 'colour = "red"\n')
    with pytest.raises(UsageError, match="no such setting"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_what_a_killed_process_left_is_removed_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    with listening(path, None):
        assert ApiClient(path).answers()
        with pytest.raises(UsageError, match="another program listens"), listening(path, None):
            pass
    assert not path.exists()
    path.write_text("a file")
    with pytest.raises(UsageError, match="cannot listen"), listening(path, None):
        pass
    assert path.read_text() == "a file"


def test_a_group_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with (
        pytest.raises(UsageError, match=r"no group 'nervus-none'; .*groupadd"),
        listening(path, "nervus-none"),
    ):
        pass
    assert not path.exists()
