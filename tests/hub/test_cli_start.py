"""What a command imports before it does anything: counted in modules, not in time."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from support import DEADLINE_S

LARGE = {
    "aiohttp", "aiomqtt", "aiortc", "asyncio", "cryptography", "fastapi", "google.protobuf",
    "nervus.bus", "nervus.runtime.settings", "nervus.wire.contracts", "nervus.wire.guard", "paho",
    "pydantic_settings", "uvicorn",
}  # fmt: skip
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


@pytest.mark.parametrize("name", ["nervus.wire", "nervus.reflect"])
def test_a_package_has_each_of_its_public_names_and_no_other(name: str) -> None:
    package = import_module(name)
    assert all(getattr(package, each) is not None for each in package.__all__)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Nothing'"):
        _ = package.Nothing
