"""A board behind a proxy that breaks its link, for the fault matrix and for the soak."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware.hub_stand import DOOR, LAMP, HubStand, door_rule, node
from firmware.rigs import Broker, Certificates, FaultProxy
from nervus.simulator import Identity, VirtualBoard

KEEPALIVE_S = 2
HOSTILE = "/sc/dev/event/device/m1/pong"
CLAIMS_200_MB = b"\x30\xff\xff\xff\x5f\x00\x05hello"


@dataclass
class Stand:
    """A board behind a proxy, and what happened to it."""

    board: VirtualBoard
    hub: HubStand
    proxy: FaultProxy
    moved: list[str]

    async def edges(self, count: int) -> None:
        """Move the door; the lamp follows each time."""
        for _ in range(count):
            level = 1 - (self.board.level("pin", LAMP) or 0)
            self.board.set_pin(DOOR, level)
            await self.board.wait_for("pin", LAMP, level, timeout_s=10)
            self.moved.append(f"lamp={'true' if level else 'false'}")

    def until_down(self) -> "asyncio.Task[None]":
        """Wait from now on until the board notices that its link is dead."""
        return asyncio.create_task(self._changed(self._last("link down")))

    async def online(self) -> None:
        """Wait until the link is up."""
        async with asyncio.timeout(20):
            while not self._last("link up", "link down").count("link up"):  # noqa: ASYNC110 - its log
                await asyncio.sleep(0.02)

    async def says(self, words: str, times: int) -> None:
        """Wait until the board has said so as many times more."""
        wanted = self._count(words) + times
        async with asyncio.timeout(15):
            while self._count(words) < wanted:  # noqa: ASYNC110 - its log
                await asyncio.sleep(0.02)

    def _count(self, words: str) -> int:
        return sum(words in line for line in self.board.log.lines)

    async def pings(self, times: int) -> None:
        """Wait until the board has pinged as many times more."""
        wanted = len(self.hub.of("Ping")) + times
        await self.hub.until("Ping", lambda _: len(self.hub.of("Ping")) >= wanted, 15)

    async def _changed(self, before: str) -> None:
        async with asyncio.timeout(12):
            while self._last("link down") == before:  # noqa: ASYNC110 - its log
                await asyncio.sleep(0.02)

    def _last(self, *words: str) -> str:
        """The board's newest line with one of these words; each begins with its ticks."""
        for line in reversed(self.board.log.lines):
            if any(word in line for word in words):
                return line
        return ""

    async def told(self) -> list[str]:
        """What the fires say, in their order, once as many have come as the lamp moved."""
        await self.online()
        async with asyncio.timeout(15):
            while len(self.fires()) < len(self.moved):  # noqa: ASYNC110 - thousands after a soak
                await asyncio.sleep(0.05)
        return list(self.fires().values())

    def fires(self) -> dict[int, str]:
        """Sequence number → action of each fire that came, in the order of the numbers."""
        came = {m.meta["seq"]: m.payload["actions"][0] for m in self.hub.of("ReflexFire")}
        return dict(sorted(came.items()))


async def latency(stand: Stand) -> None:
    stand.proxy.latency_s = 0.3
    await stand.edges(4)
    await asyncio.sleep(1)


async def black_hole(stand: Stand) -> None:
    down = stand.until_down()
    stand.proxy.open = False
    await stand.edges(4)
    await down


async def slow_drain(stand: Stand) -> None:
    stand.proxy.piece, stand.proxy.pause_s = 64, 0.02
    await stand.edges(4)
    await asyncio.sleep(1)


async def reset(stand: Stand) -> None:
    await stand.edges(2)
    down = stand.until_down()
    stand.proxy.reset()
    await stand.edges(2)
    await down


async def half_open(stand: Stand) -> None:
    down = stand.until_down()
    stand.proxy.half_open()
    await stand.edges(4)
    await down


async def partial_writes(stand: Stand) -> None:
    stand.proxy.piece = 1
    await stand.edges(4)


async def hostile_mebibyte(stand: Stand) -> None:
    await stand.hub.send(HOSTILE, b"x" * (1 << 20), qos=0)
    await stand.edges(4)
    await stand.hub.until("RejectEvent", lambda m: m.payload["reason_code"] == "oversize")


async def claim_of_200_megabytes(stand: Stand) -> None:
    down = stand.until_down()
    stand.proxy.say_to_board(CLAIMS_200_MB)
    await stand.edges(4)
    await down


FAULTS = (
    latency,
    black_hole,
    slow_drain,
    reset,
    half_open,
    partial_writes,
    hostile_mebibyte,
    claim_of_200_megabytes,
)
# Each of these ends the link, for this reason.
REASONS = {
    "black_hole": {"ping_timeout", "puback_timeout"},
    "reset": {"io", "closed_by_broker"},
    "half_open": {"ping_timeout", "puback_timeout"},
    "claim_of_200_megabytes": {"oversize"},
}


def context(certificates: Certificates, name: str, *, server: bool = False) -> ssl.SSLContext:
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    made = ssl.create_default_context(purpose, cafile=certificates.path("ca", "cert", "pem"))
    made.load_cert_chain(
        certificates.path(name, "cert", "pem"), certificates.path(name, "key", "pem")
    )
    return made


@asynccontextmanager
async def stood_up(
    broker: Broker,
    certificates: Certificates | None,
    folder: Path,
    *,
    inside: bool = False,
    ping_s: int = 4,
) -> AsyncIterator[Stand]:
    """A synced board with one reflex behind a proxy; `inside`: the proxy speaks TLS itself.

    Its pings are rare: the link itself is to notice, long before three of them are missed.
    """
    identity = hub_tls = near = far = None
    if certificates is not None:
        hub_tls = context(certificates, "observer")
        names = (("m1", "cert"), ("m1", "key"), ("ca", "cert"))
        identity = Identity(*(certificates.path(*name, "der") for name in names))
        if inside:
            near = context(certificates, "server", server=True)
            far = context(certificates, "m1")
    proxy = FaultProxy(broker.port, near, far)
    await proxy.start()
    parts = node(proxy.port, keepalive_s=KEEPALIVE_S, ping_s=ping_s)
    try:
        async with (
            HubStand(broker.port, tls=hub_tls) as hub,
            VirtualBoard(folder / "m1", parts, identity) as board,
        ):
            hub.board = board
            await hub.synced()
            await hub.configure(door_rule(max_fires_per_min=600))
            stand = Stand(board, hub, proxy, [])
            await stand.edges(2)
            yield stand
    finally:
        await proxy.stop()
