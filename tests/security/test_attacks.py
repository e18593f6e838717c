"""What a holder of some certificate might try: real mosquitto, always beside a control."""

import json
import time
from itertools import product

import pytest

from nervus.reflect import Quarantine
from nervus.runtime.identity import Identity
from nervus.runtime.state import BROKERS, BrokerName
from nervus.wire import Mint, encode
from nervus.wire import topics as addresses
from nervus.wire.contracts import AfferentSignal, AfferentSignalPayload
from security.clients import NOT_AUTHORIZED, Peer
from security.matrix import Topic, roles, topics
from security.running import nervus
from support import House, eventually, is_up

# Some start a whole hub, on processors that other tests use too.
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("unmeasured")]

HERE = {"scope_level": "room", "scope": "porch", "device_id": "porch"}
FORGED = (
    {"device_id": "hall"},
    {"scope": "hall"},
    {"scope_level": "house"},
    {"scope_level": "device", "scope": "hall"},
    {"scope": "%u", "device_id": "%u"},
    {"device_id": "%c"},
)


def place(topic: Topic, **changed: str) -> str:
    """A board's topic, at the porch unless changed."""
    own = HERE | {"scope_level": "device"} if topic.row.get("board_scope") == "device" else HERE
    text: str = topic.row["template"]
    for key, value in (own | changed).items():
        text = text.replace("{" + key + "}", value)
    return text.replace("{", "").replace("}", "")


@pytest.fixture
def porch(running_house: House) -> Identity:
    running_house.join("hall", "board", "room/hall")
    return running_house.join("porch", "board", "room/porch")


@pytest.mark.parametrize("broker", BROKERS)
def test_a_chosen_client_id_and_user_name_throw_nobody_off_and_lend_no_rights(
    running_house: House, broker: BrokerName
) -> None:
    house = running_house
    victim, mallory = house.join("reliable", "reliable"), house.join("mallory", "modulator")
    topic = {
        "spinal": "/sc/dev/event/device/porch/pong",
        "core": "/E/outcome/event/room/porch/action/a1",
    }[broker]
    with (
        Peer(house, victim, broker) as own,
        Peer(house, mallory, broker, client_id="reliable", user_name="reliable") as thief,
    ):
        assert thief.publish(topic, "forged") == NOT_AUTHORIZED
        assert own.publish(topic, "own") != NOT_AUTHORIZED
    assert "already connected" not in house.log(broker)
    assert " as mallory " in house.log(broker)


def test_a_board_writes_nowhere_but_at_its_own_place(running_house: House, porch: Identity) -> None:
    house = running_house
    rows = [topic for topic in topics() if "board" in topic.row["publish"]]
    attempts = {place(topic, **changed) for topic, changed in product(rows, FORGED)} - {
        place(topic) for topic in rows
    }
    assert len(attempts) > 2 * len(rows)
    heard = set()
    with Peer(house, porch, "spinal") as board:
        for role in ("brainstem", "reliable", "updater", "reflect"):
            with Peer(house, house.join(role, role), "spinal") as reader:
                reader.subscribe("#")
                codes = {text: board.publish(text, "forged") for text in attempts}
                assert set(codes.values()) == {NOT_AUTHORIZED}, codes
                assert all(
                    board.publish(text, "own") != NOT_AUTHORIZED for text in map(place, rows)
                )
                heard.update(reader.settle())
    assert heard == {(place(topic), "own") for topic in rows}


@pytest.mark.parametrize("sender", ["reliable", "updater"])
def test_a_board_reads_nothing_that_is_meant_for_another(
    running_house: House, porch: Identity, sender: str
) -> None:
    house = running_house
    part = house.join(sender, sender)
    rows = [
        topic
        for topic in topics()
        if "board" in topic.row["subscribe"] and topic.row["publish"] == [sender]
    ]
    assert len(rows) >= 2
    with Peer(house, porch, "spinal") as board, Peer(house, part, "spinal") as hub:
        board.subscribe("/sc/#", "/sc/+/event/+/+/#", "$share/porch/#", "/sc/dev/event/device/%u/#")
        for topic in rows:
            assert hub.publish(place(topic, scope="hall", device_id="hall"), "hall") < 0x80
            assert hub.publish(place(topic), "porch") < 0x80
        heard = board.settle()
    assert {text for _, text in heard} == {"porch"}
    assert {topic for topic, _ in heard} == {place(topic) for topic in rows}


def test_a_board_on_the_core_broker_connects_and_is_powerless(
    running_house: House, porch: Identity
) -> None:
    """A certificate cannot be tied to one listener, so it is the rights that are missing."""
    house = running_house
    relay = house.join("relay", "relay")
    watcher = house.join("watcher", "observer")
    relayed = "/th/relay/event/room/porch/channel/somatic"
    with (
        Peer(house, porch, "core") as board,
        Peer(house, relay, "core") as source,
        Peer(house, watcher, "core") as control,
    ):
        board.subscribe("#", "/#", "/th/relay/#", "/bs/global/#", "$SYS/#")
        control.subscribe("/th/relay/#")
        tried = [board.publish(place(topic), "forged") for topic in topics()]
        assert set(tried) == {NOT_AUTHORIZED}
        source.publish(relayed, "control")
        assert control.settle() == [(relayed, "control")]
        assert board.settle() == []


@pytest.mark.req("S0-13")
@pytest.mark.parametrize("broker", BROKERS)
def test_no_trick_with_a_filter_reads_more_than_the_role_may(
    running_house: House, porch: Identity, broker: BrokerName
) -> None:
    house = running_house
    mallory, media = house.join("mallory", "consumer"), house.join("media", "media")
    secret = {"/sc/aff/event/room/porch/sensor/motion/device/porch": porch}
    if broker == "core":
        secret = {
            "/bs/relay/event/room/hall/channel/somatic": house.join("brainstem", "brainstem"),
            "/C/request/event/room/hall/from/other/action/a1": house.join("other", "operator"),
            "/th/route/event/room/hall/channel/somatic": house.join("relay", "relay"),
        }
    allowed = "/sc/media/state/device/porch"
    tricks = ["#", "/#", "+/#", "/+/#", "/+/+/event/#", "/bs/relay/#", "/sc/aff/#", "/C/request/#"]
    tricks += ["/C/request/event/+/+/from/%u/#", "/C/request/event/+/+/from/%c/#", "%u", "%c"]
    tricks += [f"$share/g/{trick}" for trick in tricks]
    tricks += ["$SYS/#", "$share/g/$SYS/#", "$CONTROL/#", *secret]
    with Peer(house, mallory, broker) as thief:
        thief.subscribe(*tricks)
        for topic, owner in secret.items():
            with Peer(house, owner, broker) as peer:
                assert peer.publish(topic, "secret") != NOT_AUTHORIZED
        with Peer(house, media, broker) as peer:
            peer.publish(allowed, "control")
        assert set(thief.settle()) == {(allowed, "control")}


def test_a_shared_subscription_gives_nobody_what_he_may_not_read(running_house: House) -> None:
    house = running_house
    relay, mallory = house.join("relay", "relay"), house.join("mallory", "modulator")
    console, other = house.join("console", "consumer"), house.join("other", "consumer")
    topic = "/th/relay/event/room/hall/channel/somatic"
    with (
        Peer(house, relay, "core") as source,
        Peer(house, mallory, "core") as thief,
        Peer(house, console, "core") as sharing,
        Peer(house, other, "core") as plain,
    ):
        for peer in (thief, sharing):
            peer.subscribe(f"$share/consoles/{topic}")
        plain.subscribe(topic)
        for number in range(10):
            source.publish(topic, str(number))
        assert thief.settle() == []
        # mosquitto still gives the intruder his turn, and what is denied to him is lost to the
        # group: shared subscriptions are no part of the wire, as SECURITY.md says.
        assert len(sharing.settle()) == 5
        assert plain.settle() == [(topic, str(number)) for number in range(10)]


@pytest.mark.parametrize("broker", BROKERS)
def test_the_brokers_figures_are_for_observers_and_operators_alone(
    running_house: House, broker: BrokerName
) -> None:
    house = running_house
    told = set()
    for role in roles():
        house.authority.issue(f"some-{role}", role, "room/a" if role == "board" else None)
    house.join("last", "consumer")
    for role in roles():
        with Peer(house, house.authority.get(f"some-{role}"), broker) as peer:
            peer.subscribe("$SYS/#")
            if peer.settle():
                told.add(role)
    assert told == {"observer", "operator"}


@pytest.mark.parametrize("broker", BROKERS)
def test_a_reject_cannot_be_forged_by_who_reports_none(
    running_house: House, broker: BrokerName
) -> None:
    house = running_house
    reflect, policy = house.join("reflect", "reflect"), house.join("policy", "policy")
    topic = "/X/reflect/event/room/hall/lane/reject"
    with Peer(house, reflect, broker) as control, Peer(house, policy, broker) as reporter:
        control.subscribe("/X/reflect/#")
        for role in ("consumer", "operator", "observer", "modulator", "diagnostics"):
            with Peer(house, house.join(role, role), broker) as mallory:
                assert mallory.publish(topic, "forged") == NOT_AUTHORIZED
        assert reporter.publish(topic, "control") == 0
        assert control.settle() == [(topic, "control")]


@pytest.mark.parametrize("kind", ["request", "cancel"])
def test_nobody_asks_in_the_name_of_another(running_house: House, kind: str) -> None:
    house = running_house
    mallory, policy = house.join("mallory", "consumer"), house.join("policy", "policy")
    house.join("console", "operator")
    with Peer(house, mallory, "core") as thief, Peer(house, policy, "core") as control:
        control.subscribe(f"/C/{kind}/#")
        for name in ("console", "Mallory", "mallory%20", "%u", "%c", "policy"):
            forged = f"/C/{kind}/event/room/hall/from/{name}/action/a1"
            assert thief.publish(forged, "forged") == NOT_AUTHORIZED
        own = f"/C/{kind}/event/room/hall/from/mallory/action/a1"
        assert thief.publish(own, "own") == 0
        assert control.settle() == [(own, "own")]


def test_a_last_will_has_no_more_rights_than_its_sender(running_house: House) -> None:
    house = running_house
    mallory, policy = house.join("mallory", "consumer"), house.join("policy", "policy")
    watcher, reliable = house.join("watcher", "observer"), house.join("reliable", "reliable")
    forbidden = "/C/cmd/event/room/hall/channel/light/action/a1"
    allowed = "/E/outcome/event/room/hall/action/a1"
    with Peer(house, watcher, "core") as control:
        control.subscribe("/C/cmd/#", "/E/outcome/#")
        for identity, topic in ((mallory, forbidden), (reliable, allowed)):
            with Peer(house, identity, "core", will=topic) as peer:
                peer.vanish()
                peer.wait_for_the_end()
        eventually(lambda: (allowed, "will") in control.received)
        with Peer(house, policy, "core") as peer:
            peer.publish(forbidden, "control")
        assert control.settle() == [(allowed, "will"), (forbidden, "control")]


@pytest.mark.timeout(90)  # a whole hub to start, and commands that ask it again and again
@pytest.mark.req("S0-18", "S2-27")
def test_an_event_that_is_retained_is_refused_with_its_reason_and_erased(up: House) -> None:
    """A broker cannot forbid retaining: the guard does, of the same board's same words."""
    nervus(up, "identity", "issue", "porch", "--role", "board", "--scope", "room/porch")
    nervus(up, "identity", "issue", "tester", "--role", "diagnostics")
    board, tester = up.authority.get("porch"), up.authority.get("tester")
    mint = Mint("device:porch", "spinal", seed=1, boot=1)

    def send(peer: Peer, *, retain: bool) -> None:
        payload = AfferentSignalPayload(sensor_type="motion", value=True)
        address = addresses.afferent("room", "porch", "motion", "porch")
        now_ms = time.time_ns() // 1_000_000
        message = mint.compact(AfferentSignal, address, payload, now_ms, priority="critical")
        peer.publish(address.topic, encode(message.message).decode(), retain=retain)

    def retained_and_erased() -> bool:
        # The empty message that erases is not one that a part takes, either.
        with Quarantine.open(up.state.data / "reflect.db") as quarantine:
            counts, latest = quarantine.counts(), quarantine.latest(10)
        return counts.get("retained_event", 0) > 0 and any(one.sample == "" for one in latest)

    with Peer(up, board, "spinal") as porch, Peer(up, tester, "core") as bundles:
        bundles.subscribe("/bs/relay/#")
        eventually(lambda: is_up(up), 30)
        send(porch, retain=True)
        eventually(retained_and_erased, 20)
        assert bundles.settle() == []
        send(porch, retain=False)
        eventually(lambda: len(bundles.received) == 1)
        assert list(json.loads(nervus(up, "rejects", "--json"))["counts"]) == ["retained_event"]
    assert json.loads(nervus(up, "clean", "--json"))["orphans"] == []
