"""`nervus replay`: yesterday again to the byte, and with another parameter."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nervus.bus import JournalError, JournalRun
from nervus.cli.app import app
from nervus.errors import NervusError
from nervus.runtime import replay as replaying
from nervus.runtime.replay import change, replay_of
from nervus.runtime.state import StateFolder
from nervus.wire import timestamp
from simulation.recorded import record_house
from simulation.world import START_MS
from support import prepared_house

SECONDS = 12


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    house = prepared_house(tmp_path_factory.mktemp("recorded") / "state")
    record_house(house.state.data, SECONDS)
    return house.state.path


def run(state: Path, *arguments: str, first: float = 0, last: float = SECONDS) -> Any:
    moments = [timestamp(START_MS + round(at * 1000)) for at in (first, last)]
    command = ["replay", "--state", str(state), "--from", moments[0], "--to", moments[1]]
    return CliRunner().invoke(app, [*command, *arguments], catch_exceptions=False)


def told(state: Path, *arguments: str, **moments: float) -> Any:
    result = run(state, "--json", *arguments, **moments)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.mark.req("S4-56")
def test_what_was_recorded_replays_as_it_was(recorded: Path, tmp_path: Path) -> None:
    planes = {one["plane"]: one for one in told(recorded, "--out", str(tmp_path / "logs"))}
    assert set(planes) == {"brainstem", "relay", "gatekeeper"}
    for one in planes.values():
        assert one["differed"] == 0
        assert one["agreed"] >= one["inputs"] - 1 > 5
        assert one["exact"]
        assert not one["other_code"]
        lines = (tmp_path / "logs" / f"{one['plane']}.log").read_bytes().splitlines()
        assert len(lines) == one["outputs"] > 5
    shown = run(recorded).output
    assert "relay" in shown
    assert "missing" not in shown


@pytest.mark.req("S4-44")
def test_only_the_range_is_replayed(recorded: Path, tmp_path: Path) -> None:
    whole = told(recorded)
    early, late = told(recorded, last=5), told(recorded, first=5)
    for all_of_it, first, second in zip(whole, early, late, strict=True):
        assert first["inputs"] + second["inputs"] == all_of_it["inputs"]
        assert first["outputs"] + second["outputs"] == all_of_it["outputs"]
    run(recorded, "--out", str(tmp_path / "late"), first=5)
    run(recorded, "--out", str(tmp_path / "whole"))
    for plane in ("brainstem", "relay"):
        log, all_of_it = (
            (tmp_path / name / f"{plane}.log").read_bytes() for name in ("late", "whole")
        )
        # What the plane knew at the beginning of the range, it knows again.
        assert log
        assert all_of_it.endswith(log)


@pytest.mark.req("S4-17")
def test_another_parameter_shows_where_the_runs_part(recorded: Path) -> None:
    changed = told(recorded, "--set", "thalamus.attenuate_from=0")
    assert list(changed) == ["relay", "gatekeeper"]
    relay, gatekeeper = changed.values()
    assert gatekeeper["first"] is None
    assert relay["sent"][1] < relay["sent"][0]
    assert 0 < relay["same"] < relay["sent"][0]
    first, other = relay["first"]
    assert START_MS <= first["at_ms"] < START_MS + SECONDS * 1000
    assert first != other
    assert 0 < relay["seconds_that_differ"] <= relay["seconds"]
    shown = run(recorded, "--set", "thalamus.attenuate_from=0").output
    assert "first difference" in shown
    assert "▲" in shown
    assert "RelayBundle" in shown


@pytest.mark.req("S4-17")
def test_another_parameter_below_is_seen_above(recorded: Path) -> None:
    changed = told(recorded, "--set", "brainstem.window_ms=4000")
    assert list(changed) == ["brainstem", "relay"]
    for plane in changed.values():
        assert plane["sent"][1] < plane["sent"][0]
        assert plane["first"]
    same = told(recorded, "--set", "brainstem.window_ms=1000")
    assert all(plane["first"] is None and plane["sent"][0] for plane in same.values())


def test_the_same_parameter_changes_nothing(recorded: Path) -> None:
    for plane in told(recorded, "--set", "thalamus.attenuate_from=0.3").values():
        assert plane["first"] is None
        assert plane["same"] == plane["sent"][0] == plane["sent"][1]
    assert "do not differ" in run(recorded, "--set", "thalamus.attenuate_from=0.3").output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "thalamus.agregate_ms=1"], "thalamus.agregate_ms: there is no such setting"),
        (["--set", "thalamus.aggregate_ms=1"], "thalamus.aggregate_ms: .* 100"),
        (["--set", "thalamus.aggregate_ms.x=1"], "no such setting"),
        (["--set", "thalamus.gates.bas=1"], "thalamus.gates.bas: there is no such setting"),
        (["--set", "thalamus.drop_from=0.1"], "attenuate_from <= aggregate_from"),
        (["--set", "policy.x=1"], "cannot be changed in a replay"),
        (["--set", "thalamus"], "changes nothing"),
    ],
)
def test_a_wrong_change_is_named(recorded: Path, arguments: list[str], text: str) -> None:
    with pytest.raises(NervusError, match=text) as caught:
        run(recorded, *arguments)
    assert caught.value.exit_code == 2


def test_a_plane_without_a_journal_is_named(recorded: Path) -> None:
    relay = {"relay": replaying.runs(StateFolder.open(recorded), "relay", 0, 1 << 60)}
    with pytest.raises(NervusError, match=r"no plane of \[brainstem\] .* journals of relay"):
        replaying.diverge(relay, 0, 1 << 60, {"brainstem": {"window_ms": 500}})


def test_a_wrong_range_is_named(recorded: Path) -> None:
    with pytest.raises(NervusError, match="ends before it begins"):
        run(recorded, first=5, last=5)
    with pytest.raises(NervusError, match="no plane journalled anything"):
        run(recorded, first=-100, last=-50)


def test_a_change_of_the_program_between_is_said(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "code_fingerprint", lambda: "other")
    assert all(one["other_code"] for one in told(recorded))
    assert "recorded by another program" in run(recorded).output


def test_a_machine_that_says_something_else_fails_the_replay(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = replaying.PLANES["relay"]

    def other(settings: Any, origin: Any, granted: Any) -> Any:
        machine = plane.build(settings, origin, granted)
        machine.core._mint.id(START_MS)
        return machine

    monkeypatch.setitem(
        replaying.PLANES,
        "relay",
        replaying.Plane("relay", plane.table, plane.settings, other),
    )
    result = run(recorded)
    assert result.exit_code == 1
    assert "first at input" in result.output


def test_journals_that_do_not_fit_are_named(recorded: Path) -> None:
    (found,) = JournalRun.all_of(recorded / "data" / "journal" / "relay")
    start = found.start()
    object.__setattr__(start, "plane", "cortex")
    with pytest.raises(JournalError, match="'cortex' cannot be replayed; one of brainstem"):
        replay_of(start)
    object.__setattr__(start, "plane", "relay")
    object.__setattr__(start, "settings", {"aggregate_ms": -1})
    with pytest.raises(JournalError, match="recorded settings do not fit"):
        replay_of(start)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=5", 5), ("a=0.5", 0.5), ("a=true", True), ("a=fast", "fast"), ("a=[1]", [1])],
)
def test_values_are_those_of_the_settings_file(text: str, value: Any) -> None:
    assert change(f"thalamus.{text}") == ("thalamus", "a", value)
