"""The pure modules around messages and rules, driven by hand; prints what they do.

Runs on CPython and on MicroPython with firmware/lib on the path, in a folder of its own; both must
print the same. The last line names the modules that were loaded.
"""

import sys

from wlan_ports import RADIOS, House

from spinal import topics, wiring
from spinal.ed25519 import verify_slices
from spinal.health import Health
from spinal.jsonprint import dumps
from spinal.levels import level, unlevel
from spinal.node import NodeError, check
from spinal.packets import Framer, LinkError, subscribe_packet
from spinal.radio import Radio
from spinal.rejects import Rejects
from spinal.rulebook import RuleBook
from spinal.sensing import Sensing
from spinal.store import Store, StoreError
from spinal.wallclock import WallClock

TEXTS = ("porch-1", "a.b", "a/b", "+", "#", "grün", "%", "", "x" * 65, "o\n", "a b")
NODE = {
    "device_id": "m1",
    "scope_level": "room",
    "scope": "kitchen",
    "broker": {"host": "127.0.0.1", "port": 1883},
    "sensors": [
        {"id": "door", "driver": "digital", "pin": 4, "device_class": "door"},
        {"id": "heat", "driver": "analog", "pin": 26, "scale": 0.001, "unit": "Cel"},
    ],
    "actuators": [
        {"id": "lamp", "driver": "digital", "pin": 2, "boot": 0},
        {"id": "fan", "driver": "pwm", "pin": 15, "boot": 0.25, "on_loss": {"off_after_ms": 9}},
    ],
}
BROKEN: "tuple[tuple[str, object], ...]" = (
    ("device_id", ""),
    ("device_id", None),
    ("scope_level", "planet"),
    ("keepalive_s", 0),
    ("keepalive_s", True),
    ("colour", "red"),
    ("broker", {"host": "x"}),
    ("broker", {"host": "x", "port": "1883"}),
    ("sensors", [{"id": "a", "driver": "digital", "pin": 2}]),
    ("sensors", [{"id": "a", "driver": "magic", "pin": 3}]),
    ("sensors", [{"id": "a", "driver": "analog", "pin": 3, "median": 2}]),
    ("actuators", [{"id": "a", "driver": "pwm", "pin": 3, "boot": 2}]),
    ("actuators", [{"id": "a", "driver": "digital", "pin": 3, "boot": 0, "on_loss": 1}]),
)


def say(*parts: object) -> None:
    """Print one line of the result."""
    print(*parts)  # noqa: T201 - the printed lines are the result


def names() -> None:
    for text in TEXTS:
        try:
            coded = level(text)
        except ValueError as error:
            say(error)
            continue
        say(coded, unlevel(coded) == text)
        say(topics.afferent("room", text, "door", "m1"))
        say(topics.efferent_report("room", "kitchen", text, "m1", "0" * 26))
    for pattern, qos in topics.filters("room", "a.b", "m1"):
        say(pattern, qos)
        known = topics.parse(pattern.replace("+", "x"))
        say(known and (known[0], known[1], sorted(known[2].items())))
    for topic in ("", "/", "/sc", "/sc/eff/state/x", "a" * 300):
        say(topics.parse(topic))


def description() -> None:
    whole = check(dict(NODE))
    say(dumps(wiring.birth(whole, wiring.FIRMWARE)))
    for actuator in whole["actuators"]:
        say(sorted(wiring.declaration(actuator).items()))
    for field, value in BROKEN:
        try:
            check(dict(NODE, **{field: value}))
            say("taken", field)
        except NodeError as error:
            say(error.field, error.rule)


def refusals() -> None:
    rejects = Rejects()
    for turn in range(60):
        code = ("oversize", "duplicate", "expired")[turn % 7 % 3]
        meta = {"contract": "Pong", "source": "reliable", "message_id": 7 if turn % 2 else "x\n"}
        payload = rejects.add(
            code, "size", t_ms=turn, ticks_ms=turn * 700, text="t" * turn, meta=meta, data=b"\xff{"
        )
        say(payload and dumps(payload))
        for folded in rejects.tick(turn, turn * 700):
            say("folded", dumps(folded))
    say(rejects.uncounted)


def framing() -> None:
    stream = (
        bytes(subscribe_packet(7, [("/a/+", 1), ("/" + "l" * 200, 0)]))
        and b"\x20\x02\x00\x00\x90\x03\x00\x07\x01\x30\x06\x00\x02/ahi\xd0\x00\x40\x02\x00\x09"
    )
    for size in (1, 3, 64):
        framer = Framer(64)
        for at in range(0, len(stream), size):
            view = memoryview(stream)[at : at + size]
            done = 0
            while done < len(view):
                done += framer.feed(view[done:])
                if framer.packet is not None:
                    say(bytes(framer.take()))
    for broken in (b"\x30\xff\xff\xff\xff", b"\x30\xff\x7f", b"\x21\x03", b"\x36\x02", b"\x50\x02"):
        try:
            say(Framer(64).feed(memoryview(broken)))
        except LinkError as error:
            say(error)


class Scripted:
    """A sensor that reads what it is told, and fails on None."""

    period_ms = 100

    def __init__(self, values: list, *, digital: bool) -> None:
        self.digital = digital
        self._values = values

    def read(self) -> object:
        value = self._values.pop(0) if len(self._values) > 1 else self._values[0]
        if value is None:
            raise OSError(5)
        return value

    def moved(self) -> bool:
        return True


def sampling() -> None:
    door = {"id": "door", "unit": None, "ttl_ms": None, "debounce_ms": 30}
    heat = {
        "id": "heat",
        "unit": "Cel",
        "ttl_ms": None,
        "deadband": 1,
        "median": 3,
        "urgent": {"above": 40},
    }
    for config, values, digital in (
        (door, [False, True, False, True, True, True, True, False], True),
        (heat, [20, 20, 35, 21, None, 22, 41, 41, 41, 20], False),
    ):
        try:
            sensing = Sensing(Scripted(list(values), digital=digital), config)
        except ValueError as error:
            say(error)
            continue
        for ticks in range(0, 1200, 10):
            if sensing.read(ticks):
                say(ticks, sensing.value, sensing.take_report(ticks), sensing.settled, sensing.due)


def keeping() -> None:
    store = Store(".")
    for generation in range(5):
        store.write("boot", {"boot": generation})
        say(store.read("boot"))
    with open("boot.a", "wb") as file:  # noqa: PTH123 - MicroPython has no pathlib
        file.write(b"torn")
    say(store.read("boot"), store.damaged > 0)
    for name in ("../x", "A"):
        try:
            store.write(name, 1)
        except StoreError as error:
            say(error.code)
    book = RuleBook(store)
    for number in range(34):
        try:
            book.keep(f"r{number}", {"reflex_id": f"r{number}", "version": 1})
        except StoreError as error:
            say(number, error.code)
    book.keep("r3", None)
    book.keep("new", {"reflex_id": "new", "version": 1})
    rules, problems = RuleBook(store).load()
    say([rule["reflex_id"] for rule in rules], problems)


class Rtc:
    """A port's clock that stands."""

    def __init__(self) -> None:
        self.moment = (2021, 1, 1, 4, 0, 0, 0, 0)

    def datetime(self, *moment: tuple) -> tuple:
        if moment:
            self.moment = moment[0]
        return self.moment


def dates() -> None:
    head = b"0\x82\x01\x000\x81\xf0\xa0\x03\x02\x01\x02\x02\x01\x070\x000\x01!0\x1e"
    clock = None
    for der in (head + b"\x18\x0f20510203040506Z", head + b"\x17\x0d261122090307Z", head):
        for stored in (None, [2090, 1, 2, 3, 4, 5], [2020, 1, 1, 0, 0, 0]):
            rtc = Rtc()
            try:
                clock = WallClock(rtc, der, stored)
                say(clock.was_behind, rtc.moment)
            except ValueError as error:
                say(error)
    rtc = Rtc()
    clock = WallClock(rtc, head + b"\x17\x0d180101000000Z", None)
    for day in range(0, 60000, 977):
        unix_ms = 1_600_000_000_123 + day * 86_400_000
        say(clock.tick(unix_ms), clock.tick(unix_ms), rtc.moment, clock.refuse("no"))
        say(clock.refuse("The certificate validity starts in the future\n"), rtc.moment)


def radios() -> None:
    for name in sorted(RADIOS):
        radio = RADIOS[name]()
        house = House(radio, Radio(radio, {"ssid": "s", "key": None}, lambda limit: limit // 3), 99)
        for seconds, router in ((50, False), (90, True), (400, False), (60, True)):
            radio.router = router
            house.live(seconds)
        radio.stuck = True
        house.live(500)
        house.live(2000, broker=False)
        say(radio.calls)
        say(len(house.online), house.news)


def health() -> None:
    kept = Health()
    for turn in range(200):
        kept.turn(turn * turn)
    kept.dropped([[first, first + 1] for first in range(0, 60, 3)])
    for _ in range(2):
        loop_p99, drops = kept.take()
        say(loop_p99, dumps(drops))


def signature() -> None:
    key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signed = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    for message in (b"\x72", b"\x73"):
        slices = verify_slices(key, message, signed)
        count = 0
        while True:
            try:
                next(slices)
                count += 1
            except StopIteration as end:
                say(count, end.value)
                break


def main() -> None:
    for scenario in (
        names,
        description,
        refusals,
        framing,
        sampling,
        keeping,
        dates,
        radios,
        health,
        signature,
    ):
        say("--", scenario.__name__)
        scenario()
    say("modules", " ".join(sorted(name for name in sys.modules if name.startswith("spinal."))))


if __name__ == "__main__":
    main()
