"""Brokers that are started again when they end, as `nervus up` does it and as it is typed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nervus.runtime.state import BROKERS
from support import DEADLINE_S, DIES_WITH_US, House, answers, eventually

ENDS_S = 25
"""A system has 8 s for each stage of its children before it kills them."""

NERVUS = [sys.executable, "-m", "nervus"]
# What `nervus up` does with the brokers, without the services.
ONLY_BROKERS = """
import asyncio, sys
from pathlib import Path
from nervus.runtime.brokers import brokers
from nervus.runtime.settings import Settings
from nervus.runtime.state import StateFolder
from nervus.runtime.system import run_system
state = StateFolder.open(Path(sys.argv[1]))
both = brokers(state, Settings.load(state.settings_file))
asyncio.run(run_system(state, both, [], asyncio.Event()))
"""


@contextmanager
def supervised_brokers(house: House) -> Iterator[None]:
    """Run both brokers under the supervisor."""
    command = [sys.executable, "-c", ONLY_BROKERS, str(house.state.path)]
    supervisor = subprocess.Popen([*DIES_WITH_US, *command])
    try:
        wait_for_brokers(house)
        yield
    finally:
        supervisor.terminate()
        supervisor.wait(timeout=ENDS_S)


@contextmanager
def whole_system(house: House) -> Iterator[None]:
    """Run `nervus up` as a process of its own."""
    command = [*NERVUS, "up", "--state", str(house.state.path)]
    process = subprocess.Popen([*DIES_WITH_US, *command])
    try:
        wait_for_brokers(house)
        yield
    finally:
        process.terminate()
        code = process.wait(timeout=ENDS_S)
    assert code == 0


def wait_for_brokers(house: House) -> None:
    """Wait until both brokers listen."""
    for name in BROKERS:
        address = house.settings.brokers.get(name)
        eventually(lambda address=address: answers(address.connect_host, address.port), 20)


def nervus(house: House, *arguments: str) -> str:
    """Run the command line on a house; what it printed. Fails unless it succeeds."""
    result = subprocess.run(
        [*NERVUS, *arguments, "--state", str(house.state.path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
