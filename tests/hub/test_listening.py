"""Whether a process listens, as the kernel tells it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nervus.runtime.listening import listens


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["4", "6"])
def bound(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket with a port of its own that does not listen yet."""
    family, host = request.param
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.bind((host, 0))
        yield one


def port(of: socket.socket) -> int:
    number: int = of.getsockname()[1]
    return number


def test_a_port_that_is_only_taken_is_not_listened_on(bound: socket.socket) -> None:
    assert not listens(os.getpid(), port(bound))
    bound.listen()
    assert listens(os.getpid(), port(bound))


def test_a_connection_from_a_port_is_not_listening_on_it(bound: socket.socket) -> None:
    with socket.socket(bound.family, socket.SOCK_STREAM) as server:
        server.bind((bound.getsockname()[0], 0))
        server.listen()
        bound.connect(server.getsockname())
        assert not listens(os.getpid(), port(bound))
        assert listens(os.getpid(), port(server))


def test_nobody_is_connected_to(bound: socket.socket) -> None:
    bound.listen()
    assert listens(os.getpid(), port(bound))
    bound.settimeout(0)
    with pytest.raises(BlockingIOError):
        bound.accept()


def test_what_another_process_listens_on_does_not_count(bound: socket.socket) -> None:
    bound.listen()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert not listens(other.pid, port(bound))
        other.communicate(b"\n")


def test_of_a_process_that_does_not_show_its_files_the_port_alone_counts(
    bound: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: Path) -> Iterator[Path]:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", closed)
    assert not listens(os.getpid(), port(bound))
    bound.listen()
    assert listens(os.getpid(), port(bound))


def test_a_process_that_has_ended_listens_on_nothing(bound: socket.socket) -> None:
    bound.listen()
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        pass
    assert not listens(other.pid, port(bound))
