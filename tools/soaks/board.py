"""A virtual board over TLS whose link breaks every few seconds, each time in another way.

Each input edge must move its output, each fire of a reflex must arrive, once healed, in its order.
"""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firmware.fault_stand import FAULTS, stood_up
from firmware.rigs import make_certificates, make_tls_broker

if TYPE_CHECKING:
    import argparse

    from firmware.fault_stand import Stand

_GAP_S: Final = (0.2, 0.6)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be asked."""
    parser.add_argument("--minutes", type=float, default=10, metavar="M", help="how long")
    parser.add_argument("--every", type=float, default=5, metavar="S", help="from fault to fault")
    parser.add_argument("--seed", type=int, default=0, help="of faults and gaps")


def run(given: argparse.Namespace) -> int:
    """Run it; 1 when something was lost, out of order, or the board restarted."""
    # It tells of each write to a connection that the fault has just ended.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="nervus-soak-") as folder:
        return asyncio.run(_soak(Path(folder), given))


async def _soak(folder: Path, given: argparse.Namespace) -> int:
    certificates = make_certificates(folder)
    broker = make_tls_broker(folder, certificates)
    broker.start()
    dice = random.Random(given.seed)  # noqa: S311 - no secret
    counts: dict[str, int] = {}
    try:
        async with stood_up(broker, certificates, folder, inside=True) as stand:
            end = time.monotonic() + given.minutes * 60
            while time.monotonic() < end:
                fault = dice.choice(FAULTS)
                counts[fault.__name__] = counts.get(fault.__name__, 0) + 1
                await stand.online()
                healed_by = time.monotonic() + given.every
                await fault(stand)
                stand.proxy.heal()
                while time.monotonic() < healed_by:
                    await asyncio.sleep(dice.uniform(*_GAP_S))
                    await stand.edges(1)
            return await _verdict(stand, counts)
    finally:
        broker.stop()


async def _verdict(stand: Stand, counts: dict[str, int]) -> int:
    problems = []
    try:
        told = await stand.told()
    except TimeoutError:
        told = []
        problems.append("fires of reflexes did not arrive")
    if told and told != stand.moved:
        problems.append("fires do not match the edges")
    arrived = list(dict.fromkeys(m.meta["seq"] for m in stand.hub.of("ReflexFire")))
    if arrived != sorted(arrived):
        problems.append("fires came out of order")
    if stand.board.starts > 1:
        problems.append(f"the board restarted {stand.board.starts - 1} times")
    shed = [line for line in stand.board.log.lines if "queue_full" in line or "Memory" in line]
    late = sum(m.meta.get("historical", False) for m in stand.hub.of("ReflexFire"))
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(
        f"{sum(counts.values())} faults, {len(stand.moved)} edges, each moved its output; "
        f"{len(arrived)} fires arrived, {late} of them late; "
        f"{'' if problems else 'nothing lost'}"
    )
    for problem in problems:
        print("FAILED: " + problem)
    for line in shed:
        print("the board: " + line)
    if problems:
        print(_around(stand))
    return 1 if problems else 0


def _around(stand: Stand) -> str:
    """Where the fires first differ from the edges."""
    fires = list(stand.fires().items())
    for at, wanted in enumerate(stand.moved):
        if at >= len(fires) or fires[at][1] != wanted:
            return f"edge {at} {wanted}: fires {fires[max(0, at - 3) : at + 3]}"
    return "each edge has its fire"
