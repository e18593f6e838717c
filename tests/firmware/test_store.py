"""Objects kept across power cuts: whatever is cut or flipped, old or new is read."""

import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinal.store import Store, StoreError


def store(folder: Path) -> Store:
    return Store(str(folder), lambda file: os.fsync(file.fileno()))


def copies(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put_back(folder: Path, files: dict[str, bytes]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_what_was_never_written_is_nothing(tmp_path: Path) -> None:
    assert store(tmp_path).read("rules") is None


def test_the_newest_of_many_writes_is_read_by_the_next_boot(tmp_path: Path) -> None:
    for number in range(7):
        store(tmp_path).write("rules", {"number": number, "list": [1, 2.5, None, "é"]})
        assert store(tmp_path).read("rules") == {"number": number, "list": [1, 2.5, None, "é"]}
    assert sorted(copies(tmp_path)) == ["rules.a", "rules.b"]


def test_names_are_apart(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write("one", 1)
    kept.write("two", 2)
    assert (kept.read("one"), kept.read("two")) == (1, 2)


@pytest.mark.parametrize("previous", [None, ["old"], ["old", "older"]])
def test_a_cut_at_any_byte_leaves_old_or_new(tmp_path: Path, previous: list[str] | None) -> None:
    kept = store(tmp_path)
    for value in reversed(previous or []):
        kept.write("ledger", value)
    old = previous[0] if previous else None
    before = copies(tmp_path)
    kept.write("ledger", "new")
    after = copies(tmp_path)
    seen = set()
    # The copies are written one after the other; each byte of each may be the last one.
    written = [name for name in sorted(after) if before.get(name) != after[name]]
    assert written == (["ledger.a", "ledger.b"] if previous is None else written[:1])
    for number, name in enumerate(written):
        done = {each: after[each] for each in written[:number]}
        for cut in range(len(after[name]) + 1):
            put_back(tmp_path, {**before, **done, name: after[name][:cut]})
            read = store(tmp_path).read("ledger")
            assert read in (old, "new")
            seen.add(read)
            store(tmp_path).write("ledger", "next")
            assert store(tmp_path).read("ledger") == "next"
    assert seen == {old, "new"}


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write("boot", {"boot": 1})
    kept.write("boot", {"boot": 2})
    whole = copies(tmp_path)
    newest = next(name for name, data in whole.items() if b'"boot": 2' in data)
    for position in range(len(whole[newest]) * 8):
        flipped = bytearray(whole[newest])
        flipped[position // 8] ^= 1 << position % 8
        put_back(tmp_path, {**whole, newest: bytes(flipped)})
        reader = store(tmp_path)
        assert reader.read("boot") == {"boot": 1}
        assert reader.damaged == 1


def test_two_damaged_copies_are_an_error_and_can_be_written_over(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write("rules", 1)
    put_back(tmp_path, {name: data[:-1] for name, data in copies(tmp_path).items()})
    with pytest.raises(StoreError, match="both copies") as caught:
        kept.read("rules")
    assert caught.value.code == "corrupt"
    kept.write("rules", 2)
    assert kept.read("rules") == 2


def test_the_generation_goes_on_past_its_wrap(tmp_path: Path) -> None:
    kept = store(tmp_path)
    (tmp_path / "n.a").write_bytes(record(0xFFFFFFFE, b"1"))
    (tmp_path / "n.b").write_bytes(record(0xFFFFFFFF, b"2"))
    assert kept.read("n") == 2
    for value in (3, 4, 5):
        kept.write("n", value)
        assert kept.read("n") == value


def record(generation: int, body: bytes) -> bytes:

    counted = struct.pack(">II", generation, len(body))
    return b"NV1\n" + counted + struct.pack(">I", zlib.crc32(counted + body)) + body


def test_the_medium_is_synced_after_the_last_byte(tmp_path: Path) -> None:
    synced: list[bytes] = []

    def look(file: IO[bytes]) -> None:
        synced.append(Path(file.name).read_bytes())

    kept = Store(str(tmp_path), look)
    kept.write("rules", "first")
    kept.write("rules", "second")
    assert [data[16:] for data in synced] == [b'"first"', b'"first"', b'"second"']


@pytest.mark.parametrize("name", ["../up", "a.b", "A", "a/b"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no name"):
        store(tmp_path).write(name, 1)


def test_an_object_too_large_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.write("rules", 1)
    with pytest.raises(StoreError, match="at most") as caught:
        kept.write("rules", "x" * 40_000)
    assert caught.value.code == "oversize"
    assert kept.read("rules") == 1


def test_an_error_of_the_file_system_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store(tmp_path / "missing").write("rules", 1)
    (tmp_path / "rules.a").mkdir()
    with pytest.raises(IsADirectoryError):
        store(tmp_path).read("rules")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(values=st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text()), max_size=5))
def test_any_json_comes_back(tmp_path: Path, values: list[Any]) -> None:
    kept = Store(str(tmp_path))
    for value in values:
        kept.write("any", value)
        assert kept.read("any") == value
