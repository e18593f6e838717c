"""A revoked identity is out: its live sessions, its certificates, and what it kept in reserve."""

import os
import signal
import ssl
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from nervus.runtime.brokers import brokers
from nervus.runtime.identity import Identity
from nervus.runtime.revocation import RevocationError, revoke
from nervus.runtime.state import BROKERS
from security.clients import CONNACK_ACCEPTED, CONNECT, Peer, answer_to_connect, open_tls
from security.running import nervus, wait_for_brokers
from support import House, broker_processes

# Some start a whole hub, on processors that other tests use too.
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("unmeasured")]


def stolen(identity: Identity, folder: Path) -> Identity:
    """A copy of key and certificate that no revocation can remove."""
    copytree(identity.folder, folder)
    return replace(identity, folder=folder)


def may_connect(house: House, identity: Identity) -> list[bool]:
    ports = [house.settings.brokers.get(broker).port for broker in BROKERS]
    answered = [answer_to_connect(port, identity.ssl_context()) for port in ports]
    return [answer == CONNACK_ACCEPTED for answer in answered]


def is_ended(link: ssl.SSLSocket) -> bool:
    """Whether a connection is at its end, by an attempt to open a session on it."""
    try:
        link.sendall(CONNECT)
        return link.recv(4) == b""
    except OSError:
        return True


@pytest.mark.req("S4-58")
def test_revoking_cuts_live_sessions_of_a_running_system_and_leaves_others_their_rights(
    up: House, tmp_path: Path
) -> None:
    nervus(up, "identity", "issue", "lamp", "--role", "consumer")
    up.join("console", "consumer")
    thief = stolen(up.authority.get("lamp"), tmp_path / "stolen")
    console = up.authority.get("console")
    assert may_connect(up, thief) == [True, True]
    with Peer(up, thief, "spinal") as spinal, Peer(up, thief, "core") as core:
        told = nervus(up, "identity", "revoke", "lamp")
        assert "Revoked lamp: 1 certificate.\n" in told
        assert "spinal and core, which restarted: all sessions of lamp are cut" in told
        spinal.wait_for_the_end()
        core.wait_for_the_end()
        # The promise is 60 s, which is more than this test has.
    wait_for_brokers(up)
    assert may_connect(up, console) == [True, True]
    assert may_connect(up, thief) == [False, False]
    assert "lamp" not in brokers(up.state, up.settings)[1].acl_file.read_text()
    rows = nervus(up, "identity", "list").splitlines()
    assert [row.split()[-3:-1] for row in rows if row.startswith("lamp ")] == [["revoked", "on"]]
    assert ["revoked" in row for row in rows if row.startswith("console ")] == [False]


@pytest.mark.req("S4-58")
def test_a_name_issued_anew_works_and_its_old_certificates_stay_refused(
    supervised_house: House, tmp_path: Path
) -> None:
    house = supervised_house
    first = stolen(house.authority.issue("lamp", "consumer"), tmp_path / "first")
    second = stolen(house.authority.issue("lamp", "consumer"), tmp_path / "second")
    assert may_connect(house, first) == [True, True]
    revocation = revoke(house.state, house.settings, house.authority, "lamp")
    assert revocation.restarted == BROKERS
    assert {one.serial for one in revocation.certificates} == {first.serial, second.serial}
    wait_for_brokers(house)
    third = house.authority.issue("lamp", "consumer")
    assert may_connect(house, first) == [False, False]
    assert may_connect(house, second) == [False, False]
    assert may_connect(house, third) == [True, True]


def test_a_connection_kept_in_reserve_is_cut_too(supervised_house: House, tmp_path: Path) -> None:
    """TLS is done, MQTT not begun: taking the client id over would leave it for later."""
    house = supervised_house
    thief = stolen(house.authority.issue("lamp", "consumer"), tmp_path / "stolen")
    for name in BROKERS:
        port = house.settings.brokers.get(name).port
        used = open_tls(port, thief.ssl_context())
        used.sendall(CONNECT)
        assert used.recv(4) == CONNACK_ACCEPTED
        used.close()
    ports = [house.settings.brokers.get(name).port for name in BROKERS]
    reserve = [open_tls(port, thief.ssl_context()) for port in ports]
    revoke(house.state, house.settings, house.authority, "lamp")
    wait_for_brokers(house)
    house.authority.issue("lamp", "consumer")
    assert [is_ended(link) for link in reserve] == [True, True]
    for link in reserve:
        link.close()


def test_a_tls_session_cannot_be_resumed_after_revocation(
    supervised_house: House, tmp_path: Path
) -> None:
    house = supervised_house
    thief = stolen(house.authority.issue("lamp", "consumer"), tmp_path / "stolen")
    tickets = {}
    for name in BROKERS:
        port = house.settings.brokers.get(name).port
        context = thief.ssl_context()
        with open_tls(port, context) as link:
            link.sendall(CONNECT)
            assert link.recv(4) == CONNACK_ACCEPTED
            ticket = link.session
        with open_tls(port, context, ticket) as link:
            link.sendall(CONNECT)
            assert link.recv(4) == CONNACK_ACCEPTED
            assert link.session_reused
            tickets[port] = (context, link.session)
    revoke(house.state, house.settings, house.authority, "lamp")
    wait_for_brokers(house)
    for port, (context, ticket) in tickets.items():
        assert answer_to_connect(port, context, ticket) == b""


def test_a_broker_that_hangs_is_killed_for_a_revocation(supervised_house: House) -> None:
    house = supervised_house
    house.authority.issue("lamp", "consumer")
    pids = [broker.running_pid() for broker in brokers(house.state, house.settings)]
    assert pids[0] is not None
    os.kill(pids[0], signal.SIGSTOP)
    revocation = revoke(house.state, house.settings, house.authority, "lamp", end_s=0.5)
    assert revocation.restarted == BROKERS
    again = [broker.running_pid() for broker in brokers(house.state, house.settings)]
    assert None not in again
    assert set(again).isdisjoint(pids)


def test_a_revocation_while_nothing_runs_holds_from_the_next_start(
    house: House, tmp_path: Path
) -> None:
    thief = stolen(house.authority.issue("lamp", "consumer"), tmp_path / "stolen")
    console = house.authority.issue("console", "consumer")
    assert revoke(house.state, house.settings, house.authority, "lamp").restarted == ()
    with broker_processes(house):
        assert may_connect(house, console) == [True, True]
        assert may_connect(house, thief) == [False, False]


def test_brokers_that_nobody_starts_again_are_an_error_that_says_so(
    running_house: House,
) -> None:
    house = running_house
    lamp = house.join("lamp", "consumer")
    with Peer(house, lamp, "core") as session:
        with pytest.raises(RevocationError, match=r"spinal.*core.*did not come back; start it"):
            revoke(house.state, house.settings, house.authority, "lamp", start_s=0.2)
        session.wait_for_the_end()
