import os
import stat
from pathlib import Path

import pytest

from nervus.runtime.files import write_private
from nervus.runtime.settings import (
    BrokerSettings,
    Settings,
    SettingsError,
    create_settings,
    free_port,
    obstacle,
    port_is_free,
)
from nervus.runtime.state import StateFolder, StateFolderError

GOOD = """\
house = "villa"

[brokers.spinal]
port = 21001

[brokers.core]
port = 21002

[brainstem]
window_ms = 250
"""


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "nervus.toml"
    path.write_text(text, encoding="utf-8")
    return Settings.load(path)


def test_defaults_fill_what_the_file_leaves_out(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.house == "villa"
    assert settings.processes == "one"
    assert settings.brokers.spinal.host == "127.0.0.1"
    assert settings.brainstem == {"window_ms": 250}
    assert settings.reflect == {}


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERVUS_BROKERS__CORE__PORT", "21003")
    settings = load(tmp_path, GOOD)
    assert (settings.brokers.core.port, settings.brokers.spinal.port) == (21003, 21001)


@pytest.mark.req("S3-14")
@pytest.mark.parametrize(
    ("old", "new", "line", "rule"),
    [
        ('"villa"', '"villa', 1, "not valid TOML"),
        ('"villa"', '""', 1, "house: .*1 to 64 characters"),
        ('"villa"', "7", 1, "house: .*valid string"),
        ("port = 21001", "port = 70000", 4, "spinal.port: .*less than or equal to 65535"),
        ("port = 21002", 'port = "x"', 7, "core.port: .*valid integer"),
        ("port = 21002", "prot = 21002", 7, "core.prot: there is no such setting"),
        ("port = 21002", "port = 21001", None, "brokers: both listen on port 21001"),
        ("[brainstem]", "[brianstem]", 9, "brianstem: there is no such setting"),
        ("window_ms = 250", "window_ms = = 250", 10, "not valid TOML"),
    ],
)
def test_a_wrong_setting_names_file_line_and_rule(
    tmp_path: Path, old: str, new: str, line: int | None, rule: str
) -> None:
    assert old in GOOD
    with pytest.raises(SettingsError, match=rule) as caught:
        load(tmp_path, GOOD.replace(old, new))
    path = tmp_path / "nervus.toml"
    assert caught.value.where == (f"{path}:{line}" if line else str(path))


@pytest.mark.parametrize(
    ("spinal", "core", "apart"),
    [
        ("192.168.1.2", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", False),  # noqa: S104  not bound
        ("192.168.1.2", "::", False),
    ],
)
def test_brokers_share_a_port_only_on_addresses_of_their_own(
    tmp_path: Path, spinal: str, core: str, *, apart: bool
) -> None:
    text = GOOD.replace("21002", "21001")
    for broker, host in (("spinal", spinal), ("core", core)):
        text = text.replace(f"[brokers.{broker}]", f'[brokers.{broker}]\nhost = "{host}"')
    if apart:
        assert load(tmp_path, text).brokers.core.port == 21001
        return
    with pytest.raises(SettingsError, match="both listen"):
        load(tmp_path, text)


def test_a_missing_setting_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"brokers\.core: this setting is required") as caught:
        load(tmp_path, GOOD.replace("[brokers.core]\nport = 21002", ""))
    assert caught.value.where == str(tmp_path / "nervus.toml")


def test_a_wrong_variable_is_named_instead_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERVUS_PROCESSES", "many")
    with pytest.raises(SettingsError, match="'one' or 'separate'") as caught:
        load(tmp_path, GOOD)
    assert caught.value.where == "environment variable NERVUS_PROCESSES"


def test_a_variable_that_should_be_json_and_is_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERVUS_BROKERS", "{")
    with pytest.raises(SettingsError, match="brokers: not valid JSON; give one key") as caught:
        load(tmp_path, GOOD)
    assert caught.value.where == "environment variable NERVUS_BROKERS"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nervus\.toml"):
        Settings.load(tmp_path / "nervus.toml")


def test_a_created_file_loads_with_two_free_ports_and_is_kept(tmp_path: Path) -> None:
    state = StateFolder.create(tmp_path / "state")
    first = create_settings(state, house="villa")
    assert first.house == "villa"
    assert first.brokers.spinal.port != first.brokers.core.port
    assert create_settings(state, house="other") == first
    assert stat.S_IMODE(state.settings_file.stat().st_mode) == 0o600


def test_free_port_lies_below_the_ports_of_outgoing_connections() -> None:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert free_port() < int(text.split()[0])


def test_creating_a_state_folder_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    state = StateFolder.create(path)
    create_settings(state)
    before = sorted(path.rglob("*"))
    assert StateFolder.create(path) == state
    assert sorted(path.rglob("*")) == before
    assert StateFolder.open(path) == state


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letters").mkdir()
    with pytest.raises(
        StateFolderError, match=rf"other things lie here.*--state {tmp_path}/nervus"
    ):
        StateFolder.create(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [each.name for each in tmp_path.iterdir()] == ["letters"]


@pytest.mark.parametrize("first", ["nervus.toml", "policy.toml", "reflexes", "ca", "lost+found"])
def test_a_folder_that_was_prepared_or_just_mounted_or_begun_is_completed(
    tmp_path: Path, first: str
) -> None:
    (tmp_path / first).mkdir()
    state = StateFolder.create(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert state.run.is_dir()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateFolderError, match=r"a file stands.*--state"):
        StateFolder.create(tmp_path / "state")


def test_opening_where_nothing_is_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(StateFolderError, match="nervus up"):
        StateFolder.open(tmp_path)


def test_a_file_of_another_kind_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "nervus.toml"
    path.write_bytes(b'house = "\xff"')
    with pytest.raises(SettingsError, match=r"cannot be read \(no UTF-8: .*\); mend it"):
        Settings.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError, match=r"cannot be read \(Is a directory\); mend it"):
        Settings.load(path)


@pytest.mark.parametrize(
    ("host", "what", "hint"),
    [
        ("203.0.113.9", "203.0.113.9 is no address of this machine now", "0.0.0.0 for all"),
        ("house..attic", "no machine is known as house..attic", "an address of this machine"),
    ],
)
def test_a_host_that_is_not_here_is_no_taken_port(host: str, what: str, hint: str) -> None:
    told = obstacle("core", BrokerSettings(host=host, port=free_port()))
    assert told is not None
    assert told.what == what
    assert hint in told.hint
    assert "brokers.core.host" in told.hint
    assert not port_is_free(host, 1883)


def test_a_full_disk_leaves_the_old_content_and_is_told_with_the_files_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "list"
    write_private(path, "old")
    (tmp_path / f".list.{os.getpid()}.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'$"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
