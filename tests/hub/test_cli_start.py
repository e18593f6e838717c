"""What a command imports before it does anything: counted in modules, not in time."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from support import DEADLINE_S, House

LARGE = {
    "aiohttp", "aiomqtt", "aiortc", "asyncio", "cryptography", "fastapi", "google.protobuf",
    "nervus.bus.session", "nervus.bus.shell", "nervus.runtime.settings", "nervus.wire.contracts",
    "nervus.wire.guard", "paho", "pydantic_settings", "uvicorn",
}  # fmt: skip
SETTINGS = {"asyncio", "nervus.runtime.settings", "pydantic_settings"}
LATE = [
    "nervus.api", "nervus.bus", "nervus.history", "nervus.reflect", "nervus.thalamus",
    "nervus.updates", "nervus.wire",
]  # fmt: skip
"""Packages that import their names when somebody asks for them."""

RUN = """
import json, sys
from nervus.cli import main
sys.argv = ["nervus", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imported(*words: str) -> set[str]:
    """What was imported when a command has ended."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        capture_output=True, text=True, timeout=DEADLINE_S, check=True,
        env={"PATH": "/usr/bin:/bin"},  # what measures the tests' coverage imports more
    )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_needs_no_more_than_the_names_of_the_commands() -> None:
    modules = imported("--help")
    ours = {name for name in modules if name.split(".")[0] == "nervus"}
    assert ours == {"nervus", "nervus.about", "nervus.cli", "nervus.cli.app", "nervus.errors"}
    assert not modules & LARGE
    assert modules.isdisjoint({"pydantic", "sqlite3"})


@pytest.mark.parametrize("words", [("version",), ("topics",), ("topics", "--json")], ids=" ".join)
def test_what_is_written_in_a_table_is_shown_without_models_and_brokers(
    words: tuple[str, ...],
) -> None:
    assert not imported(*words) & LARGE


def test_what_was_refused_is_read_from_its_file_without_models_and_brokers(tmp_path: Path) -> None:
    modules = imported("rejects", "--state", str(tmp_path))
    assert "nervus.reflect.quarantine" in modules
    assert not modules & LARGE


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        ("status", set()),
        ("update status", set()),
        ("identity list", {"cryptography"}),
        ("history", SETTINGS),
        ("doctor", SETTINGS | {"cryptography"}),
    ],
)
def test_what_only_reads_files_waits_for_no_models_and_no_sessions(
    house: House, words: str, needs: set[str]
) -> None:
    assert imported(*words.split(), "--state", str(house.state.path)) & LARGE == needs


def test_doctor_asks_brokers_without_the_models_of_what_they_carry(running_house: House) -> None:
    running_house.join("doctor", "observer")
    found = imported("doctor", "--state", str(running_house.state.path)) & LARGE
    assert found == SETTINGS | {"aiomqtt", "cryptography", "nervus.bus.session", "paho"}


@pytest.mark.parametrize("name", LATE)
def test_a_package_has_each_of_its_public_names_and_no_other(name: str) -> None:
    package = import_module(name)
    assert all(getattr(package, each) is not None for each in package.__all__)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Nothing'"):
        _ = package.Nothing
