"""A board that lost its clock with the power takes part in TLS again, which asks for dates."""

import asyncio
import datetime as dt
import ssl
from pathlib import Path

from firmware.hub_stand import DOOR, LAMP, HubStand, door_rule, node, now_ms
from firmware.rigs import Broker, Certificates, issue
from nervus.simulator import Identity, VirtualBoard
from spinal.store import Store

DAY_MS = 86_400_000
BEHIND = "the port's clock was behind and is set"


def identity(folder: Path) -> Identity:
    return Identity(folder / "m1.cert.der", folder / "m1.key.der", folder / "ca.cert.der")


async def said(board: VirtualBoard, words: str, times: int = 1) -> None:
    async with asyncio.timeout(12):
        while sum(words in line for line in board.log.lines) < times:  # noqa: ASYNC110 - its log
            await asyncio.sleep(0.02)


async def test_the_port_s_clock_is_set_at_each_boot_and_the_hub_s_date_is_kept(
    tls_broker: Broker, certificates: Certificates, tmp_path: Path
) -> None:
    tls = ssl.create_default_context(cafile=certificates.path("ca", "cert", "pem"))
    tls.load_cert_chain(
        certificates.path("observer", "cert", "pem"), certificates.path("observer", "key", "pem")
    )
    board = VirtualBoard(tmp_path / "m1", node(tls_broker.port), identity(certificates.folder))
    async with HubStand(tls_broker.port, tls=tls) as hub, board:
        hub.board = board
        # Noon there: no day ends meanwhile.
        hub.ahead_ms = (now_ms() // DAY_MS + 40) * DAY_MS + DAY_MS // 2 - now_ms()
        await said(board, BEHIND)
        await hub.synced()
        store = Store(str(board.flash))
        async with asyncio.timeout(8):
            while store.read("clock") is None:  # noqa: ASYNC110 - its flash
                await asyncio.sleep(0.02)
        kept = dt.datetime(*store.read("clock"), tzinfo=dt.UTC)
        # Once a day: the flash is not worn by each second of it.
        seen = len(hub.of("Ping"))
        await hub.until("Ping", lambda _: len(hub.of("Ping")) >= seen + 2)
        assert dt.datetime(*store.read("clock"), tzinfo=dt.UTC) == kept
        board.kill()
        await said(board, BEHIND, times=2)

    ahead = kept - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=39) < ahead < dt.timedelta(days=42)


async def test_a_broker_whose_certificate_is_newer_than_all_the_board_knows_moves_its_clock_on(
    tmp_path: Path,
) -> None:
    authority = issue(tmp_path, "ca", None, [])
    issue(tmp_path, "m1", authority, [])
    issue(tmp_path, "server", authority, [], begins_in=dt.timedelta(days=3))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.cert.pem", tmp_path / "server.key.pem")

    async def nobody(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(nobody, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    parts = node(port, broker={"host": "127.0.0.1", "port": port, "server_name": "server"})
    async with server, VirtualBoard(tmp_path / "m1", parts, identity(tmp_path)) as board:
        await said(board, "the port's clock is behind and goes on by some days")


async def test_reflexes_run_on_a_board_that_has_lost_its_identity(
    broker: Broker, tmp_path: Path
) -> None:
    async with HubStand(broker.port) as hub:
        async with VirtualBoard(tmp_path / "m1", node(broker.port)) as board:
            hub.board = board
            await hub.synced()
            await hub.configure(door_rule())
        lost = {"cert": "cert.der", "key": "key.der", "ca": "ca.der"}
        parts = node(broker.port, identity=lost)
        async with VirtualBoard(tmp_path / "m1", parts) as board:
            await said(board, "no link without an identity: ")
            board.set_pin(DOOR, 1)
            await board.wait_for("pin", LAMP, 1, timeout_s=8)
            await said(board, "link down: identity")

    assert board.starts == 1
