"""What `nervus doctor` says of brokers that refuse or drop, of the clock and of the disk."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from hub.plain_broker import running, within
from nervus.bus import BrokerAddress, Filter, Limits, Session
from nervus.runtime import doctor
from nervus.runtime.broker_health import judged
from nervus.runtime.brokers import MAX_CONNECTIONS, MAX_QUEUED_MESSAGES, brokers
from nervus.runtime.doctor import examine
from nervus.runtime.finding import Finding, Verdict
from nervus.wire import Packet, topics
from support import House, broker_processes

DROPPED = "$SYS/broker/publish/messages/dropped"


def finding(path: Path, what: str) -> Finding:
    return next(each for each in examine(path) if each.what == what)


def address(house: House, name: str) -> BrokerAddress:
    listener = house.settings.brokers.core
    tls = house.authority.get(name).ssl_context()
    return BrokerAddress(listener.connect_host, listener.port, tls)


async def test_a_broker_that_dropped_for_a_slow_client_is_told(house: House) -> None:
    for name, role in (("doctor", "observer"), ("relay", "relay"), ("slow", "consumer")):
        house.authority.issue(name, role)
    house.authority.issue("watcher", "observer")
    core = brokers(house.state, house.settings)[1]
    core.write_acl(house.authority)
    text = core.configuration_file.read_text()
    text = text.replace(f"max_queued_messages {MAX_QUEUED_MESSAGES}", "max_queued_messages 5")
    core.configuration_file.write_text(text.replace("sys_interval 10", "sys_interval 1"))
    go = asyncio.Event()
    dropped: list[int] = []

    async def wait(_: Packet) -> None:
        await go.wait()

    async def count(packet: Packet) -> None:
        dropped.append(int(packet.payload))

    topic = topics.gated_relay("room", "hall", "somatic").topic
    slow = Session(
        "slow", "core", address(house, "slow"), filters=[Filter(topic, 1)], on_packet=wait,
        limits=Limits(receive_maximum=2),
    )  # fmt: skip
    watcher = Session(
        "watcher", "core", address(house, "watcher"), filters=[Filter(DROPPED, 1)], on_packet=count
    )
    relay = Session("relay", "core", address(house, "relay"))
    with broker_processes(house):
        async with running(slow, watcher, relay):
            before = await asyncio.to_thread(finding, house.state.path, "core broker")
            for _ in range(20):
                await relay.publish(topic, b"{}", qos=1)
            # It said so of all: two of them are under way, and five are kept.
            await within(lambda: dropped and dropped[-1] == 20 - 2 - 5)
            after = await asyncio.to_thread(finding, house.state.path, "core broker")
            go.set()
    assert before.verdict is Verdict.OK
    assert "nothing dropped" in before.found
    assert after.verdict is Verdict.WARNING
    assert after.found == f"dropped {dropped[-1]} messages since its start"
    assert "dropped for client" in after.hint


def test_an_identity_that_no_broker_lets_in_is_told_with_what_to_do(
    running_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = running_house
    house.join("doctor", "observer")
    assert finding(house.state.path, "core broker").verdict is Verdict.OK
    monkeypatch.setattr("nervus.runtime.broker_health.WITHIN_S", 1.0)
    folder = house.authority.get("doctor").folder
    foreign = house.authority.get("broker-core").folder
    for name in ("cert.pem", "key.pem"):  # a server's certificate lets nobody in
        (folder / name).write_bytes((foreign / name).read_bytes())
    told = finding(house.state.path, "core broker")
    assert told.verdict is Verdict.FAILURE
    assert told.hint


def test_a_broker_near_its_limit_of_clients_is_told() -> None:
    assert judged("core broker", 0, MAX_CONNECTIONS).verdict is Verdict.WARNING
    assert judged("core broker", 0, 12) == Finding(
        Verdict.OK, "core broker", "12 clients, nothing dropped"
    )


@pytest.mark.parametrize(
    ("year", "synchronized", "verdict"),
    [
        (2026, True, Verdict.OK),
        (2026, None, Verdict.OK),
        (2026, False, Verdict.WARNING),
        (1970, True, Verdict.FAILURE),
    ],
)
def test_a_clock_that_is_wrong_or_on_its_own_is_told(
    year: int,
    synchronized: bool | None,  # noqa: FBT001 - a parameter of the table above
    verdict: Verdict,
) -> None:
    told = doctor._judged_clock(datetime(year, 12, 1, tzinfo=UTC), synchronized=synchronized)
    assert told.verdict is verdict
    assert bool(told.hint) is (verdict is not Verdict.OK)
    assert doctor._synchronized() in {True, False, None}


@pytest.mark.parametrize(
    ("free", "verdict"), [(10_000_000, Verdict.FAILURE), (900_000_000, Verdict.WARNING)]
)
def test_a_disk_that_is_full_or_almost_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict
) -> None:
    monkeypatch.setattr(doctor, "disk_usage", lambda _: SimpleNamespace(free=free))
    told = finding(house.state.path, "disk")
    assert (told.verdict, "make room" in told.hint) == (verdict, True)
