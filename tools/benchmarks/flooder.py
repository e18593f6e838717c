"""A process that floods the relay beside control: background or hostile drivers, ten at once.

Started as `python -m benchmarks.flooder PLAN`, PLAN being JSON: host, port, identity, folder.
Each line of its input, `KIND RATE SECONDS`, is a flood; each line it prints, how many were sent.
A process of its own, so that neither making the flood nor sending it holds up what is measured.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import messages
from benchmarks.round_trips import connected
from nervus.bus import BrokerAddress, Outgoing, Session
from nervus.wire import Mint, topics
from nervus.wire.contracts import RelayBundle

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM: Final = topics.relay_bundle("room", "r0", "somatic")
_BURST: Final = 10


def bundle(mint: Mint, number: int, priority: str, features: int = messages.FEATURES) -> Any:
    """A driver of the flooded room, as brainstem publishes it now."""
    payload = messages.bundle_payload(number, features)
    return mint.full(RelayBundle, ROOM, payload, time.time_ns() // 1_000_000, priority=priority)


def broken(data: bytes) -> bytes:
    """The same message, no longer as its contract says."""
    return data.replace(b'"window_ms":1000', b'"window_ms":"long"')


async def main() -> None:
    """Flood as told, until the input ends."""
    plan = json.loads(sys.argv[1])
    folder = Path(plan["folder"])
    tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    session = Session(plan["identity"], "core", BrokerAddress(plan["host"], plan["port"], tls))
    made = _made(Mint("brainstem", "brainstem", seed=time.time_ns(), boot=int(time.time())))
    async with connected(session):
        print("connected", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind, rate, seconds = line.rsplit(maxsplit=2)
            total = int(float(rate) * float(seconds))
            began = time.perf_counter()
            for number in range(0, total, _BURST):
                # Made before: making them is not the hub's work.
                burst = [next(made) for _ in range(min(_BURST, total - number))]
                if kind == "hostile":
                    burst = [broken(data) for data in burst]
                await asyncio.sleep(max(0.0, began + number / float(rate) - time.perf_counter()))
                for data in burst:
                    session.post(Outgoing(ROOM.topic, data))
            print(total, flush=True)


def _made(mint: Mint) -> Iterator[bytes]:
    for number in count():
        yield bundle(mint, number, "background").data


if __name__ == "__main__":
    asyncio.run(main())
