"""`nervus identity` as typed, where no broker runs: what it prints, and what lies where then."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nervus.cli.app import app
from nervus.cli.identity import example_command
from nervus.wire.topics import ROLES, TOPICS
from support import House

DUMB = sorted(role for role in ROLES if not any(role in spec.subscribe for spec in TOPICS))
"""Roles that may read nothing."""


def nervus(house: House, *words: str) -> list[str]:
    """The lines a command prints; raises what the command line would explain."""
    arguments = ["identity", *words, "--state", str(house.state.path)]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output.splitlines()


def test_who_is_issued_is_told_where_the_keys_are_and_what_to_try(house: House) -> None:
    told = nervus(house, "issue", "porch", "--role", "board", "--scope", "room/porch")
    porch = house.authority.get("porch")
    assert told[0] == "Issued porch as board of room/porch."
    assert [line.split(maxsplit=1)[1] for line in told[1:4]] == [
        str(porch.key), str(porch.cert), str(porch.ca),
    ]  # fmt: skip
    assert told[5] == "  rights  in force at the next start of the brokers"
    assert told[6] == "Try it:"
    command = shlex.split(told[7])
    assert command[command.index("--key") + 1] == str(porch.key)
    assert command[command.index("-t") + 1].startswith("/")
    assert "/porch/" in command[command.index("-t") + 1]


@pytest.mark.parametrize("role", DUMB)
def test_who_may_read_nothing_is_given_nothing_to_try(house: House, role: str) -> None:
    told = nervus(house, "issue", "talker", "--role", role)
    assert told[0] == f"Issued talker as {role}."
    assert not any(line.startswith("Try it") for line in told)
    assert example_command(house.authority.get("talker"), house.settings) is None


def test_keys_are_copied_into_a_folder_that_is_there_beside_what_it_holds(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "notes").write_text("mine")
    told = nervus(house, "issue", "lamp", "--role", "consumer", "--out", str(tmp_path))
    assert f"  key     {tmp_path / 'key.pem'}" in told
    assert shlex.split(told[-1])[shlex.split(told[-1]).index("--key") + 1] == str(
        tmp_path / "key.pem"
    )
    assert (tmp_path / "notes").read_text() == "mine"
    copied, own = (folder / "key.pem" for folder in (tmp_path, house.authority.get("lamp").folder))
    assert copied.read_bytes() == own.read_bytes()


def test_the_list_says_who_takes_part_and_who_does_no_longer(house: House) -> None:
    nervus(house, "issue", "lamp", "--role", "consumer")
    nervus(house, "issue", "porch", "--role", "board", "--scope", "room/porch")
    nervus(house, "issue", "brainstem", "--role", "brainstem")
    assert nervus(house, "revoke", "brainstem")[-1] == (
        "  brainstem is a part of the hub: `nervus up` issues it anew at its next start"
    )
    # It may have retained something; nobody runs to ask.
    told = nervus(house, "revoke", "porch")
    assert told[0] == "Revoked porch: 1 certificate."
    assert told[1] == "  in force at the next start of the brokers"
    assert "stays for now, the broker does not run; later: nervus clean --yes" in told[2]
    rows = {line.split()[0]: line for line in nervus(house, "list")[1:]}
    assert re.search(r"consumer +\d{4}-\d\d-\d\d \(36\d days\) *$", rows["lamp"])
    for name, place in (("porch", "board +room/porch"), ("brainstem", "brainstem")):
        assert re.search(rf"{place} +\d{{4}}-\d\d-\d\d +revoked on \d{{4}}-", rows[name])
    # To say it once more harms nobody.
    assert nervus(house, "revoke", "porch")[0] == told[0]
