"""What an identity may publish and read: real mosquitto, real clients, always beside a control."""

import time

import pytest

from support import House

# Identities and rights count once they are on the disk: a slow one takes its time for each.
pytestmark = pytest.mark.timeout(60)

GATE = "/th/gate/state/room/hall/target/channel/visceral"
PONG = "/sc/dev/event/device/porch/pong"


@pytest.mark.req("S2-10", "S2-73", "S2-74")
def test_only_the_gatekeeper_sets_gates(running_house: House) -> None:
    house = running_house
    gatekeeper = house.join("gatekeeper", "gatekeeper")
    relay = house.join("relay", "relay")
    observer = house.join("watcher", "observer")
    for name, role in (("relay", "relay"), ("brainstem", "brainstem"), ("mod", "modulator")):
        other = relay if role == "relay" else house.join(name, role)
        heard = house.listen(observer, "core", [GATE], 1)
        house.publish(other, "core", GATE, "forbidden")
        house.publish(gatekeeper, "core", GATE, "control")
        assert heard.messages() == [f"{GATE} control"]


@pytest.mark.req("S0-13", "S1-66")
@pytest.mark.parametrize("role", ["consumer", "relay", "observer", "reflect", "diagnostics"])
def test_raw_afferents_reach_brainstem_alone(running_house: House, role: str) -> None:
    house = running_house
    porch = house.join("porch", "board", "room/porch")
    other = house.join("other", role)
    brainstem = house.join("brainstem", "brainstem")
    topic = "/sc/aff/event/room/porch/sensor/temperature/device/porch"
    curious = house.listen(other, "spinal", ["/sc/aff/#", "/#", "#"], 1)
    heard = house.listen(brainstem, "spinal", [topic], 1)
    house.publish(porch, "spinal", topic, "raw")
    assert heard.messages() == [f"{topic} raw"]
    # The broker hands a message to all who get it at once.
    time.sleep(0.2)
    assert curious.close() == []


@pytest.mark.req("S1-10", "S1-73")
def test_only_reliable_actuates(running_house: House) -> None:
    house = running_house
    topic = "/sc/eff/event/room/porch/act/lamp/device/porch/cmd/a1"
    porch = house.join("porch", "board", "room/porch")
    reliable = house.join("reliable", "reliable")
    for role in ("brainstem", "consumer", "operator", "reflect"):
        heard = house.listen(porch, "spinal", [topic], 1)
        house.publish(house.join(role, role), "spinal", topic, "forbidden")
        house.publish(reliable, "spinal", topic, "control")
        assert heard.messages() == [f"{topic} control"]


def test_a_board_speaks_for_itself_and_its_scope_alone(running_house: House) -> None:
    house = running_house
    porch = house.join("porch", "board", "room/porch")
    house.join("hall", "board", "room/hall")
    brainstem = house.join("brainstem", "brainstem")
    own = "/sc/aff/event/room/porch/sensor/temperature/device/porch"
    for foreign in (
        "/sc/aff/event/room/porch/sensor/temperature/device/hall",
        "/sc/aff/event/room/hall/sensor/temperature/device/porch",
        "/sc/aff/event/house/home/sensor/temperature/device/porch",
    ):
        heard = house.listen(brainstem, "spinal", ["/sc/aff/event/#"], 1)
        house.publish(porch, "spinal", foreign, "forbidden")
        house.publish(porch, "spinal", own, "control")
        assert heard.messages() == [f"{own} control"]


def test_a_moved_board_loses_its_old_scope(running_house: House) -> None:
    house = running_house
    house.join("porch", "board", "room/porch")
    brainstem = house.join("brainstem", "brainstem")
    moved = house.join("porch", "board", "room/hall")
    old, new = (
        f"/sc/aff/event/room/{room}/sensor/temperature/device/porch" for room in ("porch", "hall")
    )
    heard = house.listen(brainstem, "spinal", ["/sc/aff/event/#"], 1)
    house.publish(moved, "spinal", old, "forbidden")
    house.publish(moved, "spinal", new, "control")
    assert heard.messages() == [f"{new} control"]


def test_a_request_carries_its_own_identity_alone(running_house: House) -> None:
    house = running_house
    mallory = house.join("mallory", "consumer")
    policy = house.join("policy", "policy")
    forged, own = (
        f"/C/request/event/room/hall/from/{name}/action/a1" for name in ("console", "mallory")
    )
    heard = house.listen(policy, "core", ["/C/request/#"], 1)
    house.publish(mallory, "core", forged, "forbidden")
    house.publish(mallory, "core", own, "control")
    assert heard.messages() == [f"{own} control"]


def test_a_denied_publish_is_told_to_an_mqtt_5_client(running_house: House) -> None:
    relay = running_house.join("relay", "relay")
    denied = running_house.publish(relay, "core", GATE, "x", "-V", "mqttv5", "-d")
    assert "RC:135" in denied.stdout + denied.stderr
    allowed = "/th/route/event/room/hall/channel/visceral"
    granted = running_house.publish(relay, "core", allowed, "x", "-V", "mqttv5", "-d")
    assert "RC:135" not in granted.stdout + granted.stderr


@pytest.mark.parametrize(
    ("role", "may"), [("observer", True), ("operator", True), ("consumer", False)]
)
def test_the_brokers_own_figures_are_for_observers_and_operators(
    running_house: House, role: str, *, may: bool
) -> None:
    house = running_house
    reader = house.join("reader", role)
    heard = house.listen(reader, "core", ["$SYS/broker/version"], 1)
    if may:
        assert heard.messages() == ["$SYS/broker/version mosquitto version 2.0.11"]
        return
    # The retained figure would have come with the subscription, before this.
    policy = house.join("policy", "reliable")
    topic = "/E/outcome/event/room/hall/action/a1"
    heard.close()
    both = house.listen(reader, "core", ["$SYS/broker/version", topic], 1)
    house.publish(policy, "core", topic, "control")
    assert both.messages() == [f"{topic} control"]


def test_a_part_joins_running_brokers_and_others_stay_connected(running_house: House) -> None:
    house = running_house
    porch = house.join("porch", "board", "room/porch")
    heard = house.listen(porch, "spinal", [PONG], 1)
    reliable = house.join("reliable", "reliable")
    house.publish(reliable, "spinal", PONG, "hello")
    assert heard.messages() == [f"{PONG} hello"]
    assert house.log("spinal").count("as porch ") == 1


def test_rights_reach_a_live_connection(running_house: House) -> None:
    """An identity that connects before its rights are written gets them without reconnecting."""
    house = running_house
    board = house.authority.issue("porch", "board", "room/porch")
    heard = house.listen(board, "spinal", [PONG], 1)
    assert house.refresh() == ["spinal", "core"]
    reliable = house.join("reliable", "reliable")
    house.publish(reliable, "spinal", PONG, "hello")
    assert heard.messages() == [f"{PONG} hello"]
