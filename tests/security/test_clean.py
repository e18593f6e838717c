"""Retained messages that nobody stands for are found and erased, and nothing else is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from typer.testing import CliRunner

from nervus.cli.app import app
from nervus.runtime.brokers import brokers
from nervus.runtime.clean import CleanError, Search, _Cleaner, clean
from nervus.runtime.identity import Identity
from nervus.runtime.orphans import Judge, Orphan
from nervus.runtime.rights import ROLE
from nervus.runtime.state import BROKERS, BrokerName
from nervus.wire import Mint, Packet, Publish, encode, timestamp, topics
from nervus.wire.contracts import (
    AfferentSignal,
    AfferentSignalPayload,
    DeviceStatus,
    DeviceStatusPayload,
    GateState,
    GateStatePayload,
    GlobalModeUpdate,
    GlobalModeUpdatePayload,
)
from security.clients import NOT_AUTHORIZED, Peer
from support import DEADLINE_S, House, eventually

# Identities and rights count once they are on the disk: a slow one takes its time for each.
pytestmark = pytest.mark.timeout(60)

LEGACY = "/bs/global/room/hall/alert"
FOREIGN = "homeassistant/light/hall/config"


def nervus(house: House, *arguments: str) -> str:
    """What a command prints; raises what the command line would explain."""
    words = [*arguments, "--state", str(house.state.path)]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def status(board: str) -> Publish:
    mint = Mint(f"device:{board}", "spinal", seed=1, boot=1)
    payload = DeviceStatusPayload(status="online", session=mint.id(now_ms()))
    return mint.compact(DeviceStatus, topics.device_status(board), payload, now_ms())


def motion(board: str) -> Publish:
    mint = Mint(f"device:{board}", "spinal", seed=2, boot=1)
    payload = AfferentSignalPayload(sensor_type="motion", value=True)
    address = topics.afferent("room", "hall", "motion", board)
    return mint.compact(AfferentSignal, address, payload, now_ms())


def gate(target: str, life_ms: int, source: str = "gates") -> Publish:
    mint = Mint(source, "thalamus", seed=3, boot=1)
    address = topics.gate_state("room", "hall", "channel", target)
    payload = GateStatePayload(
        target_kind="channel", target_id=target, inhibition=0.5, mode="multi", set_by=source,
        epoch=1, policy_id="p1",
    )  # fmt: skip
    expires_at = timestamp(now_ms() + life_ms)
    return mint.full(GateState, address, payload, now_ms(), expires_at=expires_at)


def mode(source: str) -> Publish:
    mint = Mint(source, "consumer", seed=4, boot=1)
    payload = GlobalModeUpdatePayload(mode="night", reason="test")
    expires_at = timestamp(now_ms() + 3_600_000)
    return mint.full(
        GlobalModeUpdate, topics.mode("house", "home"), payload, now_ms(), expires_at=expires_at
    )


def packet(publish: Publish) -> Packet:
    broker: BrokerName = "core" if publish.on == "core" else "spinal"
    return Packet(broker, publish.address.topic, encode(publish.message), retain=True)


@pytest.fixture
def witness(running_house: House) -> Identity:
    """Somebody who may retain whatever he likes, and see it."""
    house = running_house
    for name, role in (("hall", "board"), ("gone", "board"), ("gates", "gatekeeper")):
        house.authority.issue(name, role, "room/hall" if role == "board" else None)
    identity = house.join("witness", "diagnostics")
    house.authority.revoke("gone")
    grant(house)
    return identity


def grant(house: House) -> None:
    """Put the witness's rights in force, which whoever writes the rights takes away."""
    witness = house.authority.get("witness")
    for broker in brokers(house.state, house.settings):
        broker.write_acl(house.authority, ["user witness", "topic readwrite #"])
        with Peer(house, witness, broker.name) as peer:
            # mosquitto misses a signal that comes while it reads: tell it until it knows.
            eventually(
                lambda b=broker, p=peer: b.reload() and p.publish("granted", "") != NOT_AUTHORIZED
            )


def retain(house: House, who: Identity, contents: Mapping[BrokerName, Mapping[str, bytes]]) -> None:
    for broker, messages in contents.items():
        with Peer(house, who, broker) as peer:
            for topic, payload in messages.items():
                assert peer.publish(topic, payload.decode(), retain=True) < 0x80


def retained(house: House, who: Identity) -> set[str]:
    found: set[str] = set()
    for broker in BROKERS:
        with Peer(house, who, broker) as peer:
            peer.subscribe("#")
            found |= {topic for topic, text in peer.settle() if text}
    return found


def by_topic(*publishes: Publish) -> dict[str, bytes]:
    return {each.address.topic: encode(each.message) for each in publishes}


@pytest.mark.req("S0-18", "S2-27")
def test_clean_shows_and_then_erases_exactly_what_nobody_stands_for(
    running_house: House, witness: Identity
) -> None:
    house = running_house
    good = by_topic(status("hall")), by_topic(gate("somatic", 3_600_000))
    bad = (
        by_topic(status("gone"), motion("hall")),
        by_topic(gate("auditory", -1_000), mode("nobody")) | {LEGACY: b"old", FOREIGN: b"theirs"},
    )
    contents = {"spinal": good[0] | bad[0], "core": good[1] | bad[1]}
    retain(house, witness, contents)  # type: ignore[arg-type]
    kept = {*good[0], *good[1], FOREIGN}
    everything = {topic for messages in contents.values() for topic in messages}
    told = json.loads(nervus(house, "clean", "--json"))
    assert told["retained"] == len(everything)
    assert {one["topic"]: one["code"] for one in told["orphans"]} == {
        topics.device_status("gone").topic: "no_owner",
        motion("hall").address.topic: "retained_event",
        topics.gate_state("room", "hall", "channel", "auditory").topic: "expired",
        topics.mode("house", "home").topic: "no_owner",
        LEGACY: "legacy_topic",
    }
    shown = nervus(house, "clean")
    assert "there is no board gone" in shown
    assert "5 of 8 retained messages; erase them: nervus clean --yes" in shown
    grant(house)
    assert retained(house, witness) == everything
    assert "Erased 5 of 8 retained messages" in nervus(house, "clean", "--yes")
    grant(house)
    assert retained(house, witness) == kept
    assert "Clean. 3 retained messages" in nervus(house, "clean")


def test_a_cleaner_has_no_rights_but_those_lent_for_the_moment(
    running_house: House, witness: Identity
) -> None:
    house = running_house
    retain(house, witness, {"spinal": by_topic(motion("hall"))})
    assert "Erased 1 of 1" in nervus(house, "clean", "--yes")
    for broker in brokers(house.state, house.settings):
        lines = broker.acl_file.read_text().splitlines()
        assert lines[lines.index("user clean") + 1 :][:1] in ([""], [])
        assert "topic read #" not in lines
    order = topics.efferent_command("room", "hall", "lamp", "hall", "a1").topic
    with Peer(house, house.authority.get("clean"), "spinal") as cleaner:
        eventually(lambda: cleaner.publish(motion("hall").address.topic, "") == NOT_AUTHORIZED)
        assert cleaner.publish(order, "forged", retain=True) == NOT_AUTHORIZED


def test_what_a_board_retained_goes_when_it_is_revoked_or_moved(supervised_house: House) -> None:
    house = supervised_house
    issue = ("identity", "issue", "hall", "--role", "board", "--scope")
    nervus(house, *issue, "room/hall")
    hall = house.authority.get("hall")
    text = by_topic(status("hall"))
    retain(house, hall, {"spinal": text})
    assert "  retained" not in nervus(house, *issue, "room/hall")
    assert "retained 1 message, erased" in nervus(house, *issue, "room/attic")
    retain(house, house.authority.get("hall"), {"spinal": text})
    assert "retained 1 message, erased" in nervus(house, "identity", "revoke", "hall")
    assert json.loads(nervus(house, "clean", "--json"))["retained"] == 0


def test_nothing_to_clean_where_nothing_runs(house: House) -> None:
    with pytest.raises(CleanError, match=r"the broker does not run; start the system: nervus up"):
        nervus(house, "clean", "--yes")
    nervus(house, "identity", "issue", "hall", "--role", "board", "--scope", "room/hall")
    assert "later: nervus clean --yes" in nervus(house, "identity", "revoke", "hall")


def cleaner(house: House, broker: BrokerName) -> _Cleaner:
    """What cleans one broker of a house."""
    (one,) = (each for each in brokers(house.state, house.settings) if each.name == broker)
    who = house.authority.ensure("clean", ROLE)
    return _Cleaner(one, who, house.authority, Judge(house.authority.identities()))


def orphan(topic: str) -> Orphan:
    return Orphan(Packet("core", topic, b"{}", retain=True), "no_owner", "nobody is it")


@pytest.mark.parametrize("topic", ["/bs/a\ntopic readwrite #", "/bs/a ", "/bs/\u2028a"])
async def test_a_topic_that_would_lend_more_than_itself_is_not_erased(
    house: House, topic: str
) -> None:
    rights = brokers(house.state, house.settings)[1].acl_file
    before = rights.read_bytes()
    with pytest.raises(CleanError, match="its name holds what no topic of ours holds") as caught:
        await cleaner(house, "core").erase([orphan(topic)])
    assert caught.value.where == repr(topic)
    assert rights.read_bytes() == before


async def test_what_a_broker_denies_all_the_same_is_told_as_not_erased(
    running_house: House,
) -> None:
    # mosquitto keeps what is its own, whatever its list of rights says.
    with pytest.raises(CleanError, match="not erased") as caught:
        await cleaner(running_house, "core").erase([orphan("$SYS/broker/uptime")])
    assert caught.value.where == "$SYS/broker/uptime"


async def test_only_the_broker_that_is_asked_for_is_looked_at(
    running_house: House, witness: Identity
) -> None:
    house = running_house
    spinal, core = by_topic(status("gone")), by_topic(mode("nobody"))
    retain(house, witness, {"spinal": spinal, "core": core})
    found = await clean(
        house.state, house.settings, house.authority, "clean", Search(only=("core",)), erase=True
    )
    assert [each.packet.topic for each in found.orphans] == [*core]
    grant(house)
    assert retained(house, witness) == {*spinal}


IMPATIENT = """
from functools import partial
from nervus.bus import Limits
from nervus.cli import main
from nervus.runtime import clean, rights
clean.WITHIN_S = 0.3
rights.Session = partial(rights.Session, limits=Limits(timeout_s=0.3))
main()
"""


def test_a_broker_that_hangs_is_named(running_house: House) -> None:
    house = running_house
    words = [sys.executable, "-c", IMPATIENT, "clean", "--state", str(house.state.path)]
    pid = brokers(house.state, house.settings)[0].running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-3:] == [
        "error: no answer within 0.3 s",
        "where: spinal",
        "to do: look at it with `nervus status`, then try again",
    ]


A_DAY_MS = 86_400_000  # made when the tests are collected, looked at when their turn comes


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            packet(gate("somatic", A_DAY_MS, "hall")),
            "hall is a board, which does not publish there",
        ),
        (packet(gate("somatic", A_DAY_MS, "nobody")), "there is no identity nobody"),
        (packet(status("gone")), "there is no board gone"),
        (Packet("core", "/sc/what/state/x", b"{}", retain=True), "no such topic in topics.json"),
        (Packet("core", FOREIGN, b"{}", retain=True), None),
        (Packet("core", "plain", b"{}", retain=True), None),
        (Packet("core", "/", b"{}", retain=True), None),
        (Packet("spinal", topics.device_status("hall").topic, b"", retain=True), None),
        (packet(status("hall")), None),
    ],
)
def test_who_stands_for_a_retained_message(house: House, message: Packet, reason: Any) -> None:
    for name, role in (("hall", "board"), ("gates", "gatekeeper")):
        house.authority.issue(name, role, "room/hall" if role == "board" else None)
    found = Judge(house.authority.identities()).orphan(message, now_ms())
    assert (found.reason if found else None) == reason


def test_a_wrong_clock_of_ours_erases_nothing(house: House) -> None:
    house.authority.issue("hall", "board", "room/hall")
    judge, yesterday = Judge(house.authority.identities()), now_ms() - 86_400_000
    assert judge.orphan(packet(status("hall")), yesterday) is None
