import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nervus.about import NAME, VERSION
from nervus.cli.app import COMMANDS, GROUPS, _loaded, main
from nervus.runtime.doctor import examine, file_system, judged_file_system, judged_power
from nervus.runtime.finding import Finding, Verdict
from nervus.runtime.identity import Authority
from nervus.runtime.state import StateFolder
from nervus.wire.topics import TOPICS
from support import DEADLINE_S, House


def nervus(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nervus", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "HOME": "/nonexistent"},
    )


def test_version_names_the_product() -> None:
    for words in ("version", "--version"):
        assert nervus(words).stdout == f"{NAME} {VERSION}\n"


@pytest.mark.req("S4-71")
def test_topics_lists_each_with_its_dotted_name_and_turns_one_into_the_other() -> None:
    table, rows = nervus("topics").stdout, json.loads(nervus("topics", "--json").stdout)
    assert {row["topic"] for row in rows} == {spec.template for spec in TOPICS}
    for spec in TOPICS:
        (line,) = (line for line in table.splitlines() if spec.template in line.split())
        assert line.split()[1:3] == [spec.dotted, spec.contract]
    topic, name = "/sc/dev/event/device/b%2E1/ping", "sc.device.ping.b%2E1"
    assert nervus("topics", topic).stdout == f"{name}\n"
    assert nervus("topics", name).stdout == f"{topic}\n"
    refused = nervus("topics", "nvm.job.submit")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "'nvm.job.submit' is no topic" in refused.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("up", "run", "status", "rejects", "clean", "history", "replay", "doctor"),
        *("identity issue", "identity list", "identity revoke"),
        *("update key", "update pack", "update send", "update status", "update stop"),
    ],
)
def test_every_command_has_help(command: str) -> None:
    result = nervus(*command.split(), "--help")
    assert result.returncode == 0
    assert "--state" in result.stdout
    assert f"nervus {command}" in result.stdout.partition("Examples")[2]
    # What looks like markup and is none would not be shown.
    written = re.sub(r"\[/?bold\]", "", _loaded(command).help).replace("\\[", "[")
    assert set(written.split()) <= set(result.stdout.split())


def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with() -> None:
    listed = {first: nervus(*first.split(), "--help").stdout for first in ("", *GROUPS)}
    for words, (_, line) in COMMANDS.items():
        first, _, name = words.rpartition(" ")
        assert re.search(rf"│ {name} +{re.escape(line)} ", listed[first])
        assert " ".join(_loaded(words).help.partition("\n\n")[0].split()) == line
    for name, about in GROUPS.items():
        assert re.search(rf"│ {name} +{re.escape(about)} ", listed[""])
        assert about in listed[name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["identity", "issue", "a b", "--role", "consumer"], "1 to 64"),
        (["identity", "issue", "ab", "--role", "king"], "the roles are approver, board"),
        (["identity", "issue", "porch", "--role", "board"], "--scope room/kitchen"),
        (["identity", "revoke", "nobody"], "there is no identity 'nobody'"),
        (["identity", "revoke", "broker-core"], "belongs to a broker"),
        (["run", "cortex"], "raw, command, updates, reflect, history, api"),
    ],
)
def test_wrong_use_is_one_message_and_exit_code_2(
    house: House, arguments: list[str], message: str
) -> None:
    result = nervus(*arguments, "--state", str(house.state.path))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")


def test_a_wrong_configuration_is_one_message_with_file_and_line(house: House) -> None:
    file = house.state.settings_file
    file.write_text(file.read_text().replace('processes = "one"', 'processes = "many"'))
    for command in (["run", "reflect"], ["up"]):
        result = nervus(*command, "--state", str(house.state.path))
        assert result.returncode == 2
        assert re.search(r"nervus\.toml:\d+\n", result.stderr)
        assert "Traceback" not in result.stderr


def test_where_nothing_is_every_command_says_how_to_start(tmp_path: Path) -> None:
    for command in ("run reflect", "status", "identity list"):
        result = nervus(*command.split(), "--state", str(tmp_path))
        assert result.returncode == 2
        assert "nervus up" in result.stderr


def test_status_of_a_stopped_system_fails(house: House) -> None:
    result = nervus("status", "--state", str(house.state.path))
    assert result.returncode == 1
    assert "nothing runs here" in result.stderr


def test_a_revoked_part_of_the_hub_is_told_to_come_back(house: House) -> None:
    for name, role in (("brainstem", "brainstem"), ("console", "consumer")):
        house.authority.issue(name, role)
    hub, console = (
        nervus("identity", "revoke", name, "--state", str(house.state.path)).stdout
        for name in ("brainstem", "console")
    )
    assert "`nervus up` issues it anew at its next start" in hub
    assert console.splitlines() == [
        "Revoked console: 1 certificate.",
        "  in force at the next start of the brokers",
    ]


@pytest.mark.req("S4-58")
def test_the_printed_command_takes_part_at_once(running_house: House) -> None:
    house = running_house
    issued = nervus(
        "identity", "issue", "console", "--role", "consumer", "--state", str(house.state.path)
    )
    assert issued.returncode == 0
    assert "in force on spinal and core" in issued.stdout
    assert "PRIVATE" not in issued.stdout
    line = next(line for line in issued.stdout.splitlines() if "mosquitto_sub" in line)
    console = shlex.split(line)
    relay = house.join("relay", "relay")
    topic = "/th/relay/event/room/hall/channel/visceral"
    process = subprocess.Popen([*console, "-C", "1", "-W", "10"], stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        house.publish(relay, "core", topic, "hello")
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert output == f"{topic} hello\n"


def test_issue_copies_everything_a_board_needs(house: House, tmp_path: Path) -> None:
    out = tmp_path / "porch"
    arguments = ["porch", "--role", "board", "--scope", "room/porch", "--out", str(out)]
    result = nervus("identity", "issue", *arguments, "--state", str(house.state.path))
    assert result.returncode == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "ca.der",
        "ca.pem",
        "cert.der",
        "cert.pem",
        "key.der",
        "key.pem",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    assert str(out / "key.pem") in result.stdout
    listed = nervus("identity", "list", "--state", str(house.state.path)).stdout
    assert re.search(r"porch +board +room/porch", listed)
    assert re.search(r"broker-core +\(broker\)", listed)


@pytest.mark.parametrize("out", ["/proc/none", "/dev/null"])
def test_a_place_where_nothing_can_be_written_is_told_before_anything_is_issued(
    house: House, out: str
) -> None:
    arguments = ["lamp", "--role", "consumer", "--out", out, "--state", str(house.state.path)]
    result = nervus("identity", "issue", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: nothing can be written there (")
    assert f"where: {out}\nto do: name a folder" in result.stderr
    assert house.authority.find("lamp") is None


def verdicts(findings: list[Finding]) -> dict[str, Verdict]:
    return {finding.what: finding.verdict for finding in findings}


def test_doctor_finds_a_prepared_house_in_order(house: House) -> None:
    found = verdicts(examine(house.state.path))
    assert Verdict.FAILURE not in found.values()
    assert found["mosquitto"] is found["permissions"] is found["core port"] is Verdict.OK
    result = nervus("doctor", "--state", str(house.state.path))
    assert result.returncode == 0
    assert "certificates" in result.stdout


def test_doctor_changes_nothing_where_nothing_is(tmp_path: Path) -> None:
    found = verdicts(examine(tmp_path / "none"))
    assert found["state folder"] is Verdict.WARNING
    assert not (tmp_path / "none").exists()


def test_doctor_sees_exposed_keys(house: House) -> None:
    house.authority.ensure_server("broker-core", ["localhost"]).key.chmod(0o644)
    finding = next(f for f in examine(house.state.path) if f.what == "permissions")
    assert finding.verdict is Verdict.FAILURE
    assert "broker-core" in finding.found
    assert "chmod" in finding.hint
    assert nervus("doctor", "--state", str(house.state.path)).returncode == 1


def test_doctor_sees_an_exposed_key_of_updates(house: House) -> None:
    assert nervus("update", "key", "--state", str(house.state.path)).returncode == 0
    assert verdicts(examine(house.state.path))["permissions"] is Verdict.OK
    house.state.update_key.chmod(0o640)
    finding = next(f for f in examine(house.state.path) if f.what == "permissions")
    assert (finding.verdict, "update-key.pem" in finding.found) == (Verdict.FAILURE, True)


def test_doctor_sees_a_taken_port(house: House) -> None:
    with socket.create_server(("127.0.0.1", house.settings.brokers.spinal.port)):
        found = verdicts(examine(house.state.path))
    assert found["spinal port"] is Verdict.FAILURE
    assert found["core port"] is Verdict.OK


def test_doctor_sees_served_ports(running_house: House) -> None:
    found = {finding.what: finding.found for finding in examine(running_house.state.path)}
    assert found["spinal port"].endswith("is served")


def test_doctor_tells_expiring_from_expired(house: House) -> None:
    now = datetime.now(UTC)
    for name, role, age in (
        ("ageing", "consumer", 340), ("dead", "consumer", 370), ("history", "history", 370),
    ):  # fmt: skip
        past = now - timedelta(days=age)
        Authority(house.state, clock=lambda past=past: past).issue(name, role)
    findings = {finding.what: finding for finding in examine(house.state.path)}
    assert findings["identity ageing"].verdict is Verdict.WARNING
    assert findings["identity dead"].verdict is Verdict.FAILURE
    assert findings["identity dead"].hint == "run: nervus identity issue dead --role consumer"
    assert findings["identity history"].hint == "restart the system: it renews its own"
    assert re.fullmatch(r"3, .*\(ageing\) expires in 2\d days", findings["certificates"].found)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("[brainstem]\nwindow_ms = 'many'", "brainstem.window_ms: input should be a valid integer"),
        ("[history]\nkeep_dayz = 3", "history.keep_dayz: there is no such setting"),
        ("[reliable]\nx = 3", "reliable.x: there is no such setting"),
    ],
)
def test_doctor_tells_a_setting_that_a_plane_would_refuse(
    house: House, table: str, found: str
) -> None:
    path = house.state.settings_file
    path.write_text(f"{path.read_text()}{table}\n")
    line = len(path.read_text().splitlines())
    (finding,) = (each for each in examine(house.state.path) if each.what == "settings")
    assert finding.verdict is Verdict.FAILURE
    assert finding.found.startswith(f"{path}:{line}: {found}")


def test_doctor_tells_an_authority_that_cannot_issue(house: House) -> None:
    (house.state.ca / "key.pem").unlink()
    findings = {finding.what: finding for finding in examine(house.state.path)}
    assert findings["certificates"].verdict is Verdict.FAILURE
    assert "the local authority cannot be used" in findings["certificates"].found
    assert "restore it from a backup" in findings["certificates"].hint


def test_doctor_reports_a_file_that_cannot_be_read_and_goes_on(house: House) -> None:
    house.state.registry_file.unlink()
    house.state.registry_file.mkdir()
    findings = {finding.what: finding for finding in examine(house.state.path)}
    assert findings["certificates"].found == f"{house.state.registry_file}: Is a directory"
    assert "fsync" in findings


@pytest.mark.parametrize(
    ("answer", "verdict", "found"),
    [
        ("throttled=0x0\n", Verdict.OK, "never was too low"),
        ("throttled=0x50000\n", Verdict.WARNING, "was too low since"),
        ("throttled=0x50005\n", Verdict.FAILURE, "is too low"),
        ("VCHI initialization failed\n", Verdict.OK, "nothing here tells"),
        ("", Verdict.OK, "nothing here tells"),
    ],
)
def test_doctor_reads_what_a_raspberry_pi_says_of_its_supply(
    answer: str, verdict: Verdict, found: str
) -> None:
    finding = judged_power(answer)
    assert finding.verdict is verdict
    assert found in finding.found


def test_doctor_asks_the_pis_firmware_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text('#!/bin/sh\ntest "$1" = get_throttled && echo throttled=0x1\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert verdicts(examine(tmp_path))["power"] is Verdict.FAILURE


MOUNTS = """\
overlay / overlay rw 0 0
/dev/sda1 /media/my\\040stick vfat rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/sda2 /run ext4 rw 0 0
nas:/home /home/ada nfs4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "verdict", "hint"),
    [
        ("/var/lib/nervus", Verdict.WARNING, "raspi-config"),
        ("/media/my stick/nervus", Verdict.FAILURE, "ext4 or the like"),
        ("/run/nervus", None, ""),
        ("/home/ada/.local/state/nervus", Verdict.WARNING, "a disk of this machine"),
    ],
)
def test_doctor_knows_file_systems_that_lose_or_tell_what_they_are_given(
    path: str, verdict: Verdict | None, hint: str
) -> None:
    finding = judged_file_system(Path(path), file_system(Path(path), MOUNTS))
    assert (finding.verdict if finding else None) is verdict
    assert finding is None or hint in finding.hint


def test_doctor_does_without_a_file_system_that_the_kernel_does_not_list() -> None:
    assert file_system(Path("/root/nervus"), "proc /proc proc rw 0 0\n") == ""
    assert judged_file_system(Path("/root/nervus"), "") is None


def test_doctor_shows_a_path_whole_and_as_it_is(tmp_path: Path) -> None:
    shown = nervus("doctor", "--state", str(tmp_path / "[/red]" / ("Q" * 90))).stdout
    assert "[/red]" in shown
    assert shown.count("Q") == 90  # over several lines


def test_a_full_disk_is_one_message_that_names_the_file(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = house.state.registry_file
    registry.with_name(f".{registry.name}.{os.getpid()}.new").symlink_to("/dev/full")
    words = ["identity", "issue", "porch", "--role", "consumer", "--state", str(house.state.path)]
    monkeypatch.setattr(sys, "argv", ["nervus", *words])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert capsys.readouterr().err.splitlines() == [
        "error: no space left on device",
        f"where: {registry}",
        "to do: make room on its disk",
    ]


def test_doctor_reports_a_broken_file_and_goes_on(house: House) -> None:
    house.state.settings_file.write_text("house = = 1")
    house.state.registry_file.write_text("{")
    findings = {finding.what: finding for finding in examine(house.state.path)}
    assert findings["settings"].verdict is Verdict.FAILURE
    assert "nervus.toml:1" in findings["settings"].found
    assert findings["certificates"].verdict is Verdict.FAILURE
    assert findings["fsync"].verdict is not Verdict.FAILURE


def test_the_registry_stays_readable_by_programs(house: House) -> None:
    nervus("identity", "issue", "x", "--role", "operator", "--state", str(house.state.path))
    registry = json.loads(StateFolder.open(house.state.path).registry_file.read_text())
    assert registry["identities"]["x"]["role"] == "operator"
