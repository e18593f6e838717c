"""A TLS handshake leaves the loop its turns: counted by the records that pass in each of them."""

import asyncio
import json
import shutil
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from firmware.rigs import Certificates
from nervus.simulator import Toolchain

SCRIPT = Path(__file__).parent / "on_board" / "handshake.py"
CONNACK = b"\x20\x02\x00\x00"
FEWEST_RECORDS = {ssl.TLSVersion.TLSv1_2: 13, ssl.TLSVersion.TLSv1_3: 9}


def server_context(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    """TLS as the broker has it, in one version only; boards of today stop at 1.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(
        certificates.path("server", "cert", "pem"), certificates.path("server", "key", "pem")
    )
    context.load_verify_locations(certificates.path("ca", "cert", "pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The least of a broker: whoever says anything is let in."""
    if await reader.read(1024):
        writer.write(CONNACK)
        await reader.read()
    writer.close()


async def handshake(certificates: Certificates, port: int, flash: Path) -> list[tuple]:
    """What a board told of its handshake (see the script)."""
    files = [("m1", "cert"), ("m1", "key"), ("ca", "cert")]
    for (
        owner,
        part,
    ) in files:  # a board names its files in 64 characters, and a test's folder is deep
        shutil.copy(certificates.path(owner, part, "der"), flash / f"{owner}-{part}.der")
    toolchain = replace(Toolchain.locate(), form="ram")
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    with ours, theirs:
        process = await asyncio.create_subprocess_exec(
            *toolchain.command(SCRIPT),
            str(port),
            *(f"{owner}-{part}.der" for owner, part in files),
            cwd=flash,
            env={**toolchain.environment(), "NERVUS_CONTROL_FD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(18):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, (output[-300:], errors.decode())
    return [(tuple(records), moved) for records, moved in json.loads(output.splitlines()[-1])]


@pytest.mark.parametrize("version", FEWEST_RECORDS, ids=lambda version: version.name)
async def test_reflex_fires_between_any_two_steps_of_a_handshake(
    certificates: Certificates, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = server_context(certificates, version)
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        turns = await handshake(certificates, port, tmp_path)

    assert turns[0] == (("out",), 0)
    # At most one record that came is worked on in a turn, and one step taken after a record went.
    assert {records for records, _ in turns} <= {("in",), ("out",), ("in", "out")}
    assert sum(len(records) for records, _ in turns) >= FEWEST_RECORDS[version]
    # The door moved under each of these turns, and the lamp before the next one.
    assert [moved for _, moved in turns[1:]] == [1] * (len(turns) - 1)
