"""Houses of the security tests."""

from collections.abc import Iterator

import pytest

from security.running import supervised_brokers, whole_system
from support import House


@pytest.fixture
def supervised_house(house: House) -> Iterator[House]:
    """A house whose brokers are started again by the supervisor when they end."""
    with supervised_brokers(house):
        yield house


@pytest.fixture
def up(house: House) -> Iterator[House]:
    """A house in which `nervus up` runs as a process of its own."""
    with whole_system(house):
        yield house
