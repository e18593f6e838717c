"""Who may connect to a broker, and as whom: real mosquitto, real clients."""

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nervus.bus import session as session_module
from nervus.bus.client import Client, FastClient
from nervus.runtime.brokers import brokers
from nervus.runtime.identity import Authority, Identity
from nervus.runtime.rights import session_of
from nervus.runtime.state import BROKERS, BrokerName, StateFolder
from security.clients import CONNACK_ACCEPTED, answer_to_connect
from support import House, eventually
from system.command_clients import until

# As /proc/net/tcp writes a socket's state and, byte by byte from the end, its address.
LISTENING, LOOPBACK = "0A", "0100007F"


@pytest.fixture
def porch(running_house: House) -> Identity:
    return running_house.join("porch", "board", "room/porch")


@pytest.mark.req("S4-58")
@pytest.mark.parametrize("broker", BROKERS)
def test_without_a_certificate_nobody_connects(running_house: House, broker: BrokerName) -> None:
    relay = running_house.join("relay", "relay")
    no_certificate = ssl.create_default_context(cafile=str(relay.ca))
    address = running_house.settings.brokers.get(broker)
    assert answer_to_connect(address.port, None) == b""
    assert answer_to_connect(address.port, no_certificate) == b""
    # The same bytes with a certificate are answered: the refusals above were about that.
    assert answer_to_connect(address.port, relay.ssl_context()) == CONNACK_ACCEPTED


@pytest.mark.req("S4-58")
def test_a_certificate_of_another_authority_is_refused(
    running_house: House, tmp_path: Path
) -> None:
    ours = running_house.join("relay", "relay")
    foreign = Authority.create(StateFolder.create(tmp_path / "foreign")).issue("relay", "relay")
    foreign.ca.write_bytes(ours.ca.read_bytes())
    assert running_house.publish(ours, "core", "/x", "in").returncode == 0
    assert running_house.publish(foreign, "core", "/x", "in").returncode != 0


@pytest.mark.req("S4-58")
@pytest.mark.parametrize("broker", BROKERS)
def test_an_expired_certificate_is_refused(running_house: House, broker: BrokerName) -> None:
    past = datetime.now(UTC) - timedelta(days=366)
    late = Authority(running_house.state, clock=lambda: past).issue("late", "consumer")
    fresh = running_house.join("fresh", "consumer")
    assert running_house.publish(fresh, broker, "/x", "in").returncode == 0
    assert running_house.publish(late, broker, "/x", "in").returncode != 0


@pytest.mark.parametrize("kind", [FastClient, Client], ids=["fast", "stock"])
async def test_whose_certificate_has_expired_is_told_so_by_his_session(
    running_house: House, kind: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_CLIENT", kind)
    past = datetime.now(UTC) - timedelta(days=366)
    late = Authority(running_house.state, clock=lambda: past).issue("late", "consumer")
    for broker in brokers(running_house.state, running_house.settings):
        async with session_of(late, broker) as session:
            await until(lambda session=session: session.trouble)
            told = session.trouble or ""
        assert told.startswith("the broker closed the connection before it answered; was our")
        assert "`nervus identity list`" in told


@pytest.mark.req("S4-60")
def test_the_core_broker_speaks_tls_1_3_alone_and_the_boards_listener_1_2_too(
    running_house: House,
) -> None:
    relay = running_house.join("relay", "relay")
    for broker, old in (("core", b""), ("spinal", CONNACK_ACCEPTED)):
        port = running_house.settings.brokers.get(broker).port  # type: ignore[arg-type]
        for version, answer in (
            (ssl.TLSVersion.TLSv1_3, CONNACK_ACCEPTED),
            (ssl.TLSVersion.TLSv1_2, old),
        ):
            context = relay.ssl_context()
            context.minimum_version = context.maximum_version = version
            assert answer_to_connect(port, context) == answer, (broker, version)


def test_a_brokers_own_certificate_cannot_be_used_to_join(running_house: House) -> None:
    server = running_house.authority.get("broker-core")
    assert running_house.publish(server, "core", "/x", "in").returncode != 0


def test_the_broker_is_refused_by_a_client_that_expects_another_host(
    running_house: House,
) -> None:
    relay = running_house.join("relay", "relay")
    good = running_house.publish(relay, "core", "/x", "in", "-h", "localhost")
    assert good.returncode == 0
    bad = running_house.publish(relay, "core", "/x", "in", "-h", "127.0.0.2")
    assert bad.returncode != 0


def test_a_client_id_cannot_be_chosen(running_house: House, porch: Identity) -> None:
    mallory = running_house.join("mallory", "consumer")
    victim = running_house.listen(porch, "spinal", ["/sc/dev/event/device/porch/pong"], 1)
    stolen = running_house.publish(mallory, "spinal", "/x", "", "-i", "porch")
    assert stolen.returncode == 0
    log = running_house.log("spinal")
    assert " as mallory " in log
    assert "already connected" not in log
    reliable = running_house.join("reliable", "reliable")
    running_house.publish(reliable, "spinal", "/sc/dev/event/device/porch/pong", "alive")
    assert victim.messages() == ["/sc/dev/event/device/porch/pong alive"]


def test_the_same_identity_twice_is_one_connection(running_house: House, porch: Identity) -> None:
    running_house.listen(porch, "spinal", ["/sc/dev/event/device/porch/pong"], 1)
    running_house.listen(porch, "spinal", ["/sc/dev/event/device/porch/pong"], 1)
    closing = "Client porch already connected, closing old connection"
    eventually(lambda: closing in running_house.log("spinal"))


def test_brokers_listen_on_loopback_alone(running_house: House) -> None:
    listening = [
        line.split()[1].split(":")
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        if line.split()[3] == LISTENING
    ]
    for broker in BROKERS:
        port = running_house.settings.brokers.get(broker).port
        addresses = [address for address, number in listening if int(number, 16) == port]
        assert addresses == [LOOPBACK]


def test_no_key_appears_in_command_lines_or_logs(running_house: House, porch: Identity) -> None:
    secret = porch.key.read_text().splitlines()[1]
    registry = json.loads(running_house.state.registry_file.read_text())
    assert secret not in json.dumps(registry)
    for broker in BROKERS:
        assert secret not in running_house.log(broker)
