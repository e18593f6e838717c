"""A reject is in the quarantine exactly once, wherever its reporter and reflect are killed."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from fault.kept_part import BAD
from fault.reject_lives import REFLECT, REPORTER, ROOMS
from hub.plain_broker import PlainBroker
from support import DIES_WITH_US

pytestmark = pytest.mark.usefixtures("unmeasured")

TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(60)  # five pairs of lives, killed and started again, on a busy machine
@pytest.mark.req("S0-7")
@pytest.mark.parametrize("point", ["", *REFLECT], ids=lambda point: point or "lives")
async def test_a_reject_is_kept_once_wherever_reporter_and_reflect_are_killed(
    tmp_path: Path, point: str
) -> None:
    brokers = []
    for name in ("spinal", "core"):
        (tmp_path / name).mkdir()
        brokers.append(PlainBroker(tmp_path / name))
        await brokers[-1].start()
    program = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, sys.executable, "-m", "fault.reject_lives", point, str(tmp_path),
        *(str(broker.address.port) for broker in brokers),
        env=os.environ | {"PYTHONPATH": str(TESTS)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await program.communicate()
    for broker in brokers:
        broker.kill()
    assert program.returncode == 0
    once = [[BAD.format(room), 1] for room in sorted(ROOMS)]
    assert json.loads(output) == dict.fromkeys(("", *REPORTER), once)
