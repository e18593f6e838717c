"""Fixtures of the firmware tests; what they are made of is in rigs.py."""

import binascii
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from firmware.hub_stand import HubStand, node
from firmware.rigs import (
    CHECKOUT,
    Broker,
    Certificates,
    FaultProxy,
    make_certificates,
    make_tls_broker,
)
from nervus.runtime.settings import free_port
from nervus.simulator import VirtualBoard

# umqtt.simple 1.3.4 asks for MicroPython's own names of three standard modules.
sys.modules.setdefault("usocket", socket)
sys.modules.setdefault("ustruct", struct)
sys.modules.setdefault("ubinascii", binascii)
sys.path.append(str(CHECKOUT / ".tools" / "umqtt"))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker without TLS."""
    port = free_port()
    config = tmp_path / "broker.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_type all\n"
    )
    made = Broker(config, port)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, a server certificate for loopback, two clients `m1` and `observer`."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_broker(tmp_path: Path, certificates: Certificates) -> Iterator[Broker]:
    """A broker that demands client certificates; CN = username = client id."""
    made = make_tls_broker(tmp_path, certificates)
    made.start()
    yield made
    made.stop()


@pytest.fixture
async def black_hole(broker: Broker) -> AsyncIterator[FaultProxy]:
    """A proxy in front of `broker`."""
    made = FaultProxy(broker.port)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def hub(broker: Broker) -> AsyncIterator[HubStand]:
    """The hub's side of `broker`."""
    async with HubStand(broker.port) as stand:
        yield stand


@pytest.fixture
async def board(
    broker: Broker,
    hub: HubStand,  # it is to see the birth
    tmp_path: Path,
) -> AsyncIterator[VirtualBoard]:
    """A virtual board `m1` on `broker`, without TLS."""
    async with VirtualBoard(tmp_path / "m1", node(broker.port)) as made:
        hub.board = made
        yield made
