"""The board's pure modules driven through long runs; prints what they do.

Runs on CPython and on MicroPython with firmware/lib on the path; both must print the same.
"""

import sys

from spinal import cbor, contracts, envelope
from spinal.actuators import Actuators
from spinal.afferent import Policy
from spinal.clock import Clock
from spinal.efferent import Ledger
from spinal.envelope import Envelope, WireError
from spinal.ids import MessageIds
from spinal.jsonprint import dumps
from spinal.jsonscan import JSONError, loads
from spinal.outbox import OVERHEAD, Outbox
from spinal.reflex import Engine
from spinal.rule import rule_hash
from spinal.schema import check, part
from spinal.ticks import MASK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOW = 1_790_000_000_000
JSON_TEXTS = (
    b'{"a":[1,-2.5e3,true,false,null,"x\\u00e9\\n"],"b":{}}',
    b"[1 2]",
    b"01",
    b"-",
    b"1.",
    b".5",
    b"1e999",
    b"-0",
    b"9007199254740992",
    b"9007199254740993",
    b"1" * 400,
    b'{"a":1,"a":2}',
    b'{"a":1,"\\u0061":2}',
    b"[1,]",
    b'{"a":1,}',
    b"NaN",
    b"nul",
    b'"\t"',
    b'"\\x"',
    b'"\\ud83d\\ude00"',
    b'"\\ud83d"',
    b'"\\ude00\\ud83d"',
    b'"\\u12"',
    b'"\xc3\xa9"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xff"',
    b'"open',
    b"[" * 17 + b"]" * 17,
    b"[" * 16 + b"]" * 16,
    b" 1 ",
    b"1 1",
    b"",
)


def say(*parts: object) -> None:
    """Print one line of the result."""
    print(*parts)  # noqa: T201 - the printed lines are the result


class Dice:
    """A small generator of the same numbers everywhere (Numerical Recipes, ranqd1)."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, limit: int) -> int:
        self._state = (self._state * 1664525 + 1013904223) % (1 << 32)
        return (self._state >> 8) % limit


def make_envelope(clock: Clock) -> Envelope:
    return Envelope("porch-1", 7, MessageIds(bytes(range(10))), clock)


def synced_clock(ticks_ms: int) -> Clock:
    clock = Clock()
    ping = clock.ping(ticks_ms)
    problem = clock.pong(dict(ping, unix_ms=NOW), ticks_ms)
    if problem:
        raise ValueError(problem)
    return clock


def ids() -> None:
    say("ids")
    for seed in (b"\0" * 10, b"\xff" * 10, bytes(range(10))):
        sequence = MessageIds(seed, NOW)
        buffer = bytearray(30)
        for _ in range(40):
            sequence.write(buffer, 2)
        say(sequence.next(), bytes(buffer))


def clock() -> None:
    say("clock")
    time = Clock()
    ticks_ms = MASK - 5000
    for _ in range(30):
        say(time.now(ticks_ms))
        ticks_ms = (ticks_ms + 90_000_000) & MASK
    say(time.pong(dict(time.ping(ticks_ms), unix_ms=NOW), (ticks_ms + 400) & MASK))
    for _ in range(30):
        say(time.now(ticks_ms))
        ticks_ms = (ticks_ms + 90_000_000) & MASK


def json() -> None:
    say("json")
    for text in JSON_TEXTS:
        try:
            say(dumps(loads(text)))
        except JSONError as error:
            say(text[:20], error)


CBOR_BODIES = (
    "a10203",
    "a102a3060107f9c00109fb4035628f5c28f5c3",
    "a102a2012001f6",
    "a102a2050105fa7fc00000",
    "a10263eda080",
    "a1029bffffffffffffffff",
    "a102a109636e6f6e",
    "a10203f7",
    "bf",
)
CBOR_VALUES = (0, -1, 23, 24, 65536, 2**53 - 1, 1 - 2**53, 0.0, -0.0, 21.37, 0.1, 1.5, 65504.0)
CBOR_VALUES += (2.0**-24, 6.1e-5, 1e-300, 3.4e38, 1e39, "é\n", True, {"x": 0.5})


def binary() -> None:
    """Written and read as CBOR."""
    for body in CBOR_BODIES:
        try:
            say("cbor", body, dumps(cbor.loads(cbor.MARK + bytes.fromhex(body))))
        except cbor.CBORError as error:
            say("cbor", body, error)
    meta = {"message_id": "01M7X8PQG0FP793DTR98H6BCFN", "contract": "AfferentSignal", "clk": "none"}
    for value in CBOR_VALUES:
        data = cbor.dumps({"meta": meta, "payload": {"value": value, "unit": "Cel"}})
        again = cbor.loads(data)["payload"]["value"]
        say("cbor", data.hex(), type(again).__name__, again == value)


def messages() -> None:
    say("messages")
    writer = make_envelope(synced_clock(MASK - 10))
    for position, value in enumerate((21.5, -3, True, "open", {"x": 0.25, "y": 2}, 1e21, 1e-7)):
        view = writer.afferent("temperature", value, "Cel", MASK + position * 5 & MASK, 10_000)
        say(bytes(view))
        say(envelope.mark_historical(bytes(view)))
    compact = Envelope("porch-1", 7, MessageIds(bytes(range(10))), synced_clock(9), "cbor")
    for position, value in enumerate((21.37, -3, 1000, True, "open", {"x": 0.25}, 1 << 40, -1e-7)):
        data = bytes(
            compact.afferent("temperature", value, "Cel", position * 7, 10_000, "critical")
        )
        say(data, envelope.mark_historical(data))
    pong = {"nonce": 1, "t0": 2, "unix_ms": NOW, "scope_level": "room", "scope": "hall"}
    good = writer.build("Pong", pong, 0, ttl_ms=10_000)
    say(good)
    spoiled = (
        good,
        b"",
        b"\xd9\xd9\xf7\xa0",
        b"[]",
        good * 20,
        good.replace(b"hall", b"h\xffll"),
        good.replace(b'"contract":"Pong"', b'"contract":"Ping"'),
        good.replace(b'"message_type":"Pong"', b'"message_type":"pong"'),
        good.replace(b'"v1"', b'"v9"'),
        good.replace(b'"nonce":1', b'"nonce":1.0'),
        good.replace(b'"nonce":1', b'"nonce":true'),
        good.replace(b'"boot":7', b'"boot":-1'),
        good.replace(b'"boot":7', b'"boot":7,"extra":1'),
        good.replace(b',"ttl_ms":10000', b""),
        good.replace(b'"scope":"hall"', b'"scope":""'),
    )
    for data in spoiled:
        try:
            meta, payload = envelope.parse(data)
            say(dumps(meta), dumps(payload), envelope.expired(meta, NOW + 10_021))
        except WireError as error:
            say(error.code, error.stage, error.text)


def policy() -> None:
    say("policy")
    configs = (
        {"deadband": 2, "min_interval_ms": 500, "max_interval_ms": 3000},
        {"median": 3, "urgent": {"ge": 30}, "deadband": 1},
        {"mean": 4, "urgent": {"le": 10, "ge": 35}, "min_interval_ms": 1000},
        {"debounce_ms": 350, "urgent": {"change": True}},
    )
    for config in configs:
        dice = Dice(5)
        judge = Policy(config)
        ticks_ms = MASK - 10_000
        value = 20
        for _ in range(200):
            ticks_ms = (ticks_ms + 50 + dice.below(200)) & MASK
            value = min(40, max(0, value + dice.below(7) - 3))
            sample = value > 20 if "debounce_ms" in config else value
            kind = judge.sample(sample, ticks_ms)
            if kind:
                say(ticks_ms, kind, judge.value)


def rule(name: str, version: int, when: "Any", then: "Any", **more: object) -> "dict[str, Any]":
    return dict(
        reflex_id=name,
        version=version,
        enabled=True,
        mode=more.pop("mode", "active"),
        when=when,
        then=then,
        **more,
    )


ACTUATORS: "list[dict[str, Any]]" = [
    {"id": "heater", "type": "bool", "boot": False, "max_on_ms": 5000},
    {"id": "lamp", "type": "number", "boot": 0, "min": 0, "max": 1, "on_loss": {"value": 0.25}},
    {"id": "bell", "type": "bool", "boot": False, "on_loss": {"off_after_ms": 700}},
]
ON = [{"actuator": "heater", "set": True}]
OFF = [{"actuator": "heater", "set": False}]
RULES = (
    rule(
        "cold",
        1,
        {"sensor": "temperature", "op": "lt", "value": 18, "hysteresis": 2.5, "for_ms": 300},
        ON,
        **{"else": OFF, "cooldown_ms": 900},
    ),
    rule(
        "cold",
        1,
        {"sensor": "temperature", "op": "lt", "value": 18, "hysteresis": 2.5, "for_ms": 300},
        OFF,
    ),
    rule(
        "night",
        3,
        {
            "all": [
                {"sensor": "motion", "op": "eq", "value": True},
                {"not": {"any": [{"sensor": "light", "op": "outside", "values": [0, 20]}]}},
            ]
        },
        [{"actuator": "lamp", "set": 0.4}, {"publish": {"sensor_type": "guest", "value": 1}}],
        priority=10,
        max_fires_per_min=3,
    ),
    rule(
        "door",
        1,
        {"sensor": "motion", "op": "changed"},
        [{"actuator": "bell", "pulse_ms": 200}],
        mode="dry_run",
    ),
    rule("bad", 1, {"sensor": "smell", "op": "gt", "value": 1}, ON),
    rule("dawn", 1, {"sensor": "light", "op": "rises", "value": 25, "hysteresis": 5}, ON),
    rule(
        "dusk",
        1,
        {"sensor": "light", "op": "falls"},
        [{"actuator": "lamp", "ramp": {"to": 0.125, "over_ms": 500}}],
        cooldown_ms=2000,
    ),
    rule("blind", 1, {"sensor": "motion", "op": "stale", "for_ms": 200}, OFF, priority=5),
    {"reflex_id": "bad", "version": 1, "removed": "it was never there"},
    rule("bad", 1, {"sensor": "light", "op": "gt"}, ON),
    rule("bad", 1, {"sensor": "light", "op": "gt", "value": 1}, [{"actuator": "lamp", "set": 2}]),
)


def reflexes() -> None:
    say("reflexes")
    outputs = Actuators(ACTUATORS)
    engine = Engine({"sensors": ["temperature", "motion", "light"], "actuators": outputs})
    place = part(contracts.TABLE, contracts.SCHEMAS["ReflexConfigure"], "payload")
    for payload in RULES:
        say(rule_hash(payload), dumps(engine.configure(payload, 0)))
        say(check(contracts.TABLE, place, payload))
    _reflex_run(engine)
    for name in ("cold", "night", "door", "dawn", "dusk", "blind", "bad"):
        say(dumps(engine.state(name)))


def _reflex_run(engine: Engine) -> None:
    ledger = Ledger(ACTUATORS)
    dice = Dice(11)
    values: dict[str, Any] = {"temperature": 20.0, "motion": False, "light": 10}
    ticks_ms = MASK - 20_000
    for turn in range(600):
        ticks_ms = (ticks_ms + 20 + dice.below(150)) & MASK
        values["temperature"] += (dice.below(9) - 4) / 4
        values["light"] = dice.below(30)
        if dice.below(5) == 0:
            values["motion"] = None if dice.below(6) == 0 else not values["motion"]
        effects = ledger.tick(ticks_ms)
        if turn == 400:
            forget = {"reflex_id": "blind", "version": 1, "removed": "enough"}
            say(dumps(engine.configure(forget, ticks_ms)))
        for firing in engine.evaluate(values, ticks_ms):
            say(turn, firing.reflex_id, firing.cause, dumps(firing.payload()))
            if not firing.dry_run:
                for step in firing.actions:
                    if "actuator" in step:
                        effects.extend(ledger.act(step, ticks_ms))
        if effects:
            say(dumps(effects, "%.6g"))


def commands() -> None:
    say("commands")
    dice = Dice(3)
    ledger = Ledger(ACTUATORS, limit=8)
    ticks_ms = MASK - 3000
    now_ms = NOW
    say(dumps(ledger.boot_outputs(ticks_ms)))
    for turn in range(300):
        step_ms = dice.below(300)
        ticks_ms = (ticks_ms + step_ms) & MASK
        now_ms += step_ms
        meta = {
            "action_id": f"A{dice.below(60)}",
            "t_ms": now_ms - dice.below(400),
            "clk": "hub",
            "deadline_ms": 300,
        }
        payload: dict[str, Any] = {"actuator": ("heater", "lamp", "bell", "nothing")[dice.below(4)]}
        if payload["actuator"] == "bell":
            payload["pulse_ms"] = 50 + dice.below(300)
        else:
            payload["set"] = (True, False, 0.5, 1.5)[dice.below(4)]
        decision = ledger.command(
            meta, payload, dice.below(20) == 0, dice.below(10) != 0, now_ms, ticks_ms
        )
        say(turn, decision.kind, decision.action_id, decision.code, dumps(decision.report))
        effects = ledger.start(decision.action_id, ticks_ms) if decision.kind == "act" else []
        if dice.below(25) == 0:
            ledger = Ledger(ACTUATORS, loads(dumps(ledger.stored()).encode(), 20_000), limit=8)
            effects = ledger.interrupted()
        if dice.below(20) == 0:
            ledger.link_lost(ticks_ms)
        if dice.below(20) == 0:
            ledger.link_up()
        effects = effects + ledger.tick(ticks_ms)
        if effects:
            say(dumps(effects))


def waiting() -> None:
    say("waiting")
    dice = Dice(8)
    outbox = Outbox(6, 400 + 6 * OVERHEAD, mark=lambda data: data + b"!")
    flying: list[Any] = []
    for seq in range(300):
        shed = outbox.put(
            f"t{dice.below(3)}",
            b"x" * dice.below(90),
            dice.below(2),
            dice.below(5) == 0,
            ("control", "critical", "normal", "background")[dice.below(4)],
            seq,
        )
        if shed:
            say("shed", shed.seq, shed.priority)
        chance = dice.below(8)
        if chance < 3:
            item = outbox.next()
            if item:
                say("sent", item.seq, item.priority, item.attempts, item.data[-1:])
                outbox.sent(item)
                if item.qos:
                    flying.append(item)
        elif chance == 3 and flying:
            outbox.acked(flying.pop(0))
        elif chance == 4:
            outbox.link_lost()
            flying = []
            outbox.link_up()
    say(len(outbox), outbox.dropped, outbox.superseded, outbox.take_drops())


def main() -> None:
    for scenario in (ids, clock, json, binary, messages, policy, reflexes, commands, waiting):
        scenario()
    say("modules", " ".join(sorted(name for name in sys.modules if name.startswith("spinal."))))


if __name__ == "__main__":
    main()
