"""The link's faults, in plain and in TLS: reflexes go on, nothing promised is lost, no restart."""

import asyncio
from pathlib import Path

import pytest

from firmware.fault_stand import FAULTS, REASONS, claim_of_200_megabytes, stood_up
from firmware.rigs import Broker, Certificates

pytestmark = pytest.mark.usefixtures("unmeasured")

PINGRESP = b"\xd0\x00"


@pytest.fixture(params=["plain", "tls"])
def secured(request: pytest.FixtureRequest, certificates: Certificates) -> Certificates | None:
    return certificates if request.param == "tls" else None


@pytest.mark.req("S0-107")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_no_fault_of_the_link_costs_a_reflex_or_a_promised_message(
    secured: Certificates | None, request: pytest.FixtureRequest, tmp_path: Path, fault: object
) -> None:
    broker = request.getfixturevalue("tls_broker" if secured else "broker")
    inside = fault is claim_of_200_megabytes
    async with stood_up(broker, secured, tmp_path, inside=inside) as stand:
        await fault(stand)
        ended = [line for line in stand.board.log.lines if "link down" in line]
        stand.proxy.heal()
        await stand.edges(2)
        told = await stand.told()

    reasons = {line.split("link down: ")[1].split(" ")[0] for line in ended}
    assert reasons <= REASONS.get(fault.__name__, set())
    assert bool(reasons) == (fault.__name__ in REASONS)
    assert told == stand.moved
    assert stand.board.starts == 1
    assert not any("MemoryError" in line for line in stand.board.log.lines)


async def test_flood_that_a_board_cannot_read_in_time_costs_no_link(
    broker: Broker, tmp_path: Path
) -> None:
    async with stood_up(broker, None, tmp_path, ping_s=1) as stand:
        # What the hub says lies behind the flood, so it need not say anything.
        stand.hub.answers_pings = False
        flood = asyncio.create_task(stand.proxy.flood_board(PINGRESP * 32_768))
        await stand.pings(5)
        await stand.edges(2)
        flood.cancel()

        assert not any("link down" in line for line in stand.board.log.lines)


async def test_answers_that_come_too_late_for_the_time_prove_the_link(
    broker: Broker, tmp_path: Path
) -> None:
    async with stood_up(broker, None, tmp_path, ping_s=1) as stand:
        stand.hub.answers_late = True
        await stand.says("pong refused", 5)

        assert not any("link down" in line for line in stand.board.log.lines)
