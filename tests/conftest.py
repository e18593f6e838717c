"""Fixtures that tests of several folders share."""

import os
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

from support import House, broker_processes, prepared_house, unmeasured

# How long an example takes says nothing while others use the machine; each test has its own limit.
# Half of the usual examples keep the suite within its time; `tools/soak` looks further. They are
# the same for the same code: what a change did not break, it is not refused for.
settings.register_profile(
    "nervus",
    deadline=None,
    max_examples=50,
    derandomize=not os.environ.get("NERVUS_EXPLORE"),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nervus")

# Folders whose files take longest, longest first.
_LONG = ("system", "fuzz", "security", "fault", "simulation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with long files: one that began last would leave the other processors idle.

    All others are mixed, always the same way: boards wait, what runs beside them computes.
    """
    order = {name: place for place, name in enumerate(_LONG)}

    def place(item: pytest.Item) -> tuple[int, int]:
        long = order.get(item.path.parent.name)
        return (len(_LONG), -crc32(item.path.name.encode())) if long is None else (long, 0)

    items.sort(key=place)


@pytest.fixture(scope="module", name="unmeasured")
def _unmeasured() -> Iterator[None]:
    """Run a file outside of coverage: for what others cover too, and at length or in processes."""
    with unmeasured():
        yield


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A prepared state folder; nothing runs."""
    return prepared_house(tmp_path / "state")


@pytest.fixture
def running_house(house: House) -> Iterator[House]:
    """A prepared state folder whose two brokers run."""
    with broker_processes(house):
        yield house
