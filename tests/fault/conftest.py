"""Fixtures of the tests of sessions under faults."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.plain_broker import PlainBroker
from nervus.bus import session as session_module
from nervus.bus.client import Client, FastClient


@pytest.fixture(params=[FastClient, Client], ids=["fast", "stock"])
def client_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    """Both ways to read and write, one after the other."""
    kind: type[Client] = request.param
    monkeypatch.setattr(session_module, "_CLIENT", kind)
    return kind


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[PlainBroker]:
    """A broker without TLS that allows everything."""
    one = PlainBroker(tmp_path)
    await one.start()
    yield one
    one.kill()
