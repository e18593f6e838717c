"""What draws the demo, beside a demo that has only begun."""

import asyncio
import io
from pathlib import Path

import pytest
from rich.console import Console

from nervus.demo import _drawing
from nervus.demo.run import Demo
from nervus.reflect.quarantine import QuarantineError
from support import DEADLINE_S


def test_a_picture_drawn_before_reflect_has_its_store_shows_no_rejects(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    asyncio.run(demo.refresh())
    # As reflect leaves it for the moment between making the file and what is in it.
    (demo.folder / "data" / "reflect.db").touch()
    asyncio.run(demo.refresh())
    assert demo.tally.rejects == {}


async def test_a_picture_that_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    (demo.folder / "data" / "reflect.db").write_bytes(b"not a database")

    async def draw() -> None:
        async with _drawing(demo, Console(file=io.StringIO()), None):
            [drawing] = [each for each in asyncio.all_tasks() if each.get_name() == "progress"]
            await asyncio.wait([drawing], timeout=DEADLINE_S)

    with pytest.raises(QuarantineError, match="not a database"):
        await draw()
