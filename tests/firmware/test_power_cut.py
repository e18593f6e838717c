"""The power goes at every write of a board, clean and torn, on the file systems boards have."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from firmware.rigs import CHECKOUT
from firmware.update_pack import CHUNK, KEY, Pack

SCRIPTS = Path(__file__).parent / "on_board"
MICROPYTHON = CHECKOUT / ".tools" / "micropython" / "micropython"
NEW = Pack("1.1.0", {"spinal/runtime.mpy": bytes(range(200)), "app.py": b"new" * 40})


@pytest.mark.parametrize("kind", ["VfsLfs2", "VfsFat"])
def test_a_cut_at_any_write_of_an_update_leaves_the_old_or_the_new(
    kind: str, tmp_path: Path
) -> None:
    chunks = {
        f"{path} {offset}": NEW.chunk(path, offset)["data"]
        for path, data in NEW.files.items()
        for offset in range(0, len(data), CHUNK)
    }
    order = {"offer": NEW.offer(), "key": KEY, "chunks": chunks, "every": 25}
    (tmp_path / "order.json").write_text(json.dumps(order))
    told = on_board("power_cut.py", kind, str(tmp_path / "order.json"))
    # Both were seen: cuts before the record of the slot is changed, and after it.
    assert "('1.0.5', " in told
    assert "('1.1.0', " in told


@pytest.mark.parametrize("kind", ["VfsLfs2", "VfsFat"])
def test_a_cut_loses_nothing_that_waits_on_the_flash(kind: str) -> None:
    told = on_board("spill_cut.py", kind)
    # Cuts before the second segment was there, and after; before the first was removed, and after.
    assert "(6, " in told
    assert "(14, " in told
    assert "(-8, " in told
    assert "(0, " in told


@pytest.mark.parametrize("kind", ["VfsLfs2", "VfsFat"])
def test_messages_leave_room_on_the_flash_for_what_the_board_keeps(kind: str) -> None:
    written, lost, back, refused = on_board("full_flash.py", kind).split()
    assert int(written) == int(lost) + int(back)
    assert int(back) > 15
    assert refused == "True"


def on_board(script: str, *arguments: str) -> str:
    run = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=4m", SCRIPTS / script, *arguments],
        env={**os.environ, "MICROPYPATH": f"{CHECKOUT / 'firmware' / 'lib'}:.frozen"},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-500:] + run.stderr[-2000:]
    return run.stdout
