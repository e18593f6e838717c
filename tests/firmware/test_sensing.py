"""Sensors that fail: they have no value, and a reflex that asks for that knows."""

import math
from typing import Any

import pytest

from firmware.reflex_rules import OFF, engine, rule
from spinal.sensing import Sensing


class Probe:
    """A sensor that gives what it is told, or raises it."""

    digital = False
    period_ms = 100

    def __init__(self) -> None:
        self.says: Any = 20.5

    def read(self) -> object:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def sensing(probe: Probe) -> Sensing:
    return Sensing(probe, {"id": "temperature", "unit": "Cel", "ttl_ms": None})


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (OSError(110), "OSError(110)"),
        (Exception("checksum error"), "Exception('checksum error')"),
        (math.nan, "it says nan"),
        (-math.inf, "it says -inf"),
        (None, "None"),
    ],
    ids=repr,
)
def test_sensor_that_keeps_failing_is_stale_until_it_gives_a_value_again(
    says: object, told: str
) -> None:
    probe = Probe()
    sensor = sensing(probe)
    when = {"sensor": "temperature", "op": "stale", "for_ms": 250}
    made = engine(rule(when, **{"else": OFF}))
    causes, news = {}, []
    for ticks in range(0, 1000, 100):
        probe.says = says if 200 <= ticks < 700 else 20.5
        assert sensor.read(ticks)
        assert (sensor.value is None) == (200 <= ticks < 700)
        if sensor.news is not None:
            news.append(sensor.news)
            sensor.news = None
        for firing in made.evaluate({"temperature": sensor.value}, ticks):
            causes[ticks] = firing.cause

    assert causes == {500: "then", 700: "else"}
    assert news == [f"temperature gives no value: {told}", "temperature gives values again"]


def test_sensor_that_never_gave_a_value_says_so_once() -> None:
    probe = Probe()
    probe.says = OSError(5)
    sensor = sensing(probe)
    assert sensor.read(0)
    assert sensor.news == "temperature gives no value: OSError(5)"
    sensor.news = None
    assert sensor.read(100)
    assert sensor.news is None
    assert sensor.take_report(100) is None
