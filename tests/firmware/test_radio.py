"""A board joins its Wi-Fi again, whatever its port does of that by itself."""

import random
from itertools import pairwise

import pytest

from firmware.wlan_ports import RADIOS, House, Wlan
from spinal.radio import Radio

WIFI = {"ssid": "house", "key": "secret"}
LAST_TICK = (1 << 30) - 1
A_JOIN_S = 36  # a wait of 20 s and up to 10 of jitter, the pause, the join
every_radio = pytest.mark.parametrize("radio", RADIOS)
every_start = pytest.mark.parametrize("first_tick", [0, LAST_TICK - 100_000, LAST_TICK // 2])


def house(radio: str, first_tick: int = 0) -> House:
    draw = random.Random(radio + str(first_tick)).randrange  # noqa: S311 - jitter of a simulation
    wlan: Wlan = RADIOS[radio]()
    return House(wlan, Radio(wlan, WIFI, draw), first_tick)


def count(wlan: Wlan, call: str, since_s: int = 0) -> int:
    return sum(each == call and at >= since_s for at, each in wlan.calls)


@every_radio
@every_start
def test_it_joins_at_boot_and_then_leaves_the_radio_alone(radio: str, first_tick: int) -> None:
    made = house(radio, first_tick)
    assert (
        made.back_after(90) <= 70
    )  # mute: refused at 0 s, asked again within 30, and then once more
    since = made.seconds
    made.live(7_200)

    assert made.online == list(range(made.online[0], made.seconds))
    assert [call for call in made.radio.calls if call[0] >= since] == []
    assert made.radio.pm == getattr(made.radio, "PM_NONE", None)


@every_radio
@every_start
def test_a_router_that_is_slower_than_the_board_after_a_power_cut_is_found(
    radio: str, first_tick: int
) -> None:
    made = house(radio, first_tick)
    made.radio.router = False
    made.live(180)
    made.radio.router = True

    assert made.back_after(300) <= A_JOIN_S


@every_radio
@every_start
@pytest.mark.parametrize("outage_s", [5, 60, 3_600])
def test_a_router_that_was_away_is_joined_again(radio: str, first_tick: int, outage_s: int) -> None:
    made = house(radio, first_tick)
    made.live(100)
    made.radio.router = False
    made.live(outage_s)
    made.radio.router = True

    assert made.back_after(300) <= A_JOIN_S
    # Nobody is asked more often than a join may take.
    assert count(made.radio, "connect") <= 3 + outage_s / 20


def test_an_outage_longer_than_ticks_can_tell_is_no_other_one() -> None:
    made = house("rp2")
    made.live(100)
    made.radio.router = False
    made.live(800_000)
    made.radio.router = True

    assert made.back_after(300) <= A_JOIN_S
    assert 800_000 / 34 <= count(made.radio, "connect") <= 800_000 / 20


@every_radio
def test_a_radio_that_hangs_is_switched_off_and_on_in_the_end(radio: str) -> None:
    made = house(radio)
    made.live(100)
    made.radio.stuck = True

    assert made.back_after(600) <= 8 * A_JOIN_S
    assert count(made.radio, "off") == 1
    assert count(made.radio, "disconnect", 100) == 7


@every_radio
def test_a_connection_that_carries_nothing_is_joined_anew(radio: str) -> None:
    made = house(radio)
    made.live(100)
    made.radio.air = False

    assert made.back_after(900) <= 310
    assert count(made.radio, "disconnect", 100) == 1


@every_radio
def test_a_broker_that_is_down_for_a_day_costs_few_joins(radio: str) -> None:
    made = house(radio)
    made.live(100)
    made.live(86_400, broker=False)

    assert count(made.radio, "off") == 0
    assert 20 <= count(made.radio, "disconnect", 100) <= 30  # after 5, 10, 20, 40, 60, 60 … minutes
    assert made.back_after(60) <= 10
    made.live(100)
    made.radio.air = False
    assert made.back_after(900) <= 310  # patience is short again


@every_radio
def test_whatever_is_left_is_joined_only_after_a_pause(radio: str) -> None:
    made = house(radio)
    made.live(60)
    for turn in range(40):
        made.radio.router = turn % 3 == 0
        made.radio.stuck = turn % 5 == 0
        made.live(61)
    calls = [call for call in made.radio.calls if call[1] in ("off", "disconnect", "connect")]
    pauses = [
        later - at
        for (at, what), (later, then) in pairwise(calls)
        if what != "connect" and then == "connect"
    ]

    assert len(pauses) > 10
    assert min(pauses) >= 2
