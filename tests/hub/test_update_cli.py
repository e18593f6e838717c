"""`nervus update` where no service has to run: keys, packs, what is refused, how it is shown."""

import errno
import getpass
import json
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from typer.testing import CliRunner, Result

from firmware.rigs import CHECKOUT
from firmware.update_pack import SIGNER
from nervus.cli import update, update_view
from nervus.cli.app import app
from nervus.errors import NervusError, UsageError
from nervus.runtime.files import locked
from nervus.runtime.signing_key import SigningKeyError, create_key
from nervus.updates import BoardUpdate, Orders, Pack, PackError, Rollout, Seen, read_record, schema
from nervus.updates.record import Durable, KeepBoard, KeepRollout, KeepSeen
from nervus.wire import topics
from spinal.wiring import FIRMWARE
from support import House

ID = "01KAJ6Y9A3Q5W8B1C2D3E4F5G6"
ROLLOUT = Rollout(ID, "0.2.0", "d" * 64, canary=1, asked_ms=1_790_000_000_000, asked_by="ada")
BOARD = BoardUpdate(ID, "b1", 0, "pulling", 1, done=50, total=200)


@pytest.fixture
def installed(house: House) -> House:
    for name, scope in (("b1", "room/kitchen"), ("b2", "room/hall"), ("b3", "room/kitchen")):
        house.authority.issue(name, "board", scope)
    house.authority.issue("console", "consumer")
    return house


@pytest.fixture
def up(installed: House) -> Iterator[House]:
    """A house that looks as while `nervus up` runs, without a service that would take orders."""
    with locked(installed.state.lock_file):
        installed.state.status_file.write_text(json.dumps({"pid": 1, "children": []}))
        yield installed


def keep(house: House, *effects: Durable) -> None:
    with closing(
        sqlite3.connect(house.state.data / "updates.db", isolation_level=None)
    ) as database:
        if not database.execute("SELECT name FROM sqlite_master").fetchall():
            database.executescript(schema.SCHEMA)
        schema.write(database, effects)


def run(house: House, *words: str, env: dict[str, str] | None = None) -> Result:
    arguments = ["update", *words, "--state", str(house.state.path)]
    env = {"COLUMNS": "220"} | (env or {})
    return CliRunner(env=env).invoke(app, arguments, catch_exceptions=False)


def packed(folder: Path, version: str = "0.2.0") -> str:
    file = folder / f"{version}.pack"
    file.write_bytes(Pack.signed(version, {"app.py": b"x"}, SIGNER).data)
    return str(file)


def test_a_key_is_made_once_private_and_only_its_public_half_is_printed(house: House) -> None:
    first = run(house, "key").output
    file = house.state.update_key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_bytes()
    private = serialization.load_pem_private_key(content, password=None)
    public = private.public_key().public_bytes_raw().hex()  # type: ignore[union-attr]
    assert f'update_keys = ["{public}"]' in first.splitlines()
    again = run(house, "key").output
    assert file.read_bytes() == content
    assert "It is there already" in again
    secret = private.private_bytes_raw().hex()  # type: ignore[union-attr]
    lines = content.decode().splitlines()
    assert not any(part in text for text in (first, again) for part in (secret, *lines))
    assert f'update_keys = ["{public}"]' in again.splitlines()


def pem(key: object, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@pytest.mark.parametrize(
    ("content", "mode", "rule"),
    [
        (pem(SIGNER), 0o640, "others may read this key"),
        (pem(SIGNER, b"secret"), 0o600, "without a passphrase"),
        (pem(generate_private_key(SECP256R1())), 0o600, "no Ed25519 key"),
        (b"rubbish", 0o600, "no private key in PEM.*; name another with --key"),
        (None, 0o600, "there is no key that signs"),
    ],
)
def test_a_key_that_cannot_sign_says_what_is_wrong_with_it(
    house: House, tmp_path: Path, content: bytes | None, mode: int, rule: str
) -> None:
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(SigningKeyError, match=rule) as caught:
        run(house, "pack", "--key", str(file))
    assert caught.value.where == str(file)


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    create_key(file)
    content = file.read_bytes()
    nowhere = tmp_path / "nowhere" / "key.pem"
    for path, rule in ((file, "a file already; .*never replaced"), (nowhere, "cannot be written")):
        with pytest.raises(SigningKeyError, match=rule) as caught:
            create_key(path)
        assert "--key" in caught.value.hint
    assert file.read_bytes() == content


def test_a_full_disk_leaves_no_half_of_a_key_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path, fsync = tmp_path / "key.pem", os.fsync
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SigningKeyError, match=r"No space left on device\); make room"):
        create_key(path)
    monkeypatch.setattr(os, "fsync", fsync)
    create_key(path)


def test_the_firmware_is_packed_whole_and_the_same_again(house: House, tmp_path: Path) -> None:
    run(house, "key")
    files = [tmp_path / "one.pack", tmp_path / "two.pack"]
    for file in files:
        assert run(house, "pack", "--out", str(file)).exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    pack = Pack.read(files[0].read_bytes(), "one.pack")
    sources = (CHECKOUT / "firmware" / "lib" / "spinal").glob("*.py")
    assert set(pack.files) == {f"spinal/{path.stem}.mpy" for path in sources}
    assert pack.version == FIRMWARE
    assert all(content.startswith(b"M\x06") for content in pack.files.values())
    assert len(pack.offer.model_dump_json()) < topics.UPDATE_OFFER.max_bytes


def test_a_tree_that_is_no_firmware_or_says_no_version_is_refused(
    house: House, tmp_path: Path
) -> None:
    run(house, "key")
    with pytest.raises(UsageError, match="no firmware tree"):
        run(house, "pack", "--firmware", str(tmp_path))
    tree = tmp_path / "tree"
    shutil.copytree(CHECKOUT / "firmware" / "lib" / "spinal", tree / "lib" / "spinal")
    wiring = tree / "lib" / "spinal" / "wiring.py"
    wiring.write_text(wiring.read_text().replace("FIRMWARE", "SOFTWARE"))
    with pytest.raises(UsageError, match="FIRMWARE is not set"):
        run(house, "pack", "--firmware", str(tree))
    with pytest.raises(PackError, match="numbers and dots"):
        run(house, "pack", "--version", "1.0-rc1")
    with pytest.raises(UsageError, match="cannot be written"):
        run(house, "pack", "--out", str(tmp_path / "no" / "folder.pack"))


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("b9",), "there is no board 'b9'"),
        (("console",), "there is no board 'console'"),
        ((), "no board is meant"),
        (("--all", "b1"), "--all and single boards"),
        (("b1", "--scope", "room/hall"), "--scope without --all"),
        (("--all", "--scope", "room/attic"), "no board is meant"),
        (("b2",), "b2 runs 0.3.0, and 0.2.0 is not newer"),
        (("b1", "b2"), "b2 runs 0.3.0, and 0.2.0 is not newer"),
        (("--all", "--scope", "room/hall"), "b2 runs 0.3.0, and 0.2.0 is not newer"),
    ],
)
def test_boards_that_are_not_there_or_run_something_newer_are_refused(
    up: House, tmp_path: Path, words: tuple[str, ...], rule: str
) -> None:
    keep(up, KeepSeen(Seen("b2", "0.3.0", online=True, since_ms=1)))
    with pytest.raises(UsageError, match=re.escape(rule)) as caught:
        run(up, "send", *words, packed(tmp_path))
    assert caught.value.hint
    assert not list(up.state.updates.iterdir())


def test_nothing_is_sent_where_nothing_runs_and_nothing_that_is_no_pack(
    installed: House, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="nothing runs here"):
        run(installed, "send", "b1", packed(tmp_path))
    for file in (tmp_path / "none.pack", Path(__file__)):
        with pytest.raises(PackError):
            run(installed, "send", "b1", str(file))


def test_an_order_that_nobody_takes_is_taken_back(
    up: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "TAKEN_S", 0.1)
    with pytest.raises(NervusError, match="did not take the order"):
        run(up, "send", "b1", packed(tmp_path))
    assert not list(up.state.updates.iterdir())


def test_all_means_who_runs_something_older_or_unknown_in_that_place(installed: House) -> None:
    seen = {
        name: Seen(name, firmware, online=True, since_ms=1)
        for name, firmware in (("b1", "0.2.0"), ("b2", "0.1.0"), ("b3", "a fork"))
    }
    pack = Pack.signed("0.2.0", {"app.py": b"x"}, SIGNER)
    everyone = update._chosen(installed.state, [], every=True, scope=None)
    assert everyone == ["b1", "b2", "b3"]
    assert update._fitting(everyone, seen, pack, every=True) == ["b2", "b3"]
    assert update._fitting(everyone, {}, pack, every=True) == everyone
    kitchen = update._chosen(installed.state, [], every=True, scope="room/kitchen")
    assert kitchen == ["b1", "b3"]


def test_the_picture_says_of_every_board_what_happened_and_what_to_do(installed: House) -> None:
    keep(
        installed,
        KeepSeen(Seen("b1", "0.1.0", online=False, since_ms=1_790_000_000_000)),
        KeepSeen(Seen("b2", "", online=True, since_ms=1_790_000_000_000)),
        KeepRollout(replace(ROLLOUT, stopped="b1: it did not run")),
        KeepBoard(replace(BOARD, state="rolled_back", code="taken_back", error="it did not run")),
        KeepBoard(replace(BOARD, device_id="b2", position=1, state="held", done=0)),
    )
    shown = run(installed, "status").output
    assert re.search(r"b1 +0\.1\.0 +offline", shown)
    assert re.search(r"b2 +\? +online", shown)
    assert re.search(r"b1 \(canary\) +rolled back +25 % +it did not run +mend it", shown)
    assert re.search(r"b2 +held +0 %", shown)
    assert "asked by ada" in shown
    assert "Stopped: b1: it did not run" in shown
    told = json.loads(run(installed, "status", "--json").output)
    assert told["boards"]["b1"]["firmware"] == "0.1.0"
    assert told["rollouts"][0]["boards"][0]["code"] == "taken_back"


def test_a_canary_that_is_away_is_told_to_keep_the_others_waiting(installed: House) -> None:
    keep(
        installed,
        KeepRollout(ROLLOUT),
        KeepBoard(replace(BOARD, state="gone_quiet", code="quiet", error="it is offline")),
        KeepBoard(replace(BOARD, device_id="b2", position=1, state="waiting")),
    )
    shown = run(installed, "status").output
    assert re.search(r"b1 \(canary\) +gone quiet .*it is offline +it gets the update when", shown)
    assert "The others wait until the canaries are back" in shown
    assert f"nervus update stop {ROLLOUT.update_id}\n" in shown
    assert "nervus update send BOARD... PACK" in shown


@pytest.mark.parametrize(
    ("states", "over"),
    [
        (("confirmed", "rolled_back", "refused"), True),
        (("confirmed", "pulling", "refused"), False),
        (("confirmed", "waiting", "waiting"), False),
        (("gone_quiet", "waiting", "waiting"), True),
        (("confirmed", "gone_quiet", "waiting"), False),
        (("gone_quiet", "offered", "held"), False),
    ],
)
def test_a_roll_out_is_watched_until_nothing_more_happens_by_itself(
    states: tuple[str, ...], *, over: bool
) -> None:
    boards = [
        replace(BOARD, device_id=f"b{number}", position=number, state=state)  # type: ignore[arg-type]
        for number, state in enumerate(states)
    ]
    assert update_view.settled(ROLLOUT, boards) is over


def test_watching_ends_by_its_time(installed: House) -> None:
    keep(installed, KeepRollout(ROLLOUT), KeepBoard(BOARD))
    assert not update_view.watch(installed.state.data, ID, 0.0, live=False)


def test_a_stopped_roll_out_has_no_order_any_more(installed: House) -> None:
    with pytest.raises(UsageError, match="there is no roll-out"):
        run(installed, "stop", ID)
    keep(installed, KeepRollout(ROLLOUT), KeepBoard(BOARD))
    order = Orders.of(installed.state.data).order(ID)
    order.write_text("{}")
    orders = Orders.of(installed.state.data)
    assert orders.withdrawn_by(ID) == ""
    assert run(installed, "stop", ID).exit_code == 0
    assert not order.exists()
    assert orders.withdrawn_by(ID) == getpass.getuser()
    orders.withdrawal(ID).write_bytes(b"\xff")
    assert orders.withdrawn_by(ID) == ""
    keep(installed, KeepBoard(replace(BOARD, state="confirmed")))
    with pytest.raises(UsageError, match="has ended already"):
        run(installed, "stop", ID)


def test_without_a_record_status_says_when_there_will_be_one(house: House) -> None:
    with pytest.raises(NervusError, match="nothing is known of updates yet") as caught:
        run(house, "status")
    assert "nervus up" in caught.value.hint
    # As the service leaves it for the moment between making the file and what is in it.
    (house.state.data / "updates.db").touch()
    with pytest.raises(NervusError, match="nothing is known of updates yet"):
        run(house, "status")
    with pytest.raises(UsageError, match="there is no roll-out"):
        run(house, "stop", ID)
    (house.state.data / "updates.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(NervusError, match="cannot be read"):
        read_record(house.state.data)
    # Not 'there is no roll-out', nor boards of which nothing is known.
    with pytest.raises(NervusError, match="cannot be read"):
        run(house, "stop", ID)
