"""What the unix port hides of a board, each difference with the test that holds the firmware to it.

| difference | unix port | boards |
|---|---|---|
| socket timeout after `setblocking(True)` | kept | dropped: the call hangs for ever |
| error numbers | Linux | ESP32: newlib's; lwIP's own are negative |
| `write` | takes all | takes a part, one TCP segment at most |
| a read or write that would wait | None | None, or EAGAIN as 11 or -11 |
| a refused connection | POLLERR and POLLHUP | POLLHUP, or writable and the first call fails |
| sockets | hundreds | four to eight: one that is not closed is missed soon |
| TLS without memory | never | MemoryError, or OSError of errno's or of mbedTLS's number |
| option TCP_NODELAY | there | refused by some builds |
| epoch of `time.time()` | 1970 | ESP32: 2000, and no clock at all after power-on |
| floats | double | single: 24 bits, so no time may ever be one |
| order of a dict | hash order, and another in each process | as here |
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from firmware.rigs import CHECKOUT
from nervus.simulator import Toolchain

HERE = Path(__file__).parent
LIBRARY = CHECKOUT / "firmware" / "lib"
MODULES = sorted((LIBRARY / "spinal").glob("*.py"))
SHIMS = """
import binascii, runpy, socket, struct, sys
sys.modules.update(usocket=socket, ustruct=struct, ubinascii=binascii)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
PORTS = ("unix", "esp32", "pico", "lwip")
# Of each scenario on each port, plain and TLS alike; the last number: sockets left open.
OUTCOMES = {
    "whole_message_through_partial_writes": "(['big'], True, []) open 0",
    "black_hole": "(True, ['ping_timeout']) open 0",
    "unacknowledged_message_comes_back": "(['kept'], ['puback_timeout']) open 0",
    "timeout_error_from_below": "(['io'], 1) open 0",
    "reset": "(['io'], 1) open 0",
    "end_of_stream": "('closed_by_broker', 1) open 0",
    "refused": "(['io'], 1) open 0",
    "never_connects": "(True, ['connect_timeout'], 0) open 0",
    "name_is_not_found": "(['io'], 0, 6, True) open 0",  # of 61 attempts
    "name_is_seldom_looked_up": "(4, True) open 0",  # of 80 attempts
}


# Every scenario on every port runs before the first test: seconds, and more beside others.
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("unmeasured")]


@pytest.fixture(scope="module", params=["cpython", "micropython"])
def outcomes(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the link did on each port, told by an interpreter of its own."""
    toolchain = Toolchain.locate()
    script = str(HERE / "port_scenarios.py")
    folders = os.pathsep.join(map(str, (LIBRARY, HERE, toolchain.umqtt)))
    if request.param == "cpython":
        command = [sys.executable, "-c", SHIMS, script]
        environment = {**os.environ, "PYTHONPATH": folders}
    else:
        command = [str(toolchain.micropython), "-X", "heapsize=512k", script]
        environment = {"MICROPYPATH": folders + os.pathsep + ".frozen"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stdout[-800:] + done.stderr[-800:]
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("scenario", OUTCOMES)
def test_link_does_the_same_on_the_sockets_of_every_port(
    outcomes: dict[str, str], scenario: str
) -> None:
    seen = {name: told for name, told in outcomes.items() if name.endswith(" " + scenario)}

    assert len(seen) == 2 * len(PORTS)
    assert set(seen.values()) == {OUTCOMES[scenario]}


@pytest.mark.parametrize("port", PORTS)
def test_tls_that_finds_no_memory_is_tried_again_and_never_ends_the_board(
    outcomes: dict[str, str], port: str
) -> None:
    told = outcomes[f"{port} tls no_room_for_tls"]

    assert told == "(True, True, ['no_memory']) open 0"


@pytest.mark.parametrize("port", PORTS)
def test_tls_handshake_takes_in_and_sends_one_record_in_a_turn(
    outcomes: dict[str, str], port: str
) -> None:
    assert outcomes[f"{port} tls handshake_in_slices"] == "(11, 1) open 0"
    assert outcomes[f"{port} plain handshake_in_slices"] == "(0, 0) open 0"


def test_no_module_reads_the_wall_clock_of_its_port() -> None:
    asked = [
        f"{module.name}:{node.lineno}"
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("time", n) for n in ("time", "localtime", "gmtime")}
    ]

    assert len(MODULES) > 20
    assert asked == []


@pytest.mark.parametrize("module", ["clock", "ticks", "link", "outbox", "ids"])
def test_times_never_become_floats(module: str) -> None:
    tree = ast.parse((LIBRARY / "spinal" / f"{module}.py").read_text())
    floats = [
        ast.dump(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Div)
        or (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Name) and node.id == "float")
    ]

    assert floats == []
