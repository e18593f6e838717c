"""Fixtures that tests of several folders share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import House, broker_processes, prepared_house


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A prepared state folder; nothing runs."""
    return prepared_house(tmp_path / "state")


@pytest.fixture
def running_house(house: House) -> Iterator[House]:
    """A prepared state folder whose two brokers run."""
    with broker_processes(house):
        yield house
