"""Rights that were issued are in force, whatever signals a broker misses; or it is an error."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nervus.runtime.brokers import Broker, brokers
from nervus.runtime.identity import Identity
from nervus.runtime.rights import RightsError
from nervus.runtime.state import BROKERS
from security.clients import NOT_AUTHORIZED, Peer
from support import House

reload = Broker.reload
DECISIONS = "/th/route/event/room/hall/channel/visceral"


def may_decide(house: House, relay: Identity) -> bool:
    with Peer(house, relay, "core") as peer:
        return peer.publish(DECISIONS, "x") != NOT_AUTHORIZED


@pytest.mark.req("S4-58")
def test_a_signal_that_a_broker_misses_is_repeated(
    running_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed: list[Broker] = []

    def deaf_at_first(broker: Broker) -> bool:
        if missed.count(broker) < 2:
            missed.append(broker)
            return True
        return reload(broker)

    monkeypatch.setattr(Broker, "reload", deaf_at_first)
    relay = running_house.join("relay", "relay")
    assert len(missed) == 4
    assert may_decide(running_house, relay)


def test_rights_are_in_force_at_once_while_brokers_reload_without_end(
    running_house: House,
) -> None:
    pids = [broker.running_pid() for broker in brokers(running_house.state, running_house.settings)]
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            for pid in pids:
                os.kill(pid or 0, signal.SIGHUP)
            time.sleep(0.001)  # a signal that comes while it reads is missed

    with ThreadPoolExecutor(1) as pool:
        storm = pool.submit(disturb)
        try:
            for number in range(3):
                assert may_decide(running_house, running_house.join(f"relay-{number}", "relay"))
        finally:
            stop.set()
            storm.result()


def test_two_who_issue_at_once_both_get_their_rights(running_house: House) -> None:
    house = running_house
    with ThreadPoolExecutor(2) as pool:
        joined = list(pool.map(lambda name: house.join(name, "relay"), ("relay", "relay-1")))
    assert [may_decide(house, relay) for relay in joined] == [True, True]


def test_a_broker_that_does_not_read_them_is_an_error_that_names_it_and_they_follow(
    running_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = running_house
    relay = house.authority.issue("relay", "relay")
    with monkeypatch.context() as patched:
        patched.setattr(Broker, "reload", lambda broker: broker.name == "core" or reload(broker))
        with pytest.raises(RightsError, match=r"the core broker does not hold .* after 3 s"):
            house.refresh(within_s=3)  # in which the other one does, also on a busy machine
    assert not may_decide(house, relay)
    assert house.refresh() == list(BROKERS)
    assert may_decide(house, relay)
