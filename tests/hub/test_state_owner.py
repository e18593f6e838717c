"""A state folder that is another user's, whole or in part, as `sudo nervus` may leave it."""

import os
import pwd
import shlex
from pathlib import Path

import pytest

from nervus.runtime.doctor import examine
from nervus.runtime.finding import Verdict
from nervus.runtime.state import StateFolder, StateFolderError
from support import House

NOBODY = pwd.getpwnam("nobody").pw_uid


def become_root_at(path: Path, monkeypatch: pytest.MonkeyPatch, *, sudo: bool) -> str:
    """Let this be root, and the folder with all in it somebody else's; returns whose."""
    if os.getuid() == 0:
        for each in (path, *path.rglob("*")):
            os.chown(each, NOBODY, -1)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.delenv("SUDO_UID", raising=False)
    if sudo:
        monkeypatch.setenv("SUDO_UID", str(path.stat().st_uid))
    return pwd.getpwuid(path.stat().st_uid).pw_name


def contents(path: Path) -> dict[Path, float]:
    return {each: each.lstat().st_mtime for each in (path, *path.rglob("*"))}


@pytest.mark.parametrize(
    ("sudo", "how"), [(True, ", without sudo,"), (False, r" \(runuser -u; of a container: --user ")]
)
def test_root_leaves_nothing_in_a_users_state_folder(
    house: House, monkeypatch: pytest.MonkeyPatch, how: str, *, sudo: bool
) -> None:
    path = house.state.path
    owner = become_root_at(path, monkeypatch, sudo=sudo)
    before = contents(path)
    told = rf"this state folder belongs to {owner}; run this as {owner}{how}"
    for take in (StateFolder.create, StateFolder.open):
        with pytest.raises(StateFolderError, match=told):
            take(path)
    assert contents(path) == before


def test_sudo_makes_no_state_folder_where_a_user_is_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = become_root_at(tmp_path, monkeypatch, sudo=True)
    path = tmp_path / "deep" / "state"
    with pytest.raises(StateFolderError, match=rf"root's, in a place of {owner}; .*without sudo"):
        StateFolder.create(path)
    assert list(tmp_path.iterdir()) == []


def test_root_of_a_container_uses_the_folder_it_was_given_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "state"
    outside.mkdir()
    become_root_at(outside, monkeypatch, sudo=False)
    state = StateFolder.create(outside)
    state.settings_file.touch()
    found = Path.stat

    def as_root_makes_it(each: Path, **options: bool) -> os.stat_result:
        fields = found(each, **options)
        owner = 0 if each == state.settings_file else fields.st_uid
        return os.stat_result((*fields[:4], owner, *fields[5:]))

    monkeypatch.setattr(Path, "stat", as_root_makes_it)
    assert StateFolder.open(outside) == state
    # … and sudo at the same place finds that it is a user's.
    monkeypatch.setenv("SUDO_UID", "1000")
    with pytest.raises(StateFolderError, match="without sudo"):
        StateFolder.open(outside)


def test_a_folder_of_root_or_of_another_is_told_with_the_command_that_mends_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, owner = house.state.path, pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    mend = f"sudo chown -R nobody {shlex.quote(str(path))}"
    for take in (StateFolder.create, StateFolder.open):
        with pytest.raises(StateFolderError, match=f"belongs to {owner}; .*{mend}; .*--state"):
            take(path)


def test_files_that_sudo_left_are_named_and_doctor_tells_them_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, me = house.state.path, pwd.getpwuid(os.getuid()).pw_name
    left = [house.state.identity("broker-core") / "key.pem", house.state.registry_file]
    lent, foreign = house.state.settings_file, {*left, house.state.settings_file}
    may, lstat = os.access, Path.lstat

    def as_it_was_left(each: Path) -> os.stat_result:
        found = lstat(each)
        return os.stat_result((*found[:4], NOBODY, *found[5:])) if each in foreign else found

    monkeypatch.setattr(Path, "lstat", as_it_was_left)
    # Root, whom this may be, reads everybody's.
    monkeypatch.setattr(os, "access", lambda each, mode: each not in left and may(each, mode))
    with pytest.raises(StateFolderError) as caught:
        StateFolder.create(path)
    told = str(caught.value)
    assert "here are files of nobody, which you may not read" in told
    assert any(str(each) in told for each in left)
    assert "and 1 more" in told
    assert str(lent) not in told
    assert f"sudo chown -R {me} {shlex.quote(str(path))}" in told
    last = examine(path)[-1]
    assert (last.verdict, last.what) == (Verdict.FAILURE, "state folder")
    assert "files of nobody" in last.found
    assert f"sudo chown -R {me}" in last.hint
