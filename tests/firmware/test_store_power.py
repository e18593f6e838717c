"""The store on the file systems of real boards, cut off at each of their writes."""

from pathlib import Path

from firmware.test_pure import on_a_board

SCRIPT = Path(__file__).with_name("power_cuts.py")


def test_a_cut_at_any_write_of_littlefs_and_fat_leaves_old_or_new() -> None:
    *cases, end = on_a_board(str(SCRIPT), heap="96m").splitlines()
    assert end == "ok"
    told = [case.split("|") for case in cases]
    kinds = {(system, how) for system, _, how, *_ in told}
    assert kinds == {
        *(("littlefs", "clean"), ("littlefs", "torn"), ("littlefs", "erased")),
        *(("FAT", "clean"), ("FAT", "torn")),
    }
    assert len(told) == 5 * len(kinds)
    # In each case the power went before the new object was there, and once it never went.
    assert all(int(old) and int(new) for *_, old, new in told)
    assert sum(int(cuts) for _, _, _, cuts, _, _ in told) > 150
